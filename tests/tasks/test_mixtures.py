"""Rates of a mixture that seqio knows, also those that are functions."""

import sys
import types

import pytest
import seqio

from gkd.tasks import features
from gkd.tasks import mixtures
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError

ROWS = {"blue": 2, "red": 6}


def num_examples(**options):
  return lambda task: seqio.mixing_rate_num_examples(task, **options)


@pytest.fixture
def find(monkeypatch):
  """Has a module register two tasks and a mixture of them; looks one up."""

  def registered(rates, name="hues"):
    def register(data_dir, vocabulary):
      for task in ROWS:
        features.add_task(
          task,
          sources.rows_source(lambda split: [], ("train", "test")),
          vocabulary,
          postprocess=postprocess.strip,
          metrics=[metrics.accuracy],
        )
      seqio.MixtureRegistry.add("hues", list(rates.items()))

    module = types.SimpleNamespace(register=register)
    monkeypatch.setitem(sys.modules, "hues", module)
    return mixtures.find(name, "hues", None, ByteVocabulary())

  yield registered
  seqio.MixtureRegistry.remove("hues")


def test_a_name_that_is_no_mixture(find):
  assert find({"red": 1, "blue": 1}, "red") is None


@pytest.mark.parametrize(
  ("red", "expected"),
  [(0.5, 0.5), (num_examples(), 6.0), (num_examples(maximum=3), 3.0)],
)
def test_rates_are_those_of_seqio_at_the_sizes_of_the_caches(
  find, red, expected
):
  mixture = find({"red": red, "blue": lambda task: 2})
  rates = mixtures.rates(mixture, "train", ROWS)
  assert rates == {"red": expected, "blue": 2.0}


def test_a_rate_that_cannot_be_computed_is_one_line(find):
  mixture = find({"red": num_examples(split="test"), "blue": 1})
  message = (
    r"the rate of task 'red' in mixture 'hues' cannot be computed"
    r" \(TypeError: .*\); register a number"
  )
  with pytest.raises(UserError, match=message):
    mixtures.rates(mixture, "train", ROWS)
