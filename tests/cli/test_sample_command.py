"""`gkd sample`: killed, continued, refused, and read back by training."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time

import jax
import numpy as np
import pytest

import gkd
from gkd.checkpoints import source
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.store import Store
from gkd.cli import main as command
from gkd.config import command_records
from gkd.config import configuration
from gkd.data.cache import TokenCache
from gkd.data.completions import write
from gkd.models import t5
from gkd.text.vocabulary import ByteVocabulary
from gkd.training import loop
from gkd.types import Source
from tests import tiny
from tests import tiny_tokenizers
from tests.checkpoints.tiny_models import save_params
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of
from tests.cli.command_lines import flags
from tests.cli.command_lines import mistakes
from tests.cli.command_lines import prepare
from tests.data import tiny_caches

LENGTHS = tiny.LENGTHS
ROWS = 288  # so many that a signal comes before the end
STEP = 6

# Processes that have imported everything already, but hold no device yet.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gkd.cli.sample_command", "gkd.cli.main"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Prompts, a model saved alone, and a run with two checkpoints of it."""
  folder = tmp_path_factory.mktemp("sampling")
  tiny.make_cache(folder / "prompts", rows=ROWS)
  configuration.load(
    ["test/sample.gin"], ["OUTPUT_DIR=x", "INITIAL_CHECKPOINT_PATH=x"]
  )
  model = configuration.build(command_records.SampleConfig).student.model
  assert isinstance(model.config, t5.T5Config)
  params = jax.jit(model.init)(jax.random.key(1))
  about = {"vocabulary_sha256": tiny.VOCABULARY.spec()["sha256"]}
  save_params(folder / "alone", params, about | {"step": STEP})
  with Store(folder / "run" / "checkpoints") as store:
    for step in (2, STEP):
      store.save(step, {"params": params, "step": np.int32(step)})
  run_folder.write_description(folder / "run", about)
  return folder


def command_line(folder, output) -> list[str]:
  """Two completions of every prompt, two prompts a shard."""
  return arguments(
    "sample",
    TASK_FEATURE_LENGTHS=LENGTHS,
    TRAIN_LIMIT=None,
    TRAIN_CACHE=folder / "prompts",
    INITIAL_CHECKPOINT_PATH=folder / "alone",
    OUTPUT_DIR=output,
    SHARD_PROMPTS=2,
    BATCH_SIZE=4,
  )


@pytest.fixture
def sample(folder, tmp_path):
  """Arguments of a command that writes into `tmp_path / "answers"`."""
  return command_line(folder, tmp_path / "answers")


@pytest.fixture(scope="module")
def whole(folder):
  """The cache of a command that nothing stopped."""
  assert command.main(command_line(folder, folder / "whole")) == 0
  return TokenCache(folder / "whole")


def files(path) -> dict[str, bytes]:
  """Every file of a cache but info.json, which holds a date."""
  return {
    file.name: file.read_bytes()
    for file in path.iterdir()
    if file.name != "info.json"
  }


def _run(command_line, stderr):
  os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
  sys.exit(command.main(command_line))


def started(command_line, stderr):
  """A process of the command."""
  process = CONTEXT.Process(target=_run, args=(command_line, stderr))
  process.start()
  return process


def wait_for_shards(partial, count, process) -> None:
  """Until so many shards are finished, or the process is."""
  deadline = time.monotonic() + 120
  while process.is_alive() and time.monotonic() < deadline:
    if len(list(partial.glob("?????.json"))) >= count:
      return
    time.sleep(0.001)


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_a_stopped_command_goes_on_and_loses_and_doubles_no_row(
  sample, whole, tmp_path, number, code
):
  partial = tmp_path / ".answers.partial"
  process = started(sample, tmp_path / "stderr")
  wait_for_shards(partial, 3, process)
  os.kill(process.pid, number)
  process.join()
  assert process.exitcode == code
  errors = (tmp_path / "stderr").read_text()
  assert "Traceback" not in errors
  if number != signal.SIGKILL:
    assert errors.splitlines()[-1].startswith("gkd: ")
    assert "; the same command goes on" in errors.splitlines()[-1]
  assert 3 <= len(list(partial.glob("?????.json"))) < ROWS // 2
  assert command.main(sample) == 0
  assert files(tmp_path / "answers") == files(whole.path)
  cache = TokenCache(tmp_path / "answers")
  cache.verify()
  assert len(cache) == 2 * ROWS
  assert not partial.exists()


