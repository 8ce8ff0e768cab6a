"""Rates of a mixture that seqio knows, also those that are functions."""

import sys
import types

import pytest

seqio = pytest.importorskip("seqio")

from gkd.tasks import features  # noqa: E402
from gkd.tasks import mixtures  # noqa: E402
from gkd.tasks import sources  # noqa: E402
from gkd.text import metrics  # noqa: E402
from gkd.text import postprocess  # noqa: E402
from gkd.text.vocabulary import ByteVocabulary  # noqa: E402
from gkd.types import UserError  # noqa: E402

ROWS = {"blue": 2, "red": 6}


@pytest.fixture
def registered(monkeypatch):
  """Has a module register two tasks and a mixture of them."""

  def add(rates):
    def register(data_dir, vocabulary):
      for name in ROWS:
        features.add_task(
          name,
          sources.rows_source(lambda split: [], ("train", "test")),
          vocabulary,
          postprocess=postprocess.strip,
          metrics=[metrics.accuracy],
        )
      features.add_mixture("colours", rates)

    module = types.SimpleNamespace(register=register)
    monkeypatch.setitem(sys.modules, "colours", module)
    return mixtures.find("colours", "colours", None, ByteVocabulary())

  return add


def test_a_name_that_is_no_mixture(registered):
  registered({"red": 1, "blue": 1})
  assert mixtures.find("red", "colours", None, ByteVocabulary()) is None


def test_rates_are_those_of_seqio(registered):
  mixture = registered({"red": 0.5, "blue": lambda task: 2})
  assert mixtures.rates(mixture, "train", ROWS) == {"red": 0.5, "blue": 2.0}


@pytest.mark.parametrize(("maximum", "expected"), [(None, 6.0), (3, 3.0)])
def test_sizes_are_those_of_the_caches(registered, maximum, expected):
  def rate(task):
    return seqio.mixing_rate_num_examples(task, maximum=maximum)

  mixture = registered({"red": rate, "blue": rate})
  rates = mixtures.rates(mixture, "train", ROWS)
  assert rates == {"red": expected, "blue": 2.0}


def test_a_rate_that_cannot_be_computed_is_one_line(registered):
  def rate(task):
    return seqio.mixing_rate_num_examples(task, split="test")

  mixture = registered({"red": rate, "blue": 1})
  message = (
    r"the rate of task 'red' in mixture 'colours' cannot be computed"
    r" \(TypeError: .*\); register a number"
  )
  with pytest.raises(UserError, match=message):
    mixtures.rates(mixture, "train", ROWS)
