"""The command: what works ends in files, what does not ends in one line."""

import json
import re

import numpy as np
import pytest

from gkd import main as command
from gkd.commands import datasets
from gkd.commands import training
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.writer import write_rows
from gkd.text.arithmetic import CHARACTERS
from gkd.text.arithmetic import ChainAddition
from gkd.text.vocabulary import load
from gkd.training import loop

LENGTHS = {"inputs": 16, "targets": 32}
QUICK = ["--gin.TRAIN_STEPS=3", "--gin.BATCH_SIZE=8", "--gin.TRAIN_LIMIT=32"]


def write_cache(path, split, *, rows=48, targets=True, characters=CHARACTERS):
  vocabulary = load(f"characters:{characters}")

  def ids(text):
    return np.asarray([*vocabulary.encode(text), 1], np.int32)

  problems = ChainAddition(min_terms=3, max_terms=3).problems(split, rows)
  info = {
    "task": "chain_addition_easy",
    "split": split,
    "lengths": LENGTHS,
    "vocabulary": vocabulary,
    "postprocess": "gkd.text.postprocess:chain_answer",
    "metrics": ["gkd.text.metrics:accuracy"],
  }
  made = (
    Row(ids(p.inputs), ids(p.targets)[: None if targets else 0], p.inputs, "1")
    for p in problems
  )
  return write_rows(path, made, info)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  train = write_cache(folder / "train", "train")
  evaluation = write_cache(folder / "eval", "validation", rows=8)
  return [f"--gin.TRAIN_CACHE={train}", f"--gin.EVAL_CACHE={evaluation}"]


@pytest.fixture(scope="module")
def teacher(caches, tmp_path_factory):
  """A run folder that `gkd train` made."""
  folder = tmp_path_factory.mktemp("runs") / "teacher"
  arguments = ["--gin_file=test/sft.gin", f"--gin.MODEL_DIR={folder}"]
  never = ["--gin.CHECKPOINT_PERIOD=2", "--gin.EVAL_EXAMPLES=8"]
  assert command.main(["train", *arguments, *caches, *QUICK, *never]) == 0
  return folder


@pytest.fixture
def distill(caches, teacher, tmp_path):
  return [
    "train",
    "--gin_file=test/distill.gin",
    f"--gin.MODEL_DIR={tmp_path / 'run'}",
    f"--gin.TEACHER_CHECKPOINT_PATH={teacher}",
    *caches,
    *QUICK,
  ]


@pytest.fixture
def nothing_computed(monkeypatch):
  """Fails the test if parameters are made or training starts."""

  def refuse(*args, **kwargs):
    raise AssertionError("the mistake was not found before computing")

  monkeypatch.setattr(training, "initial_params", refuse)
  monkeypatch.setattr(loop, "train", refuse)


def error_of(arguments, capsys) -> str:
  """The one line of a command that must end with exit code 2."""
  capsys.readouterr()
  assert command.main(arguments) == 2
  captured = capsys.readouterr()
  line = captured.err.strip().splitlines()[-1]
  assert line.startswith("gkd: ")
  assert "Traceback" not in captured.err
  return line