@pytest.fixture
def nothing_sampled(monkeypatch):
  monkeypatch.setattr(write, "generate", None)


def test_twice_is_complete_and_other_settings_are_refused(
  sample, tmp_path, capsys, monkeypatch
):
  sample.append("--gin.TRAIN_LIMIT=8")
  assert command.main(sample) == 0
  out = capsys.readouterr().out
  assert f"completions of 8 prompts in {tmp_path / 'answers'}: " in out
  assert "cut without EOS; in " in out
  assert f"train on them with --gin.TRAIN_CACHE={tmp_path / 'answers'}" in out
  before = files(tmp_path / "answers")
  monkeypatch.setattr(write, "generate", None)
  assert command.main(sample) == 0
  assert "; complete, nothing to do" in capsys.readouterr().out
  line = error_of([*sample, "--gin.SAMPLING_TEMPERATURE=0.5"], capsys)
  assert "completions made with temperature 1.0, not 0.5; choose" in line
  assert files(tmp_path / "answers") == before


def test_provenance_of_each_way_to_name_a_checkpoint(
  sample, folder, tmp_path, capsys
):
  two = folder / "run" / "checkpoints" / "00000002"
  newest = folder / "run" / "checkpoints" / f"{STEP:08d}"
  answers = []
  for path, checkpoint, step in (
    (folder / "alone", folder / "alone", STEP),
    (folder / "run", newest, STEP),
    (two, two, 2),
  ):
    output = tmp_path / path.name
    named = f"--gin.INITIAL_CHECKPOINT_PATH={path}"
    more = [f"--gin.OUTPUT_DIR={output}", "--gin.WRITER=student"]
    more.append("--gin.TRAIN_LIMIT=8")
    assert command.main([*sample, named, *more]) == 0
    by = TokenCache(output).info["written_by"]
    assert by["checkpoint"] == str(checkpoint)
    assert by["parameters"] == {
      "sha256": source.open_checkpoint(checkpoint).content_sha256,
      "step": step,
    }
    answers.append(files(output))
  # The three hold the same parameters, and only those matter.
  assert answers[0] == answers[1] == answers[2]
  assert by["source"] == "student"
  assert "NUM_SAMPLES = 2\n" in by["config"]
  assert str(output) in by["config"]  # gin may put it on a line of its own
  assert by["program"].startswith(f"gkd {gkd.__version__}, jax ")
  assert by["date"][:2] == "20"
  assert by["date"].endswith("+00:00")
  # A half-made cache of another checkpoint is not continued.
  assert "parameters.step 2, not 6" in error_of([*sample, *more], capsys)


def test_prompts_are_chosen_as_training_chooses_rows(sample, tmp_path):
  """Another RANDOM_SEED draws others, unless SUBSET_SEED stays."""
  rows = {}
  for name, values in {
    "a": ["RANDOM_SEED=1", "TRAIN_LIMIT=8"],
    "b": ["RANDOM_SEED=2", "TRAIN_LIMIT=8"],
    "c": ["RANDOM_SEED=2", "TRAIN_LIMIT=8", "SUBSET_SEED=1"],
    "d": ["RANDOM_SEED=2", "TRAIN_FRACTION=0.25", "SUBSET_SEED=1"],
  }.items():
    more = [
      f"--gin.{flag}" for flag in [*values, f"OUTPUT_DIR={tmp_path / name}"]
    ]
    assert command.main([*sample, *more]) == 0
    cache = TokenCache(tmp_path / name)
    rows[name] = cache.read(range(len(cache)))
  prompts = {name: {row.prompt for row in rows[name]} for name in rows}
  assert len(rows["a"]) == len(rows["c"]) == 16
  assert len(prompts["d"]) == ROWS // 4
  assert prompts["a"] == prompts["c"] != prompts["b"]
  assert prompts["c"] < prompts["d"]
  texts = [[row.targets.tolist() for row in rows[name]] for name in "ac"]
  assert texts[0] != texts[1]


