"""A batch is a function of (seed, step) and of nothing else."""

import jax
import numpy as np
import pytest

from gkd.data import writer
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import Source
from gkd.types import UserError

LENGTHS = {"inputs": 5, "targets": 4}
ROWS = 23


def make_cache(path, rows):
  info = {
    "task": "toy",
    "split": "train",
    "lengths": LENGTHS,
    "vocabulary": ByteVocabulary(),
  }
  return TokenCache(writer.write_rows(path, rows, info))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  rows = [
    Row(
      inputs=np.full(1 + i % 5, i + 3, np.int32),
      targets=np.full(1 + i % 4, i + 30, np.int32),
      prompt=str(i),
      reference=i,
    )
    for i in range(ROWS)
  ]
  return make_cache(tmp_path_factory.mktemp("cache") / "c", rows)


def make_loader(cache, **kwargs):
  options = {"batch_size": 4, "lengths": LENGTHS, "seed": 0, **kwargs}
  return Loader(cache, **options)


def stream(loader, steps):
  return np.concatenate([loader.batch(s).rows for s in range(steps)]).tolist()


def assert_same_batch(left, right):
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_batch_depends_on_seed_and_step_alone(cache):
  first = make_loader(cache)
  straight = [first.batch(step) for step in range(20)]
  again = make_loader(cache)
  for step in (19, 3, 3, 0, 11):
    assert_same_batch(again.batch(step), straight[step])
  other = make_loader(cache, seed=1)
  assert stream(other, 5) != stream(first, 5)


def test_each_epoch_is_another_permutation(cache):
  order = stream(make_loader(cache, batch_size=ROWS), 6)
  epochs = [tuple(order[i : i + ROWS]) for i in range(0, 6 * ROWS, ROWS)]
  assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
  assert len(set(epochs)) == 6
  # The batch size cuts the same stream elsewhere.
  assert stream(make_loader(cache, batch_size=6), 23) == order


def test_epochs_of_two_seeds_have_no_permutation_in_common(cache):
  orders = {
    tuple(make_loader(cache, batch_size=ROWS, seed=seed).batch(step).rows)
    for seed in range(5)
    for step in range(5)
  }
  assert len(orders) == 25


def test_without_shuffle_the_order_is_the_caches(cache):
  loader = make_loader(cache, shuffle=False)
  assert stream(loader, 6) == [*range(ROWS), 0]


def test_limit_draws_nested_subsets(cache):
  subsets = []
  for limit in (5, 11, None):
    size = limit or ROWS
    order = stream(make_loader(cache, batch_size=size, limit=limit), 3)
    epochs = [set(order[i : i + size]) for i in range(0, 3 * size, size)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == size
    ordered = make_loader(cache, limit=limit).ordered()
    assert {r.reference for _, rows in ordered for r in rows} == epochs[0]
    subsets.append(epochs[0])
  assert subsets[0] < subsets[1] < subsets[2]
  assert subsets[0] != set(range(5))
  first = make_loader(cache, limit=5, shuffle=False)
  assert set(stream(first, 5)) == set(range(5))


def test_batch_holds_the_rows_padded_on_the_right(cache):
  batch = make_loader(cache, batch_size=7).batch(2)
  assert batch.inputs.shape == (7, 5)
  assert batch.targets.shape == batch.weights.shape == (7, 4)
  assert batch.inputs.dtype == batch.targets.dtype == np.int32
  assert batch.weights.dtype == np.float32
  assert batch.source.tolist() == [Source.DATASET] * 7
  for place, i in enumerate(batch.rows.tolist()):
    length = 1 + i % 5
    assert batch.inputs[place].tolist() == [i + 3] * length + [0] * (5 - length)
    length = 1 + i % 4
    assert batch.targets[place].tolist() == (
      [i + 30] * length + [0] * (4 - length)
    )
    assert batch.weights[place].tolist() == [1.0] * length + [0.0] * (
      4 - length
    )


@pytest.mark.parametrize("size", [1, 5, 23, 40])
def test_ordered_covers_every_row_once_and_marks_fillers(cache, size):
  seen = []
  for batch, rows in make_loader(cache).ordered(size):
    assert batch.inputs.shape == (size, 5)
    real = batch.rows >= 0
    assert [r.reference for r in rows] == batch.rows[real].tolist()
    seen += batch.rows[real].tolist()
    assert batch.rows[~real].tolist() == [-1] * (size - len(rows))
    assert not batch.weights[~real].any()
    assert not batch.targets[~real].any()
    assert batch.inputs[~real].sum(axis=1).tolist() == [1] * (size - len(rows))
  assert seen == list(range(ROWS))


def test_shuffle_has_no_memory_of_the_source_order(tmp_path):
  """Adjacent rows land apart: mean step of a random order of n is n/3."""
  size = 5000
  rows = [Row(np.ones(1), np.ones(1), "", i) for i in range(size)]
  loader = make_loader(make_cache(tmp_path / "c", rows))
  order = np.array([loader.row(n) for n in range(size)])
  assert abs(np.abs(np.diff(order)).mean() / (size / 3) - 1) < 0.05
  # Ranks of the first half: mean (n-1)/2, standard error n / sqrt(12 n/2).
  error = size / np.sqrt(12 * size / 2)
  assert abs(order[: size // 2].mean() - (size - 1) / 2) < 4 * error


def test_what_cannot_work_is_refused(cache, tmp_path):
  for kwargs, message in (
    ({"batch_size": 0}, "BATCH_SIZE is 0"),
    ({"seed": -1}, "RANDOM_SEED is -1"),
    ({"limit": 0}, "a limit of 0 rows"),
    ({"lengths": {"inputs": 6, "targets": 4}}, "inputs length 6 is beyond"),
    ({"lengths": {"inputs": 5, "targets": 3}}, "targets length 3 is too short"),
    ({"lengths": {"inputs": 5}}, "lack 'targets'"),
  ):
    with pytest.raises(UserError, match=message):
      make_loader(cache, **kwargs)
  with pytest.raises(UserError, match="has no rows"):
    make_loader(make_cache(tmp_path / "empty", []))
