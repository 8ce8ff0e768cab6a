"""A batch is a function of (seed, step) and of nothing else."""

import itertools
from unittest import mock

import jax
import numpy as np
import pytest

from gkd.collate import collate
from gkd.data.cache import Row
from gkd.data.loader import Loader
from gkd.data.mixture import Mixture
from gkd.data.shuffle import permute
from gkd.data.subset import Subset
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import Source
from gkd.types import UserError
from tests.data import tiny_caches
from tests.data.tiny_caches import LENGTHS

# The shuffle's cost a row grows as the number of rows falls: not fewer.
ROWS = 230
VOCABULARY = ByteVocabulary(2500)
SIZES = {"a": ROWS, "b": 70, "c": 90}
RATES = {"a": 3, "b": 1, "c": 0.5}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  """Tokens of a are 3 and more, of b 1003, of c 2003."""
  folder = tmp_path_factory.mktemp("caches")
  return {
    name: tiny_caches.numbered(
      folder / name,
      size,
      task=name,
      first=3 + 1000 * place,
      vocabulary=VOCABULARY,
    )
    for place, (name, size) in enumerate(SIZES.items())
  }


@pytest.fixture(scope="module")
def cache(caches):
  return caches["a"]


@pytest.fixture(scope="module")
def mixture(caches):
  return Mixture([(caches[name], rate) for name, rate in RATES.items()])


@pytest.fixture(params=["cache", "mixture"])
def data(request):
  return request.getfixturevalue(request.param)


def make_loader(data, **kwargs):
  options = {"batch_size": 4, "lengths": LENGTHS, "seed": 0, **kwargs}
  return Loader(data, **options)


def test_teacher_reads_the_row_of_another_cache(cache, tmp_path):
  """Whatever the order; its targets tell that it is the same row."""

  def paired(name, rows):
    rows = [row._replace(inputs=row.inputs + 500) for row in cache.read(rows)]
    other = tiny_caches.write(tmp_path / name, rows, vocabulary=VOCABULARY)
    return cache.with_teacher_prompts(other)

  lengths = {**LENGTHS, "teacher_inputs": 5}
  same = paired("same", range(ROWS))
  batch = make_loader(same, lengths=lengths).batch(3)
  mask, shifted = batch.input_mask, batch.inputs + 500
  np.testing.assert_array_equal(
    batch.teacher_inputs, np.where(mask, shifted, 0)
  )
  np.testing.assert_array_equal(batch.teacher_input_mask, mask)
  plain = batch.replace(teacher_inputs=None, teacher_input_mask=None)
  assert_same_batch(plain, make_loader(cache).batch(3))
  with pytest.raises(UserError, match="teacher_inputs length 4 is too short"):
    make_loader(same, lengths={**lengths, "teacher_inputs": 4})
  backwards = make_loader(paired("back", range(ROWS)[::-1]), lengths=lengths)
  with pytest.raises(UserError, match="another target in the cache"):
    backwards.batch(0)
  with pytest.raises(UserError, match="has 229 rows"):
    paired("short", range(229))


def stream(loader, steps):
  return np.concatenate([loader.batch(s).rows for s in range(steps)]).tolist()


def assert_same_batch(left, right):
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def endless(size, seed, component=0):
  """Row after row of one component, an epoch at a time."""
  for epoch in itertools.count():
    stream = (seed, 0, epoch, *([component] if component else []))
    yield from (permute(place, size, stream) for place in range(size))