# What is wrong, and what the line must say of it.
MISTAKES = r"""
OUTPUT_DIR=
  OUTPUT_DIR is empty
INITIAL_CHECKPOINT_PATH=
  INITIAL_CHECKPOINT_PATH is empty
INITIAL_CHECKPOINT_PATH=/nowhere
  INITIAL_CHECKPOINT_PATH: there is no folder /nowhere
SAMPLING_TEMPERATURE=0.0; NUM_SAMPLES=1; SAMPLING_TOP_K=5
  SAMPLING_TOP_K has no effect: SAMPLING_TEMPERATURE is 0, which is greedy
BEAM_SIZE=4; SAMPLING_TEMPERATURE=0.5
  SAMPLING_TEMPERATURE has no effect: BEAM_SIZE is 4, and a beam search
TRAIN_SPLIT=test
  TRAIN_SPLIT has no effect: TRAIN_CACHE is given and holds its split
WRITER=me
  WRITER is 'me'; expected one of 'teacher'
TASK_FEATURE_LENGTHS={'inputs': 3, 'targets': 16}
  inputs length 3 is too short for the cache
TRAIN_CACHE={'a': 1, 'b': 2}
  TRAIN_CACHE is a mixture, which is for training; name one of its parts
STUDENT_MODEL=%TINY
  does not fit the model
BATCH_SIZE=6
  BATCH_SIZE 6 does not split into 4 copies of the model
MODEL_PARALLELISM=3
  MODEL_PARALLELISM 3 does not divide 4 devices; choose one of 1, 2, 4
"""


@pytest.mark.parametrize(("values", "message"), mistakes(MISTAKES))
def test_mistakes_are_one_line(
  values, message, sample, tmp_path, capsys, nothing_sampled
):
  assert message in error_of([*sample, *flags(values)], capsys)
  assert list(tmp_path.glob(".answers.partial")) == []


def test_prompts_of_another_vocabulary_are_refused(
  sample, tmp_path, capsys, nothing_sampled
):
  tiny_caches.numbered(tmp_path / "bytes", 4)
  other = [f"--gin.TRAIN_CACHE={tmp_path / 'bytes'}", "--gin.VOCABULARY=bytes"]
  size = ByteVocabulary().size
  line = error_of([*sample, *other], capsys)
  assert f"the student has 18 ids but VOCABULARY has {size}" in line


def test_a_search_writes_the_best_and_says_so(sample, tmp_path, capsys):
  search = [*sample, "--gin.BEAM_SIZE=3", "--gin.BEAM_ALPHA=0.5"]
  search.append("--gin.TRAIN_LIMIT=8")
  assert command.main(search) == 0
  assert " completions of 8 prompts in " in capsys.readouterr().out
  cache = TokenCache(tmp_path / "answers")
  by = cache.info["written_by"]
  assert (by["beam_size"], by["beam_alpha"], by["num_samples"]) == (3, 0.5, 2)
  assert len(cache) == 16 - by["missing"]
  assert command.main(["cache", "check", str(cache.path)]) == 0
  out = capsys.readouterr().out
  assert "targets written by the teacher, checkpoint " in out
  assert ", beams 3, alpha 0.5, 2 a prompt, " in out
  # Another RANDOM_SEED changes nothing in a search over the same prompts.
  again = [*search, "--gin.RANDOM_SEED=5", "--gin.SUBSET_SEED=0"]
  assert command.main(again) == 0
  assert "; complete, nothing to do" in capsys.readouterr().out


