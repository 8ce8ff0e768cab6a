"""Completions: a function of (seed, row, k), and nothing lost or doubled."""

import dataclasses
import itertools
import logging
from unittest import mock

import jax
import numpy as np
import pytest

from gkd import keys
from gkd import partitioning
from gkd import watchdog
from gkd.data import shards
from gkd.data.cache import TokenCache
from gkd.data.completions import write
from gkd.data.completions.spec import Completions
from gkd.data.completions.write import write_completions
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import UserError
from tests import tiny
from tests.sampling import toy_model

LENGTHS = tiny.LENGTHS | {"targets": 12}
ROWS = 22


@pytest.fixture(autouse=True)
def _messages(caplog):
  caplog.set_level(logging.INFO, "gkd")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp("prompts") / "c", rows=ROWS)


@pytest.fixture
def plan(prompts):
  """Two completions of each prompt, four prompts a shard."""
  return Completions(
    model=tiny.TEACHER,
    parameters={"sha256": "a" * 64, "step": 3},
    prompts=prompts,
    lengths=LENGTHS,
    num_samples=2,
    seed=5,
    batch_size=4,
    shard_prompts=4,
  )


def params():
  return tiny.parameters(tiny.TEACHER, 1)


def written(path, plan) -> dict[tuple[str, int], list[int]]:
  """{(prompt, k): tokens} of a build that is finished, and checks the order."""
  result = write_completions(path, plan, params)
  cache = TokenCache(result.path)
  rows = cache.read(range(len(cache)))
  prompts = plan.prompts.read(plan.rows)
  expected = [row for row in prompts for _ in range(plan.num_samples)]
  assert [r.prompt for r in rows] == [r.prompt for r in expected]
  assert [r.reference for r in rows] == [r.reference for r in expected]
  found = {}
  for place, row in enumerate(rows):
    assert row.inputs.tolist() == expected[place].inputs.tolist()
    found[row.prompt, place % plan.num_samples] = row.targets.tolist()
  assert len(found) == len(rows)
  return found


def files(folder) -> dict[str, bytes]:
  return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(prompts):
  """Drawn prompt by prompt, without any batch, by the sampler alone."""
  found = {}
  for n, row in enumerate(prompts.read(range(ROWS))):
    for k in range(2):
      samples = toy_model.sample(
        tiny.TEACHER,
        params(),
        np.pad(row.inputs, (0, 8 - len(row.inputs)))[None],
        np.array([n], np.int32),
        keys.stream(5, k, keys.Role.OFFLINE_SAMPLE),
        SamplingParams(),
        max_length=12,
      )
      tokens = samples.tokens[0, : samples.lengths[0]]
      found[row.prompt, k] = tokens.tolist()
  return found


# What must not matter.
LAYOUTS = (
  {},
  {"shard_prompts": 100},
  {"rows": [1, 2, 3, 7, 11, 20, 21]},
  {"shard_prompts": 5},  # batches do not fill it
  {"batch_size": 3, "devices": 1},
  {"batch_size": 16, "devices": 2, "shard_prompts": None},
)


@pytest.mark.parametrize("changes", LAYOUTS)
def test_completions_depend_on_seed_row_and_k_alone(
  changes, plan, expected, tmp_path
):
  changes = dict(changes)
  # All four of the tests' virtual devices, unless it says otherwise.
  devices = jax.devices()[: changes.pop("devices", 4)]
  mesh = partitioning.make_mesh(devices=devices)
  assert mesh.shape["data"] == len(devices)
  changed = dataclasses.replace(plan, mesh=mesh, **changes)
  found = written(tmp_path / "c", changed)
  assert len(found) == 2 * len(changed.rows)
  assert found == {name: expected[name] for name in found}


