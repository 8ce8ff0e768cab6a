"""The loop ends in the same state however it got there, and needs no TF."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.evaluation.decode import Evaluation
from gkd.losses import divergence
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.sampling.filters import Decoding
from gkd.text.arithmetic import CHARACTERS
from gkd.text.arithmetic import ChainAddition
from gkd.text.vocabulary import CharacterVocabulary
from gkd.training import loop
from gkd.training.optimizer import Optimizer
from gkd.training.rollout import Rollout
from gkd.types import UserError

LENGTHS = {"inputs": 8, "targets": 16}
VOCABULARY = CharacterVocabulary(CHARACTERS)
STUDENT = t5.encoder_decoder(
  t5.T5Config(
    vocab_size=VOCABULARY.size + 2,
    vocabulary_size=VOCABULARY.size,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=16,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.1,
  )
)
TEACHER = t5.encoder_decoder(
  dataclasses.replace(STUDENT.config, emb_dim=24, dropout_rate=0.0)
)
STEPS = 6


def make_cache(path, *, targets=True, rows=40, split="train"):
  chains = ChainAddition(min_terms=2, max_terms=2, digits=2)
  made = []
  for problem in chains.problems(split, rows):
    ids = [
      np.asarray(VOCABULARY.encode(text) + [1], np.int32)
      for text in (problem.inputs, problem.targets)
    ]
    target = ids[1] if targets else ids[1][:0]
    made.append(Row(ids[0], target, problem.inputs, problem.answer))
  info = {
    "task": "sums",
    "split": split,
    "lengths": LENGTHS,
    "vocabulary": VOCABULARY,
    "postprocess": "gkd.text.postprocess:chain_answer",
    "metrics": ["gkd.text.metrics:accuracy"],
  }
  return TokenCache(write_rows(path, made, info))


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  return {
    "train": make_cache(folder / "train"),
    "prompts": make_cache(folder / "prompts", targets=False),
    "validation": make_cache(folder / "validation", rows=8, split="validation"),
  }


def make_run(folder, caches, **changes) -> loop.Run:
  fields = {
    "model_dir": str(folder),
    "student": STUDENT,
    "student_params": STUDENT.init(jax.random.key(0)),
    "teacher": TEACHER,
    "teacher_params": TEACHER.init(jax.random.key(1)),
    "objective": Distillation(divergence.GeneralizedJSD(0.5)),
    "rollout": Rollout(student_fraction=0.5),
    "optimizer": Optimizer(
      name="adamw", learning_rate=1e-2, total_steps=STEPS, warmup_steps=2
    ),
    "loader": Loader(caches["train"], batch_size=8, lengths=LENGTHS, seed=0),
    "train_steps": STEPS,
    "seed": 3,
    "report_period": 1,
    "eval_period": 0,
    "checkpoint_period": 2,
  }
  return loop.Run(**(fields | changes))


def records(folder) -> list[dict]:
  """metrics.jsonl without what depends on the clock or the process."""
  lines = (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()
  volatile = ("time/", "compile/", "memory/")
  return [
    {k: v for k, v in json.loads(x).items() if not k.startswith(volatile)}
    for x in lines
  ]


def assert_identical(actual, expected):
  jax.tree.map(
    np.testing.assert_array_equal, *jax.device_get((actual, expected))
  )


@pytest.fixture(scope="module")
def straight(tmp_path_factory, caches):
  folder = tmp_path_factory.mktemp("straight")
  return loop.train(make_run(folder, caches)), folder


def test_stopped_and_resumed_run_is_bit_identical(tmp_path, caches, straight):
  class Stop(Exception):
    pass

  def stop(step, values):
    if step == 5:  # after the checkpoint of step 4: step 5 is done twice
      raise Stop

  run = make_run(tmp_path, caches)
  with pytest.raises(Stop):
    loop.train(run, listener=stop)
  resumed = loop.train(run)
  assert_identical(resumed, straight[0])
  assert records(tmp_path) == records(straight[1])
  assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
  both = {record["train/lambda"] for record in records(tmp_path)}
  assert both == {0.0, 1.0}  # λ = 0.5: both kinds of steps were resumed


def test_evaluation_leaves_training_as_it_is(tmp_path, caches, straight):
  evaluation = Evaluation(
    name="sums",
    split="validation",
    cache=caches["validation"],
    lengths=LENGTHS,
    decoding=Decoding(temperature=1.0),
    batch_size=8,
  )
  run = make_run(
    tmp_path,
    caches,
    evaluations=(evaluation,),
    eval_period=2,
    evaluate_first=True,
    sample_period=3,
  )
  assert_identical(loop.train(run), straight[0])
  evaluated = [r for r in records(tmp_path) if "eval/sums/accuracy" in r]
  assert [record["step"] for record in evaluated] == [0, 2, 4, 6]
  assert {"eval/sums/forward_kl", "eval/sums/reverse_kl"} <= evaluated[0].keys()


def test_every_promised_number_and_file_is_written(tmp_path, caches):
  run = make_run(
    tmp_path,
    caches,
    rollout=Rollout(student_fraction=1.0),
    sample_period=6,
    config_text="# a config\n",
  )
  loop.train(run)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  names = set(json.loads(lines[-1]))
  train = (
    "loss loss/student forward_kl reverse_kl student_entropy teacher_entropy"
    " agreement lambda sampled_length eos_rate truncation_rate learning_rate"
    " grad_norm param_norm"
  )
  expected = {f"train/{name}" for name in train.split()}
  expected |= {f"time/{x}_seconds" for x in ("data", "sample", "update")}
  expected |= {"time/tokens_per_second", "compile/count", "memory/peak_bytes"}
  assert expected <= names
  assert (tmp_path / "config.gin").read_text() == "# a config\n"
  info = (tmp_path / "model-info.txt").read_text()
  assert "encoder/layers_0/attention/query/kernel" in info
  sample = (tmp_path / "samples" / "step_00000006.jsonl").read_text()
  row = json.loads(sample.splitlines()[0])
  assert row["source"] == "student"
  assert row["teacher_log_prob"] < 0
  assert row["prompt"].endswith("=")


def test_prompts_without_targets_train_only_on_policy(tmp_path, caches):
  loader = Loader(caches["prompts"], batch_size=8, lengths=LENGTHS, seed=0)
  with pytest.raises(UserError, match="prompts only") as error:
    make_run(tmp_path, caches, loader=loader)
  assert "\n" not in str(error.value)
  run = make_run(
    tmp_path,
    caches,
    loader=loader,
    rollout=Rollout(student_fraction=1.0),
    train_steps=2,
  )
  loop.train(run)
  assert all(record["train/lambda"] == 1 for record in records(tmp_path))


def test_a_step_that_is_not_finite_stops_the_run(tmp_path, caches):
  broken = jax.tree.map(lambda x: x * np.nan, TEACHER.init(jax.random.key(1)))
  run = make_run(tmp_path, caches, teacher_params=broken)
  with pytest.raises(FloatingPointError, match=r"step 0: .* LEARNING_RATE"):
    loop.train(run)
  assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"micro_batches": 3}, "does not split into 3 micro-batches"),
    ({"teacher": None}, "there is none"),
    ({"report_period": 0}, "report_period is 0"),
  ],
)
def test_impossible_runs_are_refused(changes, message, tmp_path, caches):
  with pytest.raises(UserError, match=message) as error:
    make_run(tmp_path, caches, **changes)
  assert "\n" not in str(error.value)


def test_objective_is_said_in_words(tmp_path, caches):
  words = make_run(tmp_path, caches).words
  assert "p = teacher at temperature 1" in words
  assert "λ = 0.5" in words
  sft = make_run(
    tmp_path,
    caches,
    objective=CrossEntropy(),
    teacher=None,
    teacher_params=None,
    rollout=None,
  )
  assert "cross-entropy" in sft.words


def test_trains_and_evaluates_where_tensorflow_cannot_be_imported(
  tmp_path, caches
):
  """A child process whose imports of the data side and of torch raise."""
  del caches
  script = """
    import sys

    # None makes an import raise and the module look absent.
    blocked = ("tensorflow", "seqio", "torch", "tensorflow_datasets", "t5")
    sys.modules.update(dict.fromkeys(blocked))
    import pathlib
    sys.path.insert(0, "tests/training")
    import test_loop

    folder = pathlib.Path(sys.argv[1])
    caches = {"train": test_loop.make_cache(folder / "cache")}
    evaluation = test_loop.Evaluation(
      name="sums", split="train", cache=caches["train"],
      lengths=test_loop.LENGTHS, decoding=test_loop.Decoding(temperature=0.0),
      batch_size=8, num_examples=8)
    run = test_loop.make_run(
      folder / "run", caches, evaluations=(evaluation,), train_steps=2)
    test_loop.loop.train(run)
    assert not any(name.startswith("tensorflow.") for name in sys.modules)
  """
  subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
    env=os.environ | {"PYTHONPATH": "."},
  )
  assert "eval/sums/accuracy" in records(tmp_path / "run")[-1]


def test_importing_the_loop_is_light():
  """At most 2 s of CPU time over jax, flax and optax; the median of three."""
  script = """
    import time
    import jax, flax, optax
    start = time.process_time()
    import gkd.training.loop
    print(time.process_time() - start)
  """
  seconds = []
  for _ in range(3):
    done = subprocess.run(
      [sys.executable, "-c", textwrap.dedent(script)],
      check=True,
      capture_output=True,
      text=True,
      cwd=pathlib.Path(__file__).parents[2],
      env=os.environ | {"PYTHONPATH": "."},
    )
    seconds.append(float(done.stdout))
  assert sorted(seconds)[1] < 2.0
