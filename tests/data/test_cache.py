"""Rows come back as they were written, and a broken cache is noticed."""

import json

import numpy as np
import pytest

from gkd.data import shards
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.types import UserError
from tests import child
from tests.data import tiny_caches

LENGTHS = {"inputs": 12, "targets": 6}


def make_rows(count):
  rng = np.random.default_rng(7)
  return [
    Row(
      inputs=rng.integers(3, 250, rng.integers(1, 13)).astype(np.int32),
      targets=rng.integers(3, 250, rng.integers(1, 7)).astype(np.int32),
      prompt=f"prompt {i} ä\n",
      reference=[f"r{i}", i, None] if i % 2 else f"r{i}",
    )
    for i in range(count)
  ]


def make_cache(path, rows, **info):
  return tiny_caches.write(path, rows, **{"lengths": LENGTHS, **info})


def assert_same_rows(left, right):
  for a, b in zip(left, right, strict=True):
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.targets, b.targets)
    assert a.inputs.dtype == a.targets.dtype == np.int32
    assert (a.prompt, a.reference) == (b.prompt, b.reference)


def test_rows_come_back_in_any_order_and_over_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(shards, "FIRST_ROWS", 7)
  rows = make_rows(24)
  cache = make_cache(tmp_path / "c", iter(rows))
  assert [s["rows"] for s in cache.info["shards"]] == [7, 7, 7, 3]
  assert len(cache) == 24
  assert_same_rows(cache.read(range(24)), rows)
  order = [23, 0, 7, 6, 6, 13, 14]
  assert_same_rows(cache.read(order), [rows[i] for i in order])
  assert cache.read([]) == []
  for index in (24, -1):
    with pytest.raises(IndexError):
      cache.read([index])


def test_info_says_what_is_in_it(tmp_path):
  rows = [Row(np.array([5, 1]), np.array([7, 8, 1]), "a", "b")]
  cache = make_cache(
    tmp_path / "c",
    rows,
    postprocess="gkd.text.postprocess:strip",
    metrics=["gkd.text.metrics:accuracy"],
    written_by={"step": 3},
  )
  assert cache.info["longest"] == {"inputs": 2, "targets": 3}
  assert cache.info["has_targets"]
  assert cache.info["written_by"] == {"step": 3}
  assert cache.vocabulary.decode([*cache.vocabulary.encode("hé"), 1]) == "hé"
  assert cache.postprocess(" x ", is_target=False) == "x"
  (metric,) = cache.metric_fns
  assert metric(["a", "b"], ["a", "c"])["accuracy"] in (0.5, 50.0)
  plain = make_cache(tmp_path / "d", rows)
  assert plain.postprocess(" x ") == " x "
  assert plain.metric_fns == []
  rows.append(rows[0]._replace(targets=np.zeros(0, np.int32)))
  prompts = make_cache(tmp_path / "e", rows)
  assert not prompts.info["has_targets"]
  assert prompts.read([1])[0].targets.shape == (0,)


def test_equal_content_has_an_equal_hash(tmp_path):
  left = make_cache(tmp_path / "a", make_rows(5))
  right = make_cache(tmp_path / "b", make_rows(5))
  other = make_cache(tmp_path / "c", make_rows(6))
  assert left.info["hash"] == right.info["hash"]
  assert left.info["hash"] != other.info["hash"]


def broken_source():
  yield from make_rows(3)
  raise FileNotFoundError(2, "No such file", "raw.gz")  # not the cache's folder


@pytest.mark.parametrize(
  ("rows", "error", "message"),
  [
    ([Row(np.ones(13), np.ones(1), "", "")], UserError, "row has 13 inputs"),
    (broken_source(), FileNotFoundError, r"raw\.gz"),
  ],
)
def test_failure_leaves_nothing_behind(tmp_path, rows, error, message):
  with pytest.raises(error, match=message):
    make_cache(tmp_path / "c", rows)
  assert [file.name for file in tmp_path.iterdir()] == [".c.lock"]


def test_finished_cache_and_foreign_folder_are_never_replaced(tmp_path):
  make_cache(tmp_path / "c", make_rows(3))
  with pytest.raises(UserError, match="exists already; delete it first"):
    make_cache(tmp_path / "c", make_rows(4))
  # The second is a data set of Hugging Face, the last a cache with a guest.
  for number, names in enumerate(
    (
      ["thesis.tex"],
      ["dataset_info.json", "data-00000-of-00001.arrow"],
      ["info.json"],
      ["mine.array_record"],
      ["info.json", "prompts.npy", "rows-00000.array_record", "thesis.tex"],
    )
  ):
    folder = tmp_path / f"home_{number}"
    folder.mkdir()
    for name in names:
      (folder / name).write_text("x")
    with pytest.raises(UserError, match="holds other files than a cache"):
      make_cache(folder, make_rows(4))
    assert sorted(f.name for f in folder.iterdir()) == sorted(names)