def test_each_batch_is_progress_of_a_limited_time(plan, tmp_path, monkeypatch):
  dog, seen = watchdog.of_process, []
  monkeypatch.setattr(
    dog, "at", lambda phase, *_: seen.append((phase, dog.limit_seconds))
  )
  written(tmp_path / "c", plan)
  batches = -(-ROWS // plan.batch_size) * plan.num_samples
  assert seen.count(("sample", watchdog.STUCK_SECONDS)) == batches


def test_completions_of_another_seed_are_others(plan, expected, tmp_path):
  other = written(tmp_path / "c", dataclasses.replace(plan, seed=6))
  same = sum(other[name] == expected[name] for name in expected)
  assert same < len(expected) / 4
  pairs = [expected[prompt, 0] == expected[prompt, 1] for prompt, _ in expected]
  assert sum(pairs) < len(pairs) / 4


def stop_after(patch, count, path, plan):
  """Writes completions and stops when `count` batches have been dispatched."""
  calls = itertools.count()
  original = write.generate

  def generate(*args, **kwargs):
    if next(calls) == count:
      raise KeyboardInterrupt
    return original(*args, **kwargs)

  with patch.context() as local:
    local.setattr(write, "generate", generate)
    with pytest.raises(KeyboardInterrupt):
      write_completions(path, plan, params)


@pytest.mark.parametrize(
  ("count", "name"),
  [(0, "plan"), (1, "plan"), (2, "plan"), (7, "plan"), (3, "search")],
)
def test_an_interrupt_at_any_batch_loses_no_finished_shard(
  tmp_path, monkeypatch, count, name, request
):
  plan = request.getfixturevalue(name)
  whole = write_completions(tmp_path / "whole", plan, params)
  stop_after(monkeypatch, count, tmp_path / "c", plan)
  assert not (tmp_path / "c").exists()
  # One batch is under way when one is read: a shard is two of them, or one.
  kept = max(count - 1, 0) // (2 if name == "plan" else 1)
  assert len(shards.sidecars(tmp_path / ".c.partial")) == kept
  result = write_completions(tmp_path / "c", plan, params)
  assert result.completions == whole.completions
  if name == "plan":
    assert result.new_completions == 2 * ROWS - 8 * kept
  assert files(tmp_path / "c") == files(tmp_path / "whole")
  assert not (tmp_path / ".c.partial").exists()


def test_stopped_when_all_shards_are_there(plan, tmp_path, monkeypatch):
  finish = mock.Mock(side_effect=KeyboardInterrupt)
  with monkeypatch.context() as patch:
    patch.setattr(write.CacheWriter, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
      write_completions(tmp_path / "c", plan, params)
  result = write_completions(tmp_path / "c", plan, fail)
  assert (result.completions, result.new_completions) == (2 * ROWS, 0)


def fail():
  raise AssertionError("nothing is left to do, parameters are not needed")


# A change of the plan, and what the message says of it.
CHANGES = (
  ({"seed": 6}, "seed 5, not 6"),
  (
    {"decoding": SamplingParams(temperature=0.7, top_k=4)},
    r"temperature 1\.0, not 0\.7; top_k 0, not 4",
  ),
  ({"num_samples": 3}, "num_samples 2, not 3"),
  ({"lengths": tiny.LENGTHS}, r"lengths\.targets 12, not 16"),
  (
    {"parameters": {"sha256": "b" * 64, "step": 4}},
    r"parameters\.sha256 a{12}…, not b{12}…; parameters\.step 3, not 4",
  ),
  ({"rows": [0, 1]}, r"prompts\.rows 22, not 2"),
  ({"writer": "student"}, "source teacher, not student"),
)


def test_completions_of_another_plan_are_refused(plan, tmp_path, monkeypatch):
  stop_after(monkeypatch, 3, tmp_path / "half", plan)
  write_completions(tmp_path / "whole", plan, params)
  before = files(tmp_path / "whole")
  for changes, message in CHANGES:
    other = dataclasses.replace(plan, **changes)
    half = rf"\.half\.partial holds 8 finished rows made with {message}.*delete"
    with pytest.raises(UserError, match=half):
      write_completions(tmp_path / "half", other, fail)
    whole = rf"whole holds completions made with {message}.*another folder"
    with pytest.raises(UserError, match=whole):
      write_completions(tmp_path / "whole", other, fail)
  search = dataclasses.replace(plan, decoding=BeamSearch(2))
  with pytest.raises(
    UserError, match="made with beam_size none, not 2; beam_al"
  ):
    write_completions(tmp_path / "whole", search, fail)
  # Nothing was lost by asking.
  assert files(tmp_path / "whole") == before
  again = write_completions(tmp_path / "half", plan, params)
  assert again.new_completions == 2 * ROWS - 8
  # The same plan finds it complete.
  third = write_completions(tmp_path / "half", plan, fail)
  assert third[:7] == again[:7]
  assert third.describe().endswith("; complete, nothing to do")


def test_a_folder_with_something_else_is_refused(plan, tmp_path):
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "todo.txt").write_text("")
  with pytest.raises(UserError, match="holds other files than a cache"):
    write_completions(tmp_path / "notes", plan, fail)
  tiny.make_cache(tmp_path / "task", rows=3)
  with pytest.raises(
    UserError, match="cache of sums train that no model wrote"
  ):
    write_completions(tmp_path / "task", plan, fail)
  # A finished one that lost a file is hours of work: not replaced unasked.
  write_completions(tmp_path / "c", plan, params)
  (tmp_path / "c" / shards.name(0)).unlink()
  with pytest.raises(UserError, match=r"incomplete cache .*delete the folder"):
    write_completions(tmp_path / "c", plan, fail)


@pytest.mark.parametrize("name", ["plan", "search"])
def test_numbers_that_are_not_finite_stop_it(name, tmp_path, request):
  plan = request.getfixturevalue(name)
  broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params())
  with pytest.raises(FloatingPointError, match=r"logits .* are not finite"):
    write_completions(tmp_path / "c", plan, lambda: broken)
  assert not (tmp_path / "c").exists()


