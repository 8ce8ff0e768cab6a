"""Which component gives a row: exact shares, and each stream in its order."""

import fractions

import numpy as np
import pytest

from gkd.data.mixture import Mixture
from gkd.text.vocabulary import ByteVocabulary
from gkd.text.vocabulary import CharacterVocabulary
from gkd.types import UserError
from tests.data import tiny_caches

RATES = [
  (1,),
  (3, 1),
  (1, 3),
  (1, 1, 1),
  (5, 1, 94),
  (0.7, 0.2, 0.1),
  (166_203, 6_954, 12),
  (1, 1e-3, 2.5, 40),
]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  return [tiny_caches.numbered(folder / name, 3, task=name) for name in "abcd"]


def mix(caches, rates):
  return Mixture(zip(caches, rates, strict=False))


def simulated(rates, rows):
  """The rule as a process with a memory: rows are dealt out one by one."""
  rates = [fractions.Fraction(str(rate)) for rate in rates]
  seen, given = [0] * len(rates), [0] * len(rates)
  for _ in range(rows):
    for j, rate in enumerate(rates):
      seen[j] += 1
      if given[j] + 1 <= seen[j] * rate / sum(rates[j:]):
        break
    yield j, given[j]
    given[j] += 1


@pytest.mark.parametrize("rates", RATES)
def test_closed_form_is_the_process_with_a_memory(caches, rates):
  mixture = mix(caches, rates)
  expected = list(simulated(rates, 1000))
  assert [mixture.split(n) for n in range(1000)] == expected


@pytest.mark.parametrize("rates", RATES)
def test_shares_are_exact_in_every_block_and_close_before(caches, rates):
  mixture = mix(caches, rates)
  total = sum(mixture.rates)
  assert np.allclose(mixture.shares, np.array(rates) / sum(rates))
  for first in (0, 7 * total):
    rows = range(first, first + min(total, 3000))
    components = np.array([mixture.split(n)[0] for n in rows])
    given = np.cumsum(components[:, None] == np.arange(len(rates)), axis=0)
    wanted = np.arange(1, len(rows) + 1)[:, None] * np.array(mixture.shares)
    assert (np.abs(given - wanted) < len(rates)).all()
    if len(rows) == total:
      assert given[-1].tolist() == list(mixture.rates)


def test_far_rows_are_exact_too(caches):
  mixture = mix(caches, (2, 1))
  far = 3 * 10**15
  rows = [mixture.split(n) for n in range(far, far + 3)]
  third = far // 3
  assert sorted(rows) == [(0, 2 * third), (0, 2 * third + 1), (1, third)]


def test_neither_order_nor_scale_of_the_rates_matters(caches):
  a, b, c, _ = caches
  one = Mixture([(a, 3), (b, 1), (c, 0.5)])
  other = Mixture([(c, 1), (a, 6), (b, 2)])
  assert one.rates == other.rates == (6, 2, 1)
  assert one.caches == other.caches == (a, b, c)


def test_what_cannot_be_mixed_is_refused(caches, tmp_path):
  a, b, *_ = caches
  for rate in (0, -1, float("nan"), float("inf"), "3", None, True):
    with pytest.raises(UserError, match=f"of b in the mixture is {rate!r};"):
      Mixture([(a, 1), (b, rate)])
  with pytest.raises(UserError, match="is twice in the mixture"):
    Mixture([(a, 1), (b, 1), (a, 2)])
  rows = [tiny_caches.Row(np.ones(1), np.ones(1), "x", None)]
  for vocabulary, difference in (
    (CharacterVocabulary("0123"), r"id 3 is '<0x00>' in one .* and '0' in"),
    (ByteVocabulary(extra_ids=2), r"259 ids .* against 261"),
  ):
    other = tiny_caches.write(
      tmp_path / difference[:4], rows, task="z", vocabulary=vocabulary
    )
    with pytest.raises(UserError, match=f"cannot be mixed, .*{difference}"):
      Mixture([(a, 1), (other, 1)])
