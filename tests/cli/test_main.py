"""The command: what works ends in files, what does not ends in one line."""

import json
from pathlib import Path
import re

import jax
import pytest

from gkd import files
from gkd import keys
from gkd.cli import evaluate_command
from gkd.cli import main as command
from gkd.cli import train_command
from gkd.config import datasets
from gkd.config import evaluations
from gkd.config import records
from gkd.data.cache import TokenCache
from gkd.text.chain_addition import CHARACTERS
from gkd.training import loop
from gkd.types import UserError
from tests.cli.command_lines import LENGTHS
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of
from tests.cli.command_lines import flags
from tests.cli.command_lines import mistakes
from tests.cli.command_lines import train_config
from tests.cli.command_lines import write_cache
from tests.cli.command_lines import write_caches

# The batch of test/sft.gin, so that the README's commands compile the same.
QUICK = {"TRAIN_STEPS": 3, "TRAIN_LIMIT": 32}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  return write_caches(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def teacher(caches, tmp_path_factory):
  """A run folder that `gkd train` made."""
  folder = tmp_path_factory.mktemp("runs") / "teacher"
  macros = {"MODEL_DIR": folder, "CHECKPOINT_PERIOD": 2, "EVAL_EXAMPLES": 8}
  sft = arguments("train", file="test/sft.gin", **caches, **QUICK, **macros)
  assert command.main(sft) == 0
  return folder


@pytest.fixture
def distill(caches, teacher, tmp_path):
  macros = {"MODEL_DIR": tmp_path / "run", "TEACHER_CHECKPOINT_PATH": teacher}
  return arguments(
    "train", file="test/distill.gin", **caches, **QUICK, **macros
  )


@pytest.fixture
def evaluate(caches, teacher, tmp_path):
  return arguments(
    "evaluate",
    MODEL_DIR=tmp_path / "scores",
    INITIAL_CHECKPOINT_PATH=teacher,
    EVAL_CACHE=caches["EVAL_CACHE"],
  )


@pytest.fixture
def nothing_computed(monkeypatch):
  """Fails the test if parameters are made or training starts."""

  def refuse(*args, **kwargs):
    raise AssertionError("the mistake was not found before computing")

  monkeypatch.setattr(train_command, "initial_params", refuse)
  monkeypatch.setattr(loop, "train", refuse)
  monkeypatch.setattr(evaluate_command, "evaluate_once", refuse)


@pytest.mark.parametrize(
  "flag", [jax.enable_x64(True), jax.threefry_partitionable(False)]
)
def test_flags_of_jax_that_give_a_seed_other_draws_are_refused(
  distill, capsys, nothing_computed, flag
):
  pattern = (
    r"JAX_\w+ is \w+, with which a seed has other .* unset that variable"
  )
  with flag:
    assert re.search(pattern, error_of(distill, capsys))
    with pytest.raises(UserError, match=pattern):
      keys.stream(0, 0, keys.Role.INIT)
  keys.stream(0, 0, keys.Role.INIT)


# What is wrong, and what the line must say of it.
MISTAKES = r"""
TRIAN_STEPS=5
  TRIAN_STEPS.*did you mean TRAIN_STEPS.* see gkd train --help and docs
BATCH_SIZE=a
  BATCH_SIZE is 'a'; expected a whole number
BATCH_SIZE='a'
  BATCH_SIZE is 'a'
TRAIN_STEPS=2.5
  TRAIN_STEPS is 2.5; expected a whole number
STUDENT_DATA_FRACTION=1.5
  1\.5; expected a number from 0 to 1
STUDENT_DATA_FRACTION=-0.1
  -0\.1; expected a number from 0 to 1
DIVERGENCE=@divergence.ReversedKL()
  no 'ReversedKL', did you mean ReverseKL
DIVERGENCE=ReverseKL
  DIVERGENCE is 'ReverseKL'; expected .* @.*add --gin_file=divergences/rev
rollout.Rollout.granularty=step
  doesn't have a parameter named 'granularty'
REDUCTION=mean
  REDUCTION is 'mean'; expected one of 'sequence', 'token', 'sum'
STUDENT_MODEL=%SMALL
  no value for SMALL; did you mean .*MT5_SMALL.*\? see gkd list models$
STUDENT_MODEL=%T5_SMALL; TRAIN_STEPS=%STEPS
  did you mean .*T5_1_1_SMALL.* models; add --gin.STEPS=…, or .* sets it$
DIVERGENCE=%gin.REQUIRED
  no value for DIVERGENCE; add --gin_file=divergences/reverse_kl.gin, see
STUDENT_MODEL=T5_1_1_SMAL
  no model size 'T5_1_1_SMAL'; did you mean T5_1_1_SMALL or .* list models
STUDENT_MODEL={'vocab_size': 18, 'emb_dmi': 8}
  unknown T5Config field.* emb_dmi
--gin_file=tasks/gsm9k.gin
  'tasks/gsm9k.gin' does not exist.*did you mean tasks/gsm8k.gin
BATCH_SIZE
  expected --gin.NAME=VALUE
TEACHER_CHECKPOINT_PATH=/nowhere
  TEACHER_CHECKPOINT_PATH: there is no folder /nowhere
TEACHER_CHECKPOINT_PATH=; INITIAL_CHECKPOINT_PATH=/nowhere
  TEACHER_CHECKPOINT_PATH is empty
TEACHER_MODEL=%TINY
  TEACHER_CHECKPOINT_PATH: .*does not fit the model
VOCABULARY=bytes; TRAIN_CACHE=; EVAL_CACHE=
  the student has 18 ids but VOCABULARY has 259
VOCABULARY=characters:9876543210+-=;A
  was made with another vocabulary than VOCABULARY
STUDENT_MODEL={'vocab_size': 18, 'emb_dim': 8}
  T5Config .* has no num_heads, num_encoder_layers, .* T5_1_1_SMALL
LEARNING_RATE=1e999
  LEARNING_RATE is inf; expected a number above 0
optimizer.build.b2=1.0; OPTIMIZER=adamw
  b2 is 1.0; expected a number from 0 to below 1
SAMPLING_TOP_K=5; SAMPLING_TEMPERATURE=0.0; STUDENT_DATA_FRACTION=0.5
  SAMPLING_TOP_K has no effect: SAMPLING_TEMPERATURE is 0
SAMPLING_TOP_K=17
  top_k is 17, but the model chooses among 17 ids
STUDENT_MODEL=T5_1_1_SMALL
  the student has 32100 ids but VOCABULARY has 18: different vocabularies
EVAL_CACHE=; TRAIN_CACHE=; EVAL_SPLIT=train
  EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'
TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 64}
  targets length 64 is beyond the cache
TASK_FEATURE_LENGTHS={'inputs': 16}
  TASK_FEATURE_LENGTHS is \{'inputs': 16\}; expected
MICRO_BATCHES=3
  BATCH_SIZE 16 does not split into 3 micro-batches
TRAIN_CACHE=/nowhere
  no cache at /nowhere
WARMUP_STEPS=9
  WARMUP_STEPS 9 .* do not fit into TRAIN_STEPS 3
VOCABULARY=no.model; TRAIN_CACHE=
  VOCABULARY 'no.model' is not a file
MODEL_DIR=
  MODEL_DIR is empty
STUDENT_DATA_FRACTION=0; SAMPLING_TEMPERATURE=0.5
  --gin.SAMPLING_TEMPERATURE has no effect: STUDENT_DATA_FRACTION is 0
STUDENT_DATA_FRACTION=1.0; MIXING=example
  --gin.MIXING has no effect: at a STUDENT_DATA_FRACTION of 0 or 1
--gin_file=methods/seqkd.gin; DIVERGENCE=@divergence.ForwardKL()
  --gin.DIVERGENCE has no effect
"""


@pytest.mark.parametrize(("values", "message"), mistakes(MISTAKES))
def test_mistakes_are_one_line_before_any_compile(
  values, message, distill, capsys, nothing_computed
):
  line = error_of([*distill, *flags(values)], capsys)
  assert re.search(message, line), line


SHORT = ["TASK_FEATURE_LENGTHS={'inputs': 5, 'targets': 32}"]


@pytest.mark.parametrize(
  ("changes", "values", "message"),
  [
    ({}, SHORT, r"inputs length 5 is too short for the cache .*bad"),
    (
      {"metrics": ["not_installed:f1"]},
      [],
      r"needs the function 'not_installed:f1'",
    ),
  ],
)
def test_what_fails_at_the_first_evaluation_is_found_at_the_start(
  changes,
  values,
  message,
  distill,
  evaluate,
  tmp_path,
  capsys,
  nothing_computed,
):
  path = write_cache(tmp_path / "bad", "validation", rows=8, **changes)
  for command_line in (distill, evaluate):
    line = error_of(
      [*command_line, *flags([f"EVAL_CACHE={path}", *values])], capsys
    )
    assert re.search(message, line), line


def test_folders_that_cannot_be_written_to(
  distill, evaluate, tmp_path, capsys, nothing_computed, monkeypatch
):
  (tmp_path / "file").write_text("")
  inside = tmp_path / "file" / "run"
  for command_line in (distill, evaluate):
    line = error_of([*command_line, f"--gin.MODEL_DIR={inside}"], capsys)
    assert re.search(r"MODEL_DIR .*file is a file; give a folder", line), line
  output = tmp_path / "no" / "bench.json"
  line = error_of(
    ["bench", *distill[1:], f"--output={output}", "--rounds=1"], capsys
  )
  assert re.search(r"--output .*there is no folder .*/no; make it", line), line
  monkeypatch.setattr(files.os, "access", lambda *_: False)
  line = error_of([*distill, f"--gin.MODEL_DIR={tmp_path / 'new'}"], capsys)
  assert re.search(r"MODEL_DIR .* cannot be written to", line), line
  assert not (tmp_path / "new").exists()


def test_a_diverged_run_is_one_line_and_exit_code_1(caches, tmp_path, capsys):
  macros = {"MODEL_DIR": tmp_path, "LEARNING_RATE": 1e38}
  sft = arguments("train", file="test/sft.gin", **caches, **QUICK, **macros)
  assert command.main(sft) == 1
  error = capsys.readouterr().err
  assert "Traceback" not in error
  line = error.strip().splitlines()[-1]
  assert re.match(r"gkd: step \d+: .*[Ll]ower LEARNING_RATE", line), line


def test_damaged_vocabulary_of_the_training_data_is_found_at_the_start(
  distill, tmp_path, capsys, nothing_computed
):
  path = Path(write_cache(tmp_path / "train", "train"))
  info = json.loads((path / "info.json").read_text())
  info["vocabulary"]["characters"] = CHARACTERS[::-1]
  (path / "info.json").write_text(json.dumps(info))
  line = error_of([*distill, f"--gin.TRAIN_CACHE={path}"], capsys)
  assert "vocabulary" in line
  assert "make the cache again" in line


@pytest.mark.parametrize(
  ("command_line", "messages"),
  [
    (
      ["train", "--gin_file=runs/distill.gin"],
      [
        "MODEL_DIR",
        "STUDENT_DATA_FRACTION",
        "DIVERGENCE",
        "TEACHER_CHECKPOINT_PATH",
        "BATCH_SIZE",
        "TRAIN_STEPS",
        "MIXTURE_OR_TASK_NAME",
      ],
    ),
    (["train"], ["needs a --gin_file"]),
    (
      ["train", "--gin_file=test/tiny.gin"],
      ["no --gin_file describes a 'TrainConfig'"],
    ),
    (["report", "x", "--gin.BATCH_SIZE=3"], ["takes no gin values"]),
  ],
)
def test_what_is_missing_is_named(command_line, messages, capsys):
  line = error_of(command_line, capsys)
  for message in messages:
    assert message in line


def test_prompts_without_targets_need_a_run_without_targets(
  distill, tmp_path, capsys, nothing_computed
):
  path = write_cache(tmp_path / "prompts", "train", targets=False)
  arguments = [*distill, f"--gin.TRAIN_CACHE={path}"]
  line = error_of(arguments, capsys)
  assert "the data has prompts only" in line
  assert "STUDENT_DATA_FRACTION" in line
  mixed = write_cache(tmp_path / "mixed", "train", num_prompts=3)
  with pytest.raises(AssertionError, match="before computing"):
    command.main([*distill, f"--gin.TRAIN_CACHE={mixed}"])
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
  # The run keeps its vocabulary, so that the pieces can be shown.
  first = f"id 3 is {CHARACTERS[0]!r} in one (characters"
  assert f"has another tokenizer than the data: {first}" in line


def test_a_bug_is_a_traceback_and_not_exit_code_2(distill, monkeypatch):
  def broken(*args, **kwargs):
    raise KeyError("a bug")

  monkeypatch.setattr(loop, "train", broken)
  with pytest.raises(KeyError, match="a bug"):
    command.main(distill)


def test_a_device_that_fails_asks_for_the_same_command_again(
  distill, monkeypatch, capsys
):
  def fail(*_, **__):
    raise jax.errors.JaxRuntimeError("INTERNAL: the core has halted")

  monkeypatch.setattr(train_command, "train", fail)
  assert command.main(distill) == 75
  text = "gkd: JaxRuntimeError: INTERNAL: the core has halted\n"
  assert capsys.readouterr().err.endswith(text)


def test_an_error_of_a_function_on_the_host_is_a_bug(distill, monkeypatch):
  """It would come again, though JAX calls it INTERNAL."""

  def fail(*_, **__):
    raise jax.errors.JaxRuntimeError("INTERNAL: CpuCallback error: a bug")

  monkeypatch.setattr(train_command, "train", fail)
  with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
    command.main(distill)


def test_wrong_flag_is_one_line(capsys):
  with pytest.raises(SystemExit) as stopped:
    command.main(["train", "--gin_fiel=x"])
  assert stopped.value.code == 2
  assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_settings_of_the_evaluation_reach_it(caches):
  config = train_config(
    "test/sft.gin",
    "MODEL_DIR=run",
    "EVAL_TEMPERATURES=(0.0, 0.7)",
    "EVAL_SAMPLES=3",
    "EVAL_CHUNK_SIZE=16",
    "EVAL_BATCH_SIZE=6",
  )
  cache = TokenCache(caches["EVAL_CACHE"])
  greedy, drawn = evaluations.make_evaluations(config.evaluation, [cache])
  assert (greedy.num_samples, drawn.num_samples) == (1, 3)
  assert greedy.chunk_size == drawn.chunk_size == 16
  assert greedy.batch_size == drawn.batch_size == 6
  assert (greedy.label, drawn.label) == ("", "t0.7")


def test_metrics_json_has_null_where_a_number_is_not_finite(
  evaluate, tmp_path, monkeypatch
):
  values = {"eval/x/forward_kl": float("inf"), "eval/x/accuracy": 0.5}
  monkeypatch.setattr(
    evaluate_command, "evaluate_once", lambda *_, **__: values
  )
  assert command.main(evaluate) == 0
  # json reads the word Infinity, which other readers refuse.
  text = (tmp_path / "scores" / "metrics.json").read_text()
  kept = json.loads(text, parse_constant=pytest.fail)
  assert kept == {"eval/x/forward_kl": None, "eval/x/accuracy": 0.5}


def test_cache_in_the_home_folder(caches, monkeypatch):
  path = Path(caches["EVAL_CACHE"])
  monkeypatch.setenv("HOME", str(path.parent))
  data = records.DataConfig(
    task="x", split="x", lengths=LENGTHS, cache=f"~/{path.name}"
  )
  folders = records.Folders(data_dir="", cache_dir="")
  assert datasets.open_cache(data, folders).path == path


def test_a_run_goes_on_from_its_own_configuration_and_is_evaluated(
  distill, evaluate, teacher, tmp_path
):
  assert command.main([*distill, "--gin.EVAL_EXAMPLES=8"]) == 0
  # What the run kept is a configuration of its own, and resumes at the end.
  kept = tmp_path / "run" / "config.gin"
  before = kept.read_text()
  assert command.main(["train", f"--gin_file={kept}"]) == 0
  assert kept.read_text() == before

  first = teacher / "checkpoints" / "00000002"
  more = [
    f"--gin.INITIAL_CHECKPOINT_PATH={first}",
    "--gin.EVAL_EXAMPLES=8",
    "--gin.EVAL_TEMPERATURES=(0.0,)",
  ]
  assert command.main([*evaluate, *more]) == 0
  values = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  assert 0 <= values["eval/chain_addition_easy/accuracy"] <= 1
  assert len(list((tmp_path / "scores" / "predictions").iterdir())) == 1