def test_training_reads_exactly_what_was_sampled(whole, tmp_path):
  """SeqKD: the targets of a batch are the model's, and are counted as such."""
  validation = tiny.make_cache(tmp_path / "e", split="validation")
  bindings = [
    f"TASK_FEATURE_LENGTHS={LENGTHS}",
    "TRAIN_LIMIT=None",
    f"TRAIN_CACHE={whole.path}",
    f"EVAL_CACHE={validation.path}",
    f"MODEL_DIR={tmp_path / 'seqkd'}",
    "TRAIN_STEPS=4",
    "REPORT_PERIOD=4",
  ]
  run = prepare("test/sft.gin", *bindings)
  data = f"data:      sums train, {2 * ROWS} rows, targets written by"
  assert data in run.describe()
  batch = run.loader.batch(0)
  assert (batch.source == Source.TEACHER).all()
  sampled = whole.read(batch.rows.tolist())
  for targets, row in zip(batch.targets, sampled, strict=True):
    assert targets[: len(row.targets)].tolist() == row.targets.tolist()
  flags = [f"--gin.{binding}" for binding in bindings]
  assert command.main(arguments("train", *flags, file="test/sft.gin")) == 0
  lines = (tmp_path / "seqkd" / "metrics.jsonl").read_text().splitlines()
  values = json.loads(lines[-1])
  assert values["train/loss/teacher"] > 0
  assert "train/loss/dataset" not in values


DECODER = {
  "family": "decoder_only",
  "vocab_size": 320,
  "emb_dim": 16,
  "num_layers": 1,
  "num_heads": 2,
  "num_kv_heads": 1,
  "head_dim": 8,
  "mlp_dim": 32,
  "eos_ids": (318,),
  "pad_id": 318,
}


def test_a_decoder_learns_from_the_text_of_a_t5_of_another_tokenizer(
  whole, tmp_path, capsys
):
  """The two commands of docs/data.md behind `gkd sample`."""
  pytest.importorskip("seqio")
  tokenizer, texts = tmp_path / "tokenizer", tmp_path / "answers.jsonl"
  tokenizer.mkdir()
  (tokenizer / "tokenizer.json").write_bytes(tiny_tokenizers.bpe_json())
  (tokenizer / "tokenizer_config.json").write_text(
    json.dumps(
      {"eos_token": "<|im_end|>", "chat_template": tiny_tokenizers.CHATML}
    )
  )
  export = ["cache", "export", str(whole.path), f"--output={texts}"]
  assert command.main(export) == 0
  out = capsys.readouterr().out
  assert "is there and not what this command can repl" in error_of(
    export, capsys
  )
  ended = [
    (row.prompt, whole.vocabulary.decode(row.targets))
    for row in whole.read(range(len(whole)))
    if row.targets[-1] == 1 and len(row.targets) > 1 and 2 not in row.targets
  ]
  assert 8 <= len(ended) < len(whole)
  assert f"{len(ended):,} of {len(whole)} completions of sums train as" in out
  questions = tmp_path / "validation.jsonl"
  questions.write_text('{"inputs": "12+30", "targets": "42"}\n')
  caches = tmp_path / "caches"
  run = prepare(
    "runs/sft.gin",
    cache_dir=caches,
    DATA_FILES={"train": str(texts), "validation": str(questions)},
    MIXTURE_OR_TASK_NAME="answers",
    TRAIN_SPLIT="train",
    EVAL_SPLIT="validation",
    VOCABULARY=tokenizer,
    TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 48},
    STUDENT_MODEL=DECODER,
    MODEL_DIR=tmp_path / "student",
    BATCH_SIZE=8,
    TRAIN_STEPS=1,
    LEARNING_RATE=1e-3,
    EVAL_PERIOD=0,
  )
  loop.train(dataclasses.replace(run, evaluations=()))  # compiles less
  assert tiny.lines(tmp_path / "student")[-1]["train/loss/dataset"] > 0
  (path,) = caches.glob("answers/train-*")
  rows = TokenCache(path).read(range(len(ended)))
  vocabulary = TokenCache(path).vocabulary
  for row, (prompt, text) in zip(rows, ended, strict=True):
    # The student's own turns and end, around the text of the teacher.
    turns = vocabulary.decode_prompt(row.inputs)
    assert turns.endswith(f"user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
    assert vocabulary.decode_prompt(row.targets) == f"{text}<|im_end|>"
