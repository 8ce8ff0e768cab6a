"""Parts of a cache: drawn by a seed, nested, and prompts traded for targets."""

import itertools
import re

import pytest

from gkd.data.subset import Subset
from gkd.data.subset import rising
from gkd.types import UserError
from tests.data import tiny_caches

ROWS = 400


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tiny_caches.numbered(tmp_path_factory.mktemp("c") / "c", ROWS, first=3)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
  """12 prompts of 4 targets; of the second the last two stand at the end."""
  path = tmp_path_factory.mktemp("s") / "c"
  prompts = [(f"p{i}", 2 if i == 1 else 4) for i in range(12)]
  return tiny_caches.grouped(path, [*prompts, ("p1", 2)])


def test_all_rows_without_a_choice(cache):
  assert list(Subset().of(cache, 0)) == list(range(ROWS))
  assert list(Subset(fraction=1).of(cache, 0)) == list(range(ROWS))
  assert list(Subset(limit=ROWS + 1).of(cache, 0)) == list(range(ROWS))
  assert len(Subset(fraction=1e-9).of(cache, 0)) == 1


@pytest.mark.parametrize("name", ["limit", "fraction"])
def test_smaller_parts_lie_within_larger_ones(cache, name):
  sizes = {"limit": (2, 20, 100, 300), "fraction": (0.005, 0.05, 0.25, 0.75)}
  parts = []
  for size in sizes[name]:
    rows = list(Subset(**{name: size}).of(cache, 5))
    assert len(rows) == len(set(rows))
    assert rising(rows).tolist() == sorted(rows)
    parts.append(set(rows))
  assert [len(part) for part in parts] == [2, 20, 100, 300]
  assert all(a < b for a, b in itertools.pairwise(parts))
  assert parts[1] != set(range(20))


def test_a_part_is_of_its_own_seed_or_the_runs(cache):
  def drawn(run, seed=None):
    return rising(Subset(fraction=0.1, seed=seed).of(cache, run)).tolist()

  assert drawn(1) != drawn(2)
  assert drawn(1, seed=7) == drawn(2, seed=7) == drawn(7)


def targets_by_prompt(cache, rows):
  found = {}
  for row in cache.read(rising(rows)):
    found.setdefault(row.prompt, []).append(row.reference)
  return found


@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_first_targets_of_each_prompt(sampled, m):
  rows = Subset(targets_per_prompt=m).of(sampled, 0)
  assert len(rows) == 12 * m
  # The third and fourth of p1 are the first two of its rows at the end.
  last = {1: [0], 2: [0, 1], 4: [0, 1, 0, 1]}[m]
  expected = {f"p{i}": list(range(m)) for i in range(12)} | {"p1": last}
  assert targets_by_prompt(sampled, rows) == expected
  # Targets of a prompt follow one another, prompts as they first appear.
  prompts = [row.prompt for row in sampled.read(list(rows))]
  assert prompts == [f"p{i}" for i in range(12) for _ in range(m)]


def test_diversity_at_constant_size(sampled):
  prompts = {}
  for m in (1, 2, 4):
    subset = Subset(limit=12, targets_per_prompt=m)
    targets = targets_by_prompt(sampled, subset.of(sampled, 3))
    assert [len(t) for t in targets.values()] == [m] * (12 // m)
    prompts[m] = set(targets)
  assert prompts[4] < prompts[2] < prompts[1]


def test_a_fraction_of_the_prompts_with_their_targets(sampled):
  subsets = [Subset(fraction=f, targets_per_prompt=3) for f in (0.25, 0.5)]
  parts = [targets_by_prompt(sampled, s.of(sampled, 0)) for s in subsets]
  assert [len(part) for part in parts] == [3, 6]
  assert set(parts[0]) < set(parts[1])
  assert all(len(targets) == 3 for targets in parts[1].values())


@pytest.mark.parametrize(
  ("name", "fields", "expected"),
  [
    ("cache", {}, "400 rows"),
    ("cache", {"limit": 512}, "400 rows, fewer than TRAIN_LIMIT 512"),
    ("cache", {"fraction": 0.05}, "20 of 400 rows, drawn by seed 5"),
    ("cache", {"limit": 20, "seed": 1}, "20 of 400 rows, drawn by seed 1"),
    (
      "sampled",
      {"targets_per_prompt": 1},
      "12 of 48 rows: 12 prompts × 1 target",
    ),
    (
      "sampled",
      {"limit": 12, "targets_per_prompt": 4},
      "12 of 48 rows: 3 prompts × 4 targets, drawn by seed 5",
    ),
  ],
)
def test_words_say_how_many_and_how_drawn(name, fields, expected, request):
  cache, subset = request.getfixturevalue(name), Subset(**fields)
  assert subset.describe(subset.of(cache, 5), cache, 5) == expected


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"limit": 0}, "TRAIN_LIMIT is 0; give 1 or more"),
    ({"targets_per_prompt": 0}, "TARGETS_PER_PROMPT is 0; give 1 or more"),
    ({"limit": 5, "seed": -1}, "SUBSET_SEED is -1; give 0 or more"),
    ({"fraction": 0.0}, "TRAIN_FRACTION is 0; give a number above 0"),
    ({"fraction": 5.0}, "TRAIN_FRACTION is 5; give a number above 0"),
    ({"fraction": 0.5, "limit": 5}, "TRAIN_LIMIT is 5 and TRAIN_FRACTION 0.5"),
    ({"seed": 3}, "SUBSET_SEED is 3 but all rows are used"),
    ({"seed": 3, "fraction": 1.0}, "SUBSET_SEED is 3 but all rows are used"),
    (
      {"limit": 10, "targets_per_prompt": 4},
      "TRAIN_LIMIT 10 is no multiple of TARGETS_PER_PROMPT 4; give 12",
    ),
  ],
)
def test_what_cannot_be_drawn_is_refused(fields, message):
  with pytest.raises(UserError, match=re.escape(message)):
    Subset(**fields)


def test_a_cache_with_too_few_targets_is_refused(sampled, tmp_path):
  few = tiny_caches.grouped(tmp_path / "c", [("a", 3), ("b", 1), ("c", 2)])
  message = (
    r"2 of 3 prompts of cache .* have fewer than 3 targets, the first is row 3"
    r" \(counted from 0\), 'b'; lower TARGETS_PER_PROMPT to 1"
  )
  with pytest.raises(UserError, match=message):
    Subset(targets_per_prompt=3).of(few, 0)
  message = (
    r"TRAIN_LIMIT 26 with TARGETS_PER_PROMPT 2 needs 13 prompts and cache .*"
    r" has 12"
  )
  with pytest.raises(UserError, match=message):
    Subset(limit=26, targets_per_prompt=2).of(sampled, 0)