def test_order_of_one_cache_is_an_endless_shuffled_stream(cache):
  """Each epoch is another permutation; the batch size cuts the same stream."""
  expected = list(itertools.islice(endless(ROWS, 5), 600))
  for size in (50, 30):
    loader = make_loader(cache, batch_size=size, seed=5)
    assert stream(loader, 600 // size) == expected


def test_samples_of_a_prompt_stand_one_after_the_other(mixture):
  """And the texts are those of the rows."""
  loader = make_loader(mixture, batch_size=6, samples_per_prompt=3)
  alone = make_loader(mixture, batch_size=2)
  prompts = [f"{name} {i}" for name, n in SIZES.items() for i in range(n)]
  for step in range(3):
    rows = np.repeat(alone.batch(step).rows, 3)
    np.testing.assert_array_equal(loader.batch(step).rows, rows)
    np.testing.assert_array_equal(
      loader.batch(step, range(2, 5)).rows, rows[2:5]
    )
    texts = [example.prompt for example in loader.examples(step)]
    assert texts == [prompts[row] for row in rows]
  with pytest.raises(UserError, match="SAMPLES_PER_PROMPT is 4, which does"):
    make_loader(mixture, batch_size=6, samples_per_prompt=4)


def test_order_of_a_mixture_is_that_of_its_components(mixture):
  """Each component goes as it would alone, but for the number in its stream."""
  components = [endless(n, 5, j) for j, n in enumerate(SIZES.values())]
  firsts = [0, *itertools.accumulate(SIZES.values())]
  expected = []
  for n in range(700):
    j, _ = mixture.split(n)  # see test_mixture
    expected.append(firsts[j] + next(components[j]))
  assert stream(make_loader(mixture, batch_size=50, seed=5), 14) == expected


def test_batch_depends_on_seed_and_step_alone(data):
  first = make_loader(data)
  straight = [first.batch(step) for step in range(20)]
  again = make_loader(data)
  for step in (19, 3, 3, 0, 11):
    assert_same_batch(again.batch(step), straight[step])
  other = make_loader(data, seed=1)
  assert stream(other, 5) != stream(first, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_processes_read_parts_of_the_same_batch(mixture, count):
  loader = make_loader(mixture, batch_size=6)
  size = 6 // count
  for step in (0, 7):
    parts = [
      loader.batch(step, range(i * size, (i + 1) * size)) for i in range(count)
    ]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    assert_same_batch(whole, loader.batch(step))


def test_a_part_reads_its_own_rows_alone(cache, monkeypatch):
  loader = make_loader(cache)
  read = mock.Mock(side_effect=cache.tokens)
  monkeypatch.setattr(cache, "tokens", read)
  part = loader.batch(3, range(2, 4))
  read.assert_called_once_with(part.rows.tolist())
  assert part.rows.tolist() == loader.batch(3).rows[2:].tolist()


def test_a_part_of_the_rows_is_the_same_in_every_epoch(cache):
  subset = Subset(limit=60)
  loader = make_loader(cache, batch_size=60, subset=subset)
  epochs = [loader.batch(step).rows.tolist() for step in range(3)]
  assert [sorted(epoch) for epoch in epochs] == [
    sorted(subset.of(cache, 0))
  ] * 3
  assert len(set(map(tuple, epochs))) == 3
  assert loader.num_rows == 60


def test_a_fraction_is_taken_of_each_component(mixture, caches):
  subset = Subset(fraction=0.5, seed=9)
  loader = make_loader(mixture, batch_size=110, subset=subset)
  firsts = dict(zip(SIZES, np.cumsum([0, *SIZES.values()]), strict=False))
  expected = {
    row + firsts[name]
    for name, cache in caches.items()
    for row in subset.of(cache, 0)
  }
  # One of 9 rows is of c, with 45 rows in use.
  assert set(stream(loader, 4)) == expected
  assert loader.num_rows == len(expected) == 115 + 35 + 45


def test_batch_holds_the_rows_padded_on_the_right(data):
  batch = make_loader(data, batch_size=9).batch(2)
  assert batch.inputs.dtype == batch.targets.dtype == np.int32
  assert batch.rows.dtype == batch.source.dtype == np.int32
  assert batch.weights.dtype == np.float32
  assert batch.source.tolist() == [Source.DATASET] * 9
  firsts = np.cumsum([0, *SIZES.values()])
  for place, row in enumerate(batch.rows):
    component = int(np.searchsorted(firsts, row, side="right")) - 1
    i = int(row - firsts[component])
    token = i + 3 + 1000 * component
    inputs, targets = np.arange(5) <= i % 5, np.arange(4) <= i % 4
    assert batch.inputs[place].tolist() == (token * inputs).tolist()
    assert batch.input_mask[place].tolist() == inputs.tolist()
    assert batch.targets[place].tolist() == ((token + 30) * targets).tolist()
    assert batch.weights[place].tolist() == targets.tolist()


def test_fillers_have_an_input_and_nothing_to_learn():
  row = Row(np.array([7, 8], np.int32), np.zeros(0, np.int32), "", None)
  batch = collate([row, row], [4, 9], LENGTHS, batch_size=4)
  assert batch.rows.tolist() == [4, 9, -1, -1]
  assert batch.inputs.tolist() == [[7, 8, 0, 0, 0]] * 2 + [[0] * 5] * 2
  assert batch.input_mask.sum(axis=1).tolist() == [2, 2, 1, 1]
  assert batch.input_mask[:, 0].all()
  assert not batch.targets.any()
  assert not batch.weights.any()


def test_words_name_rows_shares_and_parts(cache, mixture):
  assert make_loader(cache).describe() == "a train, 230 rows"
  assert make_loader(mixture, subset=Subset(fraction=0.5)).describe() == (
    "66.67 % a train, 115 of 230 rows, drawn by seed 0\n"
    "22.22 % b train, 35 of 70 rows, drawn by seed 0\n"
    "11.11 % c train, 45 of 90 rows, drawn by seed 0"
  )


def test_every_row_says_who_wrote_its_targets(cache, tmp_path):
  """SeqKD must not pass for training on the data set, nor the other way."""
  by = {"source": "teacher"}
  teacher = tiny_caches.numbered(
    tmp_path / "t", 9, task="t", written_by=by, vocabulary=VOCABULARY
  )
  assert make_loader(cache).batch(0).source.tolist() == [Source.DATASET] * 4
  alone = make_loader(teacher)
  assert alone.batch(1).source.tolist() == [Source.TEACHER] * 4
  assert alone.batch(1).source.dtype == np.int32
  assert alone.describe() == "t train, 9 rows, targets written by the teacher"
  assert alone.targets == "the targets of a teacher"
  both = Mixture([(cache, 1), (teacher, 1)])
  batch = make_loader(both, batch_size=8).batch(3)
  expected = np.where(batch.rows < ROWS, Source.DATASET, Source.TEACHER)
  assert batch.source.tolist() == expected.tolist()
  assert set(expected) == {Source.DATASET, Source.TEACHER}
  by = {"source": "nobody"}
  other = tiny_caches.numbered(tmp_path / "o", 9, task="o", written_by=by)
  with pytest.raises(UserError, match="has targets written by 'nobody'"):
    make_loader(other)


def test_a_row_has_the_teacher_that_it_names_or_that_of_its_task(
  caches, tmp_path
):
  rows = [
    row._replace(teacher=("", "left", "right")[i % 3])
    for i, row in enumerate(caches["b"].read(range(12)))
  ]
  named = tiny_caches.write(
    tmp_path / "named", rows, task="b", vocabulary=VOCABULARY
  )
  assert [row.teacher for row in named.tokens([1, 2])] == ["left", "right"]
  mixture = Mixture([(caches["a"], 1), (named, 1)])
  teachers = ("a", "b", "left", "right")
  loader = make_loader(mixture, teachers=teachers)
  # By the first token: those of a are below 1003, and of b rising from there.
  for step in range(4):
    batch = loader.batch(step)
    expected = [
      0 if first < 1003 else 1 + (first - 1003) % 3
      for first in batch.inputs[:, 0].tolist()
    ]
    assert batch.teacher.tolist() == expected
    assert batch.teacher.dtype == np.int32
  assert not loader.unread_teachers
  assert make_loader(mixture).batch(0).teacher is None
  assert f"{named.path} name teachers" in make_loader(mixture).unread_teachers
  assert not make_loader(caches["a"]).unread_teachers
  with pytest.raises(UserError, match=r"data of a, b, left, right; give one"):
    make_loader(mixture, teachers=("a", "b"))


def test_a_mixture_has_targets_where_all_its_caches_have(cache, tmp_path):
  rows = [Row(np.ones(1, np.int32), np.zeros(0, np.int32), "x", None)]
  prompts = tiny_caches.write(
    tmp_path / "c", rows, task="p", vocabulary=VOCABULARY
  )
  assert not make_loader(cache).missing_targets
  for needs in (False, True):
    mixed = Mixture([(cache, 1), (prompts, 1)])
    loader = make_loader(mixed, needs_targets=needs)
    assert "the data has prompts only" in loader.missing_targets


def test_rows_without_a_target_are_left_out_where_targets_are_needed(
  cache, tmp_path
):
  """The others come as from a cache of them alone."""
  rows = cache.read(range(40))
  kept = [i for i in range(40) if i not in (7, 12, 39)]
  alone = tiny_caches.write(tmp_path / "k", [rows[i] for i in kept])
  for i in (7, 12, 39):
    rows[i] = rows[i]._replace(targets=np.zeros(0, np.int32), reference=None)
  mixed = tiny_caches.write(tmp_path / "m", rows)
  missing = "3 of 40 rows have no target, the first is row 7 (counted from 0)"
  whole = make_loader(mixed)
  assert whole.missing_targets == f"{missing} (cache {mixed.path})"
  assert set(stream(whole, 10)) == set(range(40))
  for subset in (Subset(), Subset(limit=20), Subset(targets_per_prompt=1)):
    loader = make_loader(mixed, needs_targets=True, subset=subset)
    assert loader.missing_targets == ""
    expected = stream(make_loader(alone, subset=subset), 20)
    assert stream(loader, 20) == [kept[row] for row in expected]
  text = make_loader(mixed, needs_targets=True).describe()
  assert text == f"toy train, 37 of 40 rows; left out: {missing}"


def test_what_cannot_work_is_refused(cache, mixture, tmp_path):
  for changes, message in (
    ({"batch_size": 0}, "BATCH_SIZE is 0"),
    ({"seed": -1}, "RANDOM_SEED is -1"),
    ({"lengths": {"inputs": 6, "targets": 4}}, "inputs length 6 is beyond"),
    ({"lengths": {"inputs": 5, "targets": 3}}, "targets length 3 is too short"),
    ({"lengths": {"inputs": 5}}, "lack 'targets'"),
  ):
    for data in (cache, mixture):
      with pytest.raises(UserError, match=message):
        make_loader(data, **changes)
  with pytest.raises(UserError, match="TRAIN_LIMIT is 5 but 3 caches are mix"):
    make_loader(mixture, subset=Subset(limit=5))
  with pytest.raises(UserError, match="has no rows"):
    make_loader(tiny_caches.write(tmp_path / "empty", []))
