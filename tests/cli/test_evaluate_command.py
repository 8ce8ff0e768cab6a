"""`gkd evaluate` from end to end, on a model of random numbers."""

import json
import re

import jax
import pytest

from gkd import locks
from gkd import watchdog
from gkd.cli import evaluate_command
from gkd.cli import main as command
from gkd.config import command_records
from gkd.config import configuration
from gkd.metric_fields import SUFFIXES
from gkd.text.chain_addition import CHARACTERS
from tests.checkpoints.tiny_models import save_params
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of
from tests.cli.command_lines import flags
from tests.cli.command_lines import mistakes
from tests.cli.command_lines import write_cache

SHARES = [
  f"{share}_on_{writer}_text"
  for writer in ("teacher", "own")
  for share in ("agreement", "acceptance")
]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  return {
    "validation": write_cache(folder / "validation", "validation", rows=8),
    "test": write_cache(folder / "test", "test", rows=8),
    "other": write_cache(folder / "other", "test", rows=8, task="other"),
    "train": write_cache(folder / "train", "train", rows=40),
  }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The model of test/evaluate.gin, never trained."""
  names = ("MODEL_DIR", "INITIAL_CHECKPOINT_PATH")
  configuration.load(["test/evaluate.gin"], [f"{name}=x" for name in names])
  model = configuration.build(command_records.EvaluateConfig).student.model
  path = tmp_path_factory.mktemp("models") / "model"
  save_params(path, jax.jit(model.init)(jax.random.key(0)), {"step": 0})
  return path


@pytest.fixture
def macros(caches, saved, tmp_path):
  return {
    "MODEL_DIR": tmp_path / "scores",
    "INITIAL_CHECKPOINT_PATH": saved,
    "EVAL_CACHE": caches["validation"],
    "EVAL_BATCH_SIZE": 8,
    "EVAL_TEMPERATURES": (0.0,),
  }


@pytest.fixture
def alone(macros):
  return arguments("evaluate", **macros)


@pytest.fixture
def against(macros, saved):
  """The model against itself."""
  file = "--gin_file=runs/evaluate_against.gin"
  teacher = {"TEACHER_MODEL": "%TINY_TEACHER", "TEACHER_CHECKPOINT_PATH": saved}
  return arguments("evaluate", file, **macros, **teacher)


@pytest.fixture
def scores(tmp_path):
  """Runs a command and returns the metrics that it wrote."""

  def scores(*command_line):
    assert command.main([*command_line]) == 0
    return json.loads((tmp_path / "scores" / "metrics.json").read_text())

  return scores


def test_an_evaluation_that_is_stuck_is_noticed(alone, monkeypatch):
  dog, limits = watchdog.of_process, []

  def answer(*_, **__):
    limits.append(dog.limit_seconds)
    return {}

  monkeypatch.setattr(evaluate_command, "evaluate_once", answer)
  assert command.main(alone) == 0
  assert (limits, dog.limit_seconds) == ([watchdog.STUCK_SECONDS], 0.0)


def records_of(file) -> list[dict]:
  return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def nothing_computed(monkeypatch):
  """Fails if anything is answered."""
  monkeypatch.setattr(evaluate_command, "evaluate_once", None)


def test_several_tasks_and_splits_with_a_teacher(
  against, scores, caches, tmp_path, capsys
):
  splits = f"--gin.EVAL_SPLITS=('{caches['test']}', '{caches['other']}')"
  more = [splits, "--gin.EVAL_BOOTSTRAP=50", "--gin.EVAL_EXAMPLES=6"]
  values = scores(*against, *more)
  parts = {name.split("/")[1] for name in values}
  task = "chain_addition_easy"
  assert parts == {f"{task}-validation", f"{task}-test", "other"}
  for part in parts:
    names = {n.split("/")[2] for n in values if n.split("/")[1] == part}
    numbers = ["accuracy", "length", "truncation_rate"]
    numbers += [f"teacher_{name}" for name in numbers]
    kls = [f"{x}_kl" for x in ("forward", "reverse")]
    kls += [f"{name}_per_token" for name in kls]
    kls += [*SHARES, "length_ratio"]
    ends = ("", "_ci_low", "_ci_high")
    expected = {name + end for name in numbers + kls for end in ends}
    assert names == expected | {f"{name}_se" for name in kls}
    # Greedily, the teacher answers as its copy does.
    for name in ("accuracy", "length", "length_ci_low"):
      ours = values[f"eval/{part}/{name}"]
      assert values[f"eval/{part}/teacher_{name}"] == ours
    assert values[f"eval/{part}/forward_kl"] == 0
    shares = [values[f"eval/{part}/{name}"] for name in SHARES]
    assert shares == pytest.approx([1] * 4)
  files = {path.name for path in (tmp_path / "scores/predictions").iterdir()}
  assert files == {
    f"{task}-validation-00000000.jsonl",
    f"{task}-test-00000000.jsonl",
    "other-test-00000000.jsonl",
  }
  out = capsys.readouterr().out
  assert f"{task}, validation: 6 prompts, greedily" in out
  assert "other, test: 6 prompts, greedily" in out
  assert "teacher   95 % interval" in out


def test_a_model_of_another_role_is_compared_with(alone, scores, saved):
  file = "--gin_file=runs/oracle.gin"
  oracle = f"--gin.ORACLE_CHECKPOINT_PATH={saved}"
  more = ["--gin.EVAL_DISTANCES=('jsd_0.5',)", "--gin.EVAL_BOOTSTRAP=0"]
  values = scores(*alone, file, oracle, *more)
  names = {name.split("/")[2] for name in values}
  metrics = ["jsd_0.5", "jsd_0.5_per_token"]
  metrics += [
    f"{share}_on_{whose}_text"
    for whose in ("oracle", "own")
    for share in ("agreement", "acceptance")
  ]
  metrics.append("length_ratio")
  numbers = [f"{metric}_to_oracle" for metric in metrics]
  assert names == {"accuracy", "length", "truncation_rate"} | {
    name + end for name in numbers for end in ("", "_se")
  }
  # It is the model itself.
  assert values["eval/chain_addition_easy/jsd_0.5_to_oracle"] < 1e-6


def test_samples_are_voted_on_and_no_intervals_if_not_asked_for(
  alone, scores, tmp_path
):
  more = ["--gin.EVAL_TEMPERATURES=(1.0,)", "--gin.EVAL_SAMPLES=3"]
  values = scores(*alone, *more, "--gin.EVAL_BOOTSTRAP=0")
  assert {name.split("/")[2] for name in values} == {
    "accuracy_t1",
    "majority_accuracy_t1",
    "pass_at_2_accuracy_t1",
    "pass_at_3_accuracy_t1",
    "self_bleu_t1",
    "length_t1",
    "truncation_rate_t1",
  }
  (file,) = (tmp_path / "scores" / "predictions").iterdir()
  records = records_of(file)
  assert len(records) == 24
  assert records[9].keys() == {
    *("sample", "row", "prompt", "reference"),
    *("text", "prediction", "length", "truncated"),
  }


def test_a_beam_search_beside_greedy_and_alone(
  against, scores, tmp_path, capsys
):
  search = [*against, "--gin.EVAL_BEAM_SIZE=4", "--gin.EVAL_BOOTSTRAP=20"]
  folder = tmp_path / "scores"
  both = scores(*search)
  out = capsys.readouterr().out
  assert "  greedily\n  …_beam4: by a search with 4 beams, alpha 0.6\n" in out
  names = {n.split("/")[2] for n in both if not n.endswith(SUFFIXES)}
  own = {"accuracy", "length", "truncation_rate"}
  own |= {f"{name}_beam4" for name in own}
  kls = {f"{x}_kl" for x in ("forward", "reverse")}
  kls |= {f"{kl}_per_token" for kl in kls} | {*SHARES, "length_ratio"}
  assert names == own | {f"teacher_{name}" for name in own} | kls
  # The teacher is the model itself.
  task, stem = "eval/chain_addition_easy", "chain_addition_easy-validation"
  assert both[f"{task}/length_beam4"] == both[f"{task}/teacher_length_beam4"]
  assert (folder / "predictions" / f"{stem}-00000000.jsonl").exists()
  records = records_of(folder / "predictions" / f"{stem}-beam4-00000000.jsonl")
  assert [record["row"] for record in records] == list(range(8))
  page = tmp_path / "page.html"
  assert command.main(["report", str(folder), f"--output={page}"]) == 0
  assert "beam size 4" in page.read_text("utf-8")

  values = scores(*search, "--gin.EVAL_TEMPERATURES=()")
  expected = {
    n: v for n, v in both.items() if re.search("_beam4|_kl|_text|_ratio", n)
  }
  assert values == expected
  names = {path.name for path in (folder / "predictions").iterdir()}
  assert names == {f"{stem}-beam4-00000000.jsonl"}


def test_nothing_of_an_earlier_evaluation_stays(
  alone, scores, tmp_path, monkeypatch
):
  monkeypatch.setattr(evaluate_command, "evaluate_once", lambda *_, **__: {})
  monkeypatch.setattr(evaluate_command.score_table, "table", lambda *_: "")
  folder = tmp_path / "scores"
  written = "chain_addition_easy-validation-00000000.jsonl"
  (folder / "predictions").mkdir(parents=True)
  record = dict.fromkeys(("prompt", "reference", "text", "prediction"))
  for name in (written, "chain_addition_easy-test-t1-00000000.jsonl", "notes"):
    (folder / "predictions" / name).write_text(json.dumps(record))
  (folder / "predictions" / "mine-00000000.jsonl").write_text("{}")
  (folder / "metrics.json").write_text('{"eval/x/accuracy": 1.0}')
  (folder / "run.json").write_text('{"roles": {}, "settings": {}}')
  assert scores(*alone) == {}
  names = {path.name for path in (folder / "predictions").iterdir()}
  # The first is replaced by the evaluation itself.
  assert names == {written, "notes", "mine-00000000.jsonl"}


def test_parameters_may_be_split_over_devices(against, scores):
  """And compute the same; the teacher's own scores can be left out."""
  more = ["--gin.EVAL_TEACHER=False", "--gin.EVAL_BOOTSTRAP=0"]
  one, two = (
    scores(*against, *more, f"--gin.MODEL_PARALLELISM={n}") for n in (1, 2)
  )
  assert one == pytest.approx(two, abs=1e-4)
  assert "eval/chain_addition_easy/forward_kl" in one
  assert not any("/teacher_" in name for name in one)