# What is wrong, and what the line must say of it.
MISTAKES = {
  "unknown macro": (
    ["--gin.TRIAN_STEPS=5"],
    r"TRIAN_STEPS.*did you mean TRAIN_STEPS",
  ),
  "text for a number": (
    ["--gin.BATCH_SIZE=a"],
    r"BATCH_SIZE is 'a'; expected a whole number",
  ),
  "quoted text for a number": (["--gin.BATCH_SIZE='a'"], r"BATCH_SIZE is 'a'"),
  "fraction for a whole number": (
    ["--gin.TRAIN_STEPS=2.5"],
    r"TRAIN_STEPS is 2.5; expected a whole number",
  ),
  "lambda above 1": (
    ["--gin.STUDENT_DATA_FRACTION=1.5"],
    r"1\.5; expected a number from 0 to 1",
  ),
  "lambda below 0": (
    ["--gin.STUDENT_DATA_FRACTION=-0.1"],
    r"-0\.1; expected a number from 0 to 1",
  ),
  "unknown divergence": (
    ["--gin.DIVERGENCE=@divergence.ReversedKL()"],
    r"no 'ReversedKL', did you mean ReverseKL",
  ),
  "divergence without @": (
    ["--gin.DIVERGENCE=ReverseKL"],
    r"DIVERGENCE is 'ReverseKL'; expected .* @",
  ),
  "unknown parameter": (
    ["--gin.rollout.Rollout.granularty=step"],
    r"doesn't have a parameter named 'granularty'",
  ),
  "unknown reduction": (
    ["--gin.REDUCTION=mean"],
    r"REDUCTION is 'mean'; expected one of 'sequence', 'token', 'sum'",
  ),
  "unknown size": (["--gin.STUDENT_MODEL=%SMALL"], r"no value for SMALL"),
  "unknown field of a model": (
    ["--gin.STUDENT_MODEL={'vocab_size': 18, 'emb_dmi': 8}"],
    r"unknown T5Config field.* emb_dmi",
  ),
  "unknown file": (
    ["--gin_file=tasks/gsm9k.gin"],
    r"'tasks/gsm9k.gin' does not exist.*did you mean tasks/gsm8k.gin",
  ),
  "no equals sign": (["--gin.BATCH_SIZE"], r"expected --gin.NAME=VALUE"),
  "no teacher's checkpoint": (
    ["--gin.TEACHER_CHECKPOINT_PATH=/nowhere"],
    r"TEACHER_CHECKPOINT_PATH: no checkpoint at /nowhere",
  ),
  "empty teacher's checkpoint": (
    ["--gin.TEACHER_CHECKPOINT_PATH="],
    r"TEACHER_CHECKPOINT_PATH is empty",
  ),
  "teacher of another size": (
    ["--gin.TEACHER_MODEL=%TINY"],
    r"TEACHER_CHECKPOINT_PATH: .*does not fit the model",
  ),
  "another vocabulary than the models'": (
    ["--gin.VOCABULARY=bytes", "--gin.TRAIN_CACHE=", "--gin.EVAL_CACHE="],
    r"the student has 18 ids but VOCABULARY has 259",
  ),
  "another vocabulary than the cache's": (
    ["--gin.VOCABULARY=characters:9876543210+-=;A"],
    r"was made with another vocabulary than VOCABULARY",
  ),
  "student and teacher of different vocabularies": (
    ["--gin.STUDENT_MODEL={'vocab_size': 20, 'emb_dim': 8}"],
    r"the student has 20 ids but VOCABULARY has 18: different vocabularies",
  ),
  "the same split twice": (
    ["--gin.EVAL_CACHE=", "--gin.TRAIN_CACHE=", "--gin.EVAL_SPLIT=train"],
    r"EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'",
  ),
  "longer than the cache": (
    ["--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 64}"],
    r"targets length 64 is beyond the cache",
  ),
  "one length missing": (
    ["--gin.TASK_FEATURE_LENGTHS={'inputs': 16}"],
    r"TASK_FEATURE_LENGTHS is \{'inputs': 16\}; expected",
  ),
  "batch that does not split": (
    ["--gin.MICRO_BATCHES=3"],
    r"BATCH_SIZE 8 does not split into 3 micro-batches",
  ),
  "no cache there": (["--gin.TRAIN_CACHE=/nowhere"], r"no cache at /nowhere"),
  "warm-up longer than the run": (
    ["--gin.WARMUP_STEPS=9"],
    r"WARMUP_STEPS 9 .* do not fit into TRAIN_STEPS 3",
  ),
  "no vocabulary file": (
    ["--gin.VOCABULARY=no.model", "--gin.TRAIN_CACHE="],
    r"VOCABULARY 'no.model' is not a file",
  ),
  "empty MODEL_DIR": (["--gin.MODEL_DIR="], r"MODEL_DIR is empty"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_before_any_compile(
  name, distill, capsys, nothing_computed
):
  arguments, message = MISTAKES[name]
  line = error_of([*distill, *arguments], capsys)
  assert re.search(message, line), line


def test_missing_values_are_all_named(capsys):
  line = error_of(["train", "--gin_file=runs/distill.gin"], capsys)
  for name in (
    "MODEL_DIR",
    "STUDENT_DATA_FRACTION",
    "DIVERGENCE",
    "TEACHER_CHECKPOINT_PATH",
    "BATCH_SIZE",
    "TRAIN_STEPS",
    "MIXTURE_OR_TASK_NAME",
  ):
    assert name in line


def test_no_file_at_all(capsys):
  assert "needs a --gin_file" in error_of(["train"], capsys)


def test_file_that_describes_no_run(capsys):
  line = error_of(["train", "--gin_file=test/tiny.gin"], capsys)
  assert "no --gin_file describes a 'Training'" in line


def test_gin_value_for_a_command_without_gin(capsys):
  line = error_of(["report", "x", "--gin.BATCH_SIZE=3"], capsys)
  assert "takes no gin values" in line


def test_prompts_without_targets_need_a_run_without_targets(
  distill, tmp_path, capsys, nothing_computed
):
  path = write_cache(tmp_path / "prompts", "train", targets=False)
  arguments = [*distill, f"--gin.TRAIN_CACHE={path}"]
  line = error_of(arguments, capsys)
  assert "prompts without targets" in line
  assert "STUDENT_DATA_FRACTION" in line
  # On-policy needs none: the next thing that happens is the student's making.
  with pytest.raises(AssertionError, match="before computing"):
    command.main([*arguments, "--gin.STUDENT_DATA_FRACTION=1.0"])


def test_checkpoint_of_another_vocabulary_of_the_same_size(
  distill, tmp_path, capsys, nothing_computed
):
  mixed = CHARACTERS[::-1]
  train = write_cache(tmp_path / "t", "train", characters=mixed)
  evaluation = write_cache(tmp_path / "e", "validation", characters=mixed)
  line = error_of(
    [
      *distill,
      f"--gin.VOCABULARY=characters:{mixed}",
      f"--gin.TRAIN_CACHE={train}",
      f"--gin.EVAL_CACHE={evaluation}",
    ],
    capsys,
  )
  assert "was trained with another vocabulary" in line


def test_a_bug_is_a_traceback_and_not_exit_code_2(distill, monkeypatch):
  def broken(*args, **kwargs):
    raise KeyError("a bug")

  monkeypatch.setattr(loop, "train", broken)
  with pytest.raises(KeyError, match="a bug"):
    command.main(distill)


def test_wrong_flag_is_one_line(capsys):
  with pytest.raises(SystemExit) as stopped:
    command.main(["train", "--gin_fiel=x"])
  assert stopped.value.code == 2
  assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
  "arguments",
  [
    [],
    ["train"],
    ["evaluate"],
    ["sample"],
    ["cache", "make"],
    ["cache", "list"],
    ["cache", "check"],
    ["cache", "vocabulary"],
    ["report"],
    ["bench"],
    ["quickstart"],
  ],
)
def test_help_has_an_example(arguments, capsys):
  with pytest.raises(SystemExit) as stopped:
    command.main([*arguments, "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  assert "example:" in text or not arguments
  assert "gkd" in text


@pytest.mark.parametrize(
  ("left", "right", "expected"),
  [
    ("train", "train", True),
    ("train", "validation", False),
    ("train[:90%]", "train[90%:]", False),
    ("train[:90%]", "train[80%:]", True),
    ("train[:100]", "train[100:200]", False),
    ("train[:101]", "train[100:200]", True),
    ("train[100:]", "train", True),
    ("train[:10]", "train[50%:]", True),
    ("train+validation", "validation", True),
    ("all", "test", True),
  ],
)
def test_splits_that_may_share_rows(left, right, expected):
  assert datasets.may_intersect(left, right) is expected
  assert datasets.may_intersect(right, left) is expected


def test_run_leaves_the_promised_files(teacher):
  for name in ("config.gin", "model-info.txt", "metrics.jsonl", "checkpoints"):
    assert (teacher / name).exists(), name
  lines = (teacher / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[-1])["step"] == 3


def test_distill_evaluate_sample_and_train_on_the_samples(
  distill, caches, teacher, tmp_path, capsys
):
  assert command.main([*distill, "--gin.EVAL_EXAMPLES=8"]) == 0
  # What the run kept is a configuration of its own, and resumes at the end.
  kept = tmp_path / "run" / "config.gin"
  before = kept.read_text()
  assert command.main(["train", f"--gin_file={kept}"]) == 0
  assert kept.read_text() == before

  scores = tmp_path / "scores"
  first = teacher / "checkpoints" / "00000002"
  arguments = [
    "evaluate",
    "--gin_file=test/evaluate.gin",
    f"--gin.MODEL_DIR={scores}",
    f"--gin.INITIAL_CHECKPOINT_PATH={first}",
    "--gin.EVAL_EXAMPLES=8",
    "--gin.EVAL_TEMPERATURES=(0.0,)",
    caches[1],
  ]
  assert command.main(arguments) == 0
  values = json.loads((scores / "metrics.json").read_text())
  assert 0 <= values["eval/chain_addition_easy/accuracy"] <= 1
  assert len(list((scores / "predictions").iterdir())) == 1

  answers = tmp_path / "answers"
  arguments = [
    "sample",
    "--gin_file=test/sample.gin",
    f"--gin.OUTPUT_DIR={answers}",
    f"--gin.INITIAL_CHECKPOINT_PATH={teacher}",
    "--gin.TRAIN_LIMIT=10",
    "--gin.BATCH_SIZE=8",
    "--gin.NUM_SAMPLES=2",
    caches[0],
  ]
  assert command.main(arguments) == 0
  cache = TokenCache(answers)
  assert len(cache) == 20
  rows = cache.read(range(20))
  assert [r.prompt for r in rows[::2]] == [r.prompt for r in rows[1::2]]
  assert any(
    a.targets.tolist() != b.targets.tolist()
    for a, b in zip(rows[::2], rows[1::2], strict=True)
  )
  assert command.main(["cache", "check", str(answers)]) == 0
  assert "sound" in capsys.readouterr().out

  seqkd = [
    "train",
    "--gin_file=test/sft.gin",
    f"--gin.MODEL_DIR={tmp_path / 'seqkd'}",
    *caches,
    *QUICK,
    "--gin.TRAIN_LIMIT=None",
    "--gin.EVAL_EXAMPLES=8",
    f"--gin.TRAIN_CACHE={answers}",
  ]
  assert command.main(seqkd) == 0