def test_prompts_without_targets_are_enough(plan, expected, tmp_path):
  """And their reference, if there is one, stays the task's own."""
  alone = tiny.make_cache(tmp_path / "p", targets=False, rows=ROWS)
  plan = dataclasses.replace(plan, prompts=alone)
  assert written(tmp_path / "c", plan) == expected
  assert TokenCache(tmp_path / "c").info["has_targets"]


def test_info_says_who_wrote_it_and_how(plan, expected, tmp_path):
  decoding = SamplingParams(temperature=1, top_k=0, top_p=1.0)
  plan = dataclasses.replace(plan, decoding=decoding)
  write_completions(tmp_path / "c", plan, params, {"date": "today"})
  cache = TokenCache(tmp_path / "c")
  cache.verify()
  info = cache.info
  by = info["written_by"]
  cut = sum(tokens[-1] != 1 for tokens in expected.values())
  assert 0 < cut < len(expected)
  assert (
    by
    | {
      "source": "teacher",
      "parameters": {"sha256": "a" * 64, "step": 3},
      "temperature": 1,
      "top_k": 0,
      "top_p": 1.0,
      "seed": 5,
      "num_samples": 2,
      "date": "today",
      "tokens": sum(map(len, expected.values())),
      "truncated": cut,
    }
    == by
  )
  assert by["model"]["emb_dim"] == tiny.TEACHER.config.emb_dim
  assert by["prompts"]["hash"] == plan.prompts.info["hash"]
  assert (by["prompts"]["task"], by["prompts"]["split"]) == ("sums", "train")
  assert info["lengths"] == LENGTHS
  assert info["metrics"] == plan.prompts.info["metrics"]


@pytest.fixture
def search(plan):
  """The three best of four beams."""
  return dataclasses.replace(plan, decoding=BeamSearch(4, 0.6), num_samples=3)


@pytest.fixture(scope="module")
def searched(prompts):
  """{prompt: [(tokens, score)]} found prompt by prompt, without any batch."""
  found = {}
  for row in prompts.read(range(ROWS)):
    beams = toy_model.search(
      tiny.TEACHER,
      params(),
      np.pad(row.inputs, (0, 8 - len(row.inputs)))[None],
      np.array([0], np.int32),
      num_beams=4,
      alpha=0.6,
      max_length=12,
    )
    found[row.prompt] = [
      (beams.tokens[0, k, :length].tolist(), float(beams.scores[0, k]))
      for k, length in enumerate(beams.lengths[0, :3])
      if length
    ]
  return found


@pytest.mark.parametrize("layout", [{}, {"batch_size": 16, "shard_prompts": 5}])
def test_a_search_writes_its_best_ones_best_first(
  plan, search, searched, tmp_path, layout
):
  search = dataclasses.replace(search, **layout)
  result = write_completions(tmp_path / "c", search, params)
  cache = TokenCache(result.path)
  found = {}
  for row in cache.read(range(len(cache))):
    found.setdefault(row.prompt, []).append((row.targets.tolist(), row.score))
  assert list(found) == list(searched)
  for prompt, expected in searched.items():
    tokens, scores = zip(*found[prompt], strict=True)
    assert list(tokens) == [ids for ids, _ in expected]
    np.testing.assert_allclose(scores, [s for _, s in expected], rtol=1e-5)
  missing = 3 * ROWS - sum(map(len, searched.values()))
  assert missing > 0  # or this shows nothing
  by = cache.info["written_by"]
  assert result.missing == by["missing"] == missing
  assert by["same_text"] == 0
  assert result.completions == len(cache) == 3 * ROWS - missing
  truncated = sum(ids[-1] != 1 for rows in searched.values() for ids, _ in rows)
  assert result.truncated == by["truncated"] == truncated
  again = write_completions(tmp_path / "c", search, fail)
  assert again[:7] == result[:7]
  message = "completions made with temperature none, not 1.0; top_k none, not 0"
  with pytest.raises(UserError, match=message):
    write_completions(tmp_path / "c", plan, fail)


def test_texts_that_are_alike_are_counted(search, tmp_path, monkeypatch):
  kind = type(search.prompts.vocabulary)
  monkeypatch.setattr(kind, "decode", lambda self, ids: "the same")
  result = write_completions(tmp_path / "c", search, params)
  assert result.same_text == result.completions - ROWS