# What is added to the arguments, and what the line must say.
MISTAKES = r"""
EVAL_SPLITS=svamp/test
  EVAL_SPLITS is 'svamp/test'; exp
EVAL_SPLITS=('/nowhere',)
  no cache at /nowhere
EVAL_TEACHER=True
  --gin.EVAL_TEACHER has no effect: there is no teacher; leave it out
EVAL_CHUNK_SIZE=8
  --gin.EVAL_CHUNK_SIZE has no effect: there is no teacher
EVAL_DISTANCES=('jsd',)
  EVAL_DISTANCES has 'jsd'; expected forward_kl, reverse_kl, jsd_0.5 or
EVAL_DISTANCES=('jsd_0.5',)
  --gin.EVAL_DISTANCES has no effect: there is no teacher
EVAL_BEAM_ALPHA=0.0
  --gin.EVAL_BEAM_ALPHA has no effect: EVAL_BEAM_SIZE is 0, so there is no
EVAL_BEAM_SIZE=1.5
  EVAL_BEAM_SIZE
EVAL_SPLIT=test
  EVAL_SPLIT has no effect: EVAL_CACHE is given and holds its task
TASK_MODULE=x
  TASK_MODULE has no effect: token caches are given, and nothing is
EVAL_CACHE=('a', 'b')
  evaluation is of one task and split at a time; name one in EVAL_TASK
"""


