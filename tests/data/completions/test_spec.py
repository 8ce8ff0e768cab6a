"""The plan of completions, before and after: shards, summary, refusals."""

import dataclasses

import pytest

from gkd.data.completions.spec import Completions
from gkd.data.completions.spec import Result
from gkd.sampling.strategies import BeamSearch
from gkd.types import UserError
from tests import tiny


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
  folder = tmp_path_factory.mktemp("prompts")
  return Completions(
    model=tiny.TEACHER,
    parameters={},
    prompts=tiny.make_cache(folder / "c", rows=10),
    lengths=tiny.LENGTHS,
    batch_size=4,
  )


@pytest.mark.parametrize(
  ("numbers", "expected"),
  [
    (
      (2000, 50_000, 100, 0, 0, 500, 13_000, 5.0, 1.0),
      "2,000 completions of 500 prompts in c: 50,000 tokens, mean length 25.0,"
      " 5.0% cut without EOS; 500 of them now, in 5.0 s, of which 1.0 s"
      " compiling: a rate of 125.0 completions/s, 3,250 tokens/s",
    ),
    (
      (1990, 49_750, 0, 10, 3),
      "1,990 completions of 500 prompts in c: 49,750 tokens, mean length 25.0,"
      " 0.0% cut without EOS, 10 missing, as fewer beams ended, 3 with the text"
      " of a better one; complete, nothing to do",
    ),
  ],
)
def test_summary_says_what_was_written_and_how_fast(numbers, expected):
  assert Result("c", 500, *numbers).describe() == expected


@pytest.mark.parametrize(
  ("rows", "batch", "size", "count"),
  # At most 256 shards, none below 256 prompts.
  [
    (10, 4, 256, 1),
    (1000, 4, 256, 4),
    (166_203, 64, 768, 217),
    (9, 512, 512, 1),
  ],
)
def test_shards_by_default(plan, rows, batch, size, count):
  many = dataclasses.replace(
    plan, rows=range(rows), batch_size=batch, shard_prompts=None
  )
  assert (many.prompts_per_shard, many.num_shards) == (size, count)
  covered = [row for i in range(count) for row in many.shard(i)]
  assert covered == list(range(rows))


def test_plan_in_words(plan):
  assert plan.describe() == (
    "a completion of each of 10 prompts of sums train, drawn at temperature 1,"
    " at most 16 tokens, seed 0; written 256 prompts at a time"
  )
  some = dataclasses.replace(plan, rows=[1, 2], num_samples=1000, seed=3)
  assert some.describe().startswith(
    "1,000 completions of each of 2 prompts of sums"
  )


def test_a_search_in_words_and_in_the_key(plan):
  search = dataclasses.replace(plan, decoding=BeamSearch(4, 0.6), num_samples=2)
  assert search.describe() == (
    "2 completions of each of 10 prompts of sums train, found by a search with"
    " 4 beams, alpha 0.6, at most 16 tokens; written 256 prompts at a time"
  )
  key = search.key
  assert (key["beam_size"], key["beam_alpha"]) == (4, 0.6)
  assert key["num_samples"] == 2
  # Nothing else that its rows do not depend on.
  assert not {"seed", "temperature", "top_k", "top_p"} & set(key)
  assert dataclasses.replace(search, seed=3).key == key
  for other in (BeamSearch(3, 0.6), BeamSearch(4, 0.5)):
    assert dataclasses.replace(search, decoding=other).key != key


def test_what_cannot_be_completed_is_refused(plan, tmp_path):
  most = plan.model.vocabulary_size - 1  # PAD is never taken
  dataclasses.replace(plan, decoding=BeamSearch(most))
  empty = tiny.make_cache(tmp_path / "empty", rows=0)
  for changes, message in (
    ({"decoding": BeamSearch(most + 1)}, f"chooses among {most} ids; give at"),
    (
      {"decoding": BeamSearch(2), "num_samples": 3},
      r"num_samples is 3, but a search .* it has beams, 2; give",
    ),
    (
      {"lengths": {"inputs": 2, "targets": 12}},
      "inputs length 2 is too short for .*more",
    ),
    ({"prompts": empty}, "has no prompts to complete"),
    ({"batch_size": 3}, "BATCH_SIZE 3 does not split into 4"),
  ):
    with pytest.raises(UserError, match=message):
      dataclasses.replace(plan, **changes)


def test_all_rows_are_the_same_plan_however_they_are_named(plan):
  named = dataclasses.replace(plan, rows=list(range(10)))
  assert named.key == plan.key
  assert dataclasses.replace(plan, rows=[0, 2]).key != plan.key
  one, other = (dataclasses.replace(plan, rows=r) for r in ([0, 2], [0, 3]))
  assert one.key != other.key