def test_half_written_cache_is_noticed_and_replaced(tmp_path):
  cache = make_cache(tmp_path / "c", make_rows(3))
  shard = cache.path / "rows-00000.array_record"
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-10])
  with pytest.raises(UserError, match=r"incomplete cache .*gkd cache"):
    TokenCache(cache.path)
  shard.unlink()
  with pytest.raises(UserError, match=r"rows-00000.array_record is missing"):
    TokenCache(cache.path)
  shard.write_bytes(whole)
  (cache.path / "info.json").write_text(json.dumps(cache.info | {"rows": 5}))
  with pytest.raises(UserError, match="its shards hold 3 rows, not 5; delete"):
    TokenCache(cache.path)
  (cache.path / "info.json").unlink()
  with pytest.raises(UserError, match=r"incomplete cache .*no info\.json"):
    TokenCache(cache.path)
  with pytest.raises(UserError, match="no cache at"):
    TokenCache(tmp_path / "nothing")
  with pytest.raises(
    UserError, match=r"is no cache: it has no info\.json; give"
  ):
    TokenCache(tmp_path)
  assert len(make_cache(tmp_path / "c", make_rows(4))) == 4


def test_other_format_is_refused(tmp_path):
  cache = make_cache(tmp_path / "c", make_rows(3))
  (cache.path / "info.json").write_text(json.dumps(cache.info | {"format": 0}))
  with pytest.raises(UserError, match="has format 0"):
    TokenCache(cache.path)


def test_a_finished_cache_is_found_without_tensorflow_or_seqio(tmp_path):
  """It is read and trained on without them in training/test_loop.py."""
  path = tmp_path / "toy" / "train-0123"
  make_cache(path, make_rows(8), overlong="truncate")
  code = f"""
    import sys

    # As if they were not installed: importing raises, looking up finds None.
    sys.modules.update(dict.fromkeys(("tensorflow", "seqio")))
    from gkd.data.builder.build_cache import find_or_build
    from gkd.data.builder.lookup import CacheSpec
    from gkd.text.vocabulary import ByteVocabulary
    from gkd.types import UserError

    def find(split):
      return find_or_build(CacheSpec(
        task="toy", split=split, cache_dir=sys.argv[1], lengths={LENGTHS!r},
        task_module="nowhere", vocabulary=ByteVocabulary()))

    print(find("train"))
    try:
      find("test")
    except UserError as error:
      print(error)
  """
  found, error = child.run(code, tmp_path).splitlines()
  assert found == str(path)
  assert "needs seqio and TensorFlow" in error


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rows": "3"}, "has rows '3'; expected a whole number; delete"),
    ({"rows": 10**30}, "has rows 1000.*; expected a whole number"),
    ({"files": []}, r"has files \[\]; expected an object"),
    (
      {"files": {"../x": {"bytes": 1, "sha256": ""}}},
      r"has '\.\./x'; expected",
    ),
    ({"files": {"x": {"bytes": None}}}, r"has files\.x\.bytes None; expected"),
    ({"shards": [{"file": "y", "rows": 3}]}, "has 'y'; expected files of its"),
    ({"shards": [7]}, r"has shards\.0 7; expected an object"),
    ({"vocabulary": {"kind": "bytes"}}, r"has vocabulary\.sha256 None"),
    ({"lengths": None}, "has lengths None; expected an object"),
    ({"lossy": {"inputs": 3}}, r"has lossy\.inputs 3; expected an object"),
    ({"sources": {"x": 5}}, r"has sources\.x 5; expected text"),
    ({"has_targets": float("nan")}, "has has_targets nan; expected true or"),
  ],
)
def test_a_description_of_another_kind_is_one_line(tmp_path, change, message):
  cache = make_cache(tmp_path / "c", make_rows(3))
  file = cache.path / "info.json"
  file.write_text(json.dumps(cache.info | change))
  with pytest.raises(UserError, match=message):
    TokenCache(cache.path)
  for text in ("[1]", '{"a":' * 9999, ""):
    file.write_text(text)
    with pytest.raises(UserError, match=r"is not (a )?JSON.*; delete the"):
      TokenCache(cache.path)


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
  cache = make_cache(tmp_path / "c", make_rows(2))

  def refused(*_):
    raise ValueError("RESOURCE_EXHAUSTED; open() failed: Too many open files")

  monkeypatch.setattr("gkd.data.cache.ArrayRecordReader", refused)
  with pytest.raises(ValueError, match=r"^RESOURCE_EXHAUSTED"):
    cache.read([0])


def test_tokens_are_those_of_the_vocabulary(tmp_path):
  rows = [Row(np.array([5, 259]), np.array([7, 1]), "a", "b")]
  cache = make_cache(tmp_path / "c", rows)
  for read in (cache.read, cache.tokens):
    with pytest.raises(UserError, match="has inputs beyond the 259 ids"):
      read([0])