@pytest.mark.parametrize(("values", "message"), mistakes(MISTAKES))
def test_mistakes_are_one_line(
  values, message, alone, capsys, nothing_computed
):
  assert message in error_of([*alone, *flags(values)], capsys)


@pytest.mark.parametrize(
  ("cache", "values", "message"),
  [
    ({"split": "validation"}, [], "easy/validation has the same name as"),
    # Where VOCABULARY is given, opening the cache finds it.
    (
      {"split": "test", "characters": CHARACTERS[::-1]},
      ["VOCABULARY="],
      "make it again with the model's VOCABULARY",
    ),
    (
      {"split": "test", "rows": 0},
      [],
      "split 'test' has no rows; choose another split",
    ),
  ],
)
def test_another_split_that_cannot_be_evaluated(
  cache, values, message, alone, tmp_path, capsys, nothing_computed
):
  splits = (str(write_cache(tmp_path / "another", **cache)),)
  line = error_of([*alone, *flags([*values, f"EVAL_SPLITS={splits}"])], capsys)
  assert message in line


def test_folders_that_are_taken(alone, tmp_path, capsys, nothing_computed):
  folder = tmp_path / "scores"
  folder.mkdir()
  (folder / "predictions").write_text("")
  line = error_of(alone, capsys)
  assert "predictions is a file; give a folder" in line
  (folder / "predictions").unlink()
  with locks.hold(folder / ".lock", "it"):
    assert "scores is in use by process" in error_of(alone, capsys)
  (folder / "metrics.json").write_text("{}")
  line = error_of(alone, capsys)
  assert "holds metrics.json, which would be replaced, and no run.json" in line
  assert (folder / "metrics.json").read_text() == "{}"
  (folder / "run.json").write_text('{"contents": {}}')
  assert "is the folder of a training run" in error_of(alone, capsys)
  (folder / "run.json").unlink()
  (folder / "checkpoints").mkdir()
  line = error_of(alone, capsys)
  assert "is the folder of a training run" in line
  assert "scores/eval" in line


def test_every_split_is_compared_with_the_training_data(
  caches, tmp_path, capsys
):
  train = arguments(
    "train",
    file="test/sft.gin",
    MODEL_DIR=tmp_path,
    TRAIN_CACHE=caches["train"],
    EVAL_CACHE=caches["validation"],
  )
  line = error_of([*train, f"--gin.EVAL_SPLITS=('{caches['train']}',)"], capsys)
  assert "EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'" in line
  # By the names alone, before any cache is made.
  names = ["--gin.TRAIN_CACHE=", "--gin.EVAL_CACHE="]
  same = "--gin.EVAL_SPLITS=('chain_addition_easy/train',)"
  line = error_of([*train, *names, same], capsys)
  assert "EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'" in line
