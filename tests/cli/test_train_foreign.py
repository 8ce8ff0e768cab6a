"""Runs that start from T5X checkpoints and Hugging Face folders.

Teacher and student come from folders of those formats, the tokenizer too; the
student may be made of the teacher's layers.
"""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import main as command
from gkd.cli import train_command
from gkd.config import command_records
from gkd.config import configuration
from gkd.config import records
from gkd.config import setup
from gkd.config.records import Folders
from gkd.models import t5
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import ByteVocabulary
from gkd.training import resume_check
from gkd.training import run_description
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.data import tiny_caches

EXTRA_IDS = 5
VOCABULARY = ByteVocabulary(EXTRA_IDS)
NUM_IDS = VOCABULARY.size  # 264
TEACHER_ROWS, STUDENT_ROWS = 272, 266
LENGTHS = tiny_caches.LENGTHS


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  for split, first in (("train", 10), ("validation", 20)):
    rows = [
      tiny_caches.Row([first, 3 + i], [30 + i, 1], f"{split} {i}", "1")
      for i in range(40)
    ]
    tiny_caches.write(
      folder / split,
      rows,
      task=f"toy_{split}",
      vocabulary=VOCABULARY,
      metrics=["gkd.text.metrics:accuracy"],
    )
  return [
    f"TRAIN_CACHE={folder / 'train'}",
    f"EVAL_CACHE={folder / 'validation'}",
    f"TASK_FEATURE_LENGTHS={LENGTHS}",
    "TRAIN_LIMIT=None",
    "EVAL_EXAMPLES=8",
    "BATCH_SIZE=8",
    "TRAIN_STEPS=2",
    "CHECKPOINT_PERIOD=1",
    "SAMPLE_PERIOD=0",
  ]


def write(path, *, to, vocabulary=VOCABULARY, seed=0, **changes):
  """A random model as a folder of a format; returns its parameters."""
  made = tiny_models.make(seed, **changes)
  scaled = {
    name: np.float32(0.1) * leaf.read() for name, leaf in made.leaves.items()
  }
  saved = path.with_name(f"{path.name}_saved")
  saved.mkdir(parents=True)
  model = tiny_models.Checkpoint(
    path=path,
    format="gkd",
    layout="made by a test",
    config=made.config,
    leaves=tiny_models.as_leaves(scaled),
  )
  native_checkpoint.write(saved, model, vocabulary=vocabulary)
  if to == "gkd":
    saved.rename(path)
  else:
    tiny_models.convert(saved, path, to=to, step=7 if to == "t5x" else None)
  return trees.unflatten(scaled)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """The teacher as a Hugging Face folder, the student as a T5X checkpoint."""
  root = tmp_path_factory.mktemp("models")
  size = {"vocab_size": TEACHER_ROWS, "vocabulary_size": NUM_IDS}
  write(root / "teacher", to="hf", **size)
  size = {"vocab_size": STUDENT_ROWS, "vocabulary_size": NUM_IDS}
  write(root / "checkpoint_7", to="t5x", seed=1, num_encoder_layers=1, **size)
  return root


@pytest.fixture
def given(tmp_path, caches, folders):
  return [
    *caches,
    f"MODEL_DIR={tmp_path / 'run'}",
    f"TEACHER_CHECKPOINT_PATH={folders / 'teacher'}",
    f"INITIAL_CHECKPOINT_PATH={folders / 'checkpoint_7'}",
    f"VOCABULARY={folders / 'teacher'}",
    "STUDENT_MODEL=None",
    "TEACHER_MODEL=None",
  ]


@pytest.fixture
def prepare(given, caplog, tmp_path):
  caplog.set_level(logging.INFO, logger="gkd")

  def prepare(*bindings):
    configuration.load(["test/distill.gin"], [*given, *bindings])
    built = configuration.build(command_records.TrainConfig)
    return train_command.prepare(built, Folders("", str(tmp_path / "cache")))

  return prepare


def test_a_run_from_foreign_folders_starts_trains_goes_on_and_leaves(
  prepare, given, folders, tmp_path, capsys, caplog
):
  cache_dir = f"--cache_dir={tmp_path / 'cache'}"
  arguments = ["--gin_file=test/distill.gin", cache_dir]
  arguments += [f"--gin.{binding}" for binding in given]
  assert command.main(["train", *arguments]) == 0
  said = caplog.text
  assert (
    f"student {STUDENT_ROWS} rows, teacher {TEACHER_ROWS} rows for the same"
    f" {NUM_IDS} ids"
  ) in said
  assert "INITIAL_CHECKPOINT_PATH: the checkpoint brings no tokenizer" in said
  assert "NOT CHECKED" in said
  run = tmp_path / "run"
  kept = tokenizer_folder.load(run)
  assert kept.spec() == VOCABULARY.spec()
  described = json.loads((run / "run.json").read_text())
  assert described["model"]["vocab_size"] == STUDENT_ROWS
  assert described["model"]["num_encoder_layers"] == 1
  card = described["card"]
  assert card["teacher"] == str(folders / "teacher")
  assert card["initial"] == f"{folders / 'checkpoint_7'}, step 7"
  assert card["steps"] == 2
  assert all(isinstance(value, str | int) for value in card.values())
  # One more step, and out again: a Hugging Face folder with its tokenizer.
  caplog.clear()
  assert command.main(["train", *arguments, "--gin.TRAIN_STEPS=3"]) == 0
  assert "resuming after step 2" in caplog.text
  tiny_models.convert(run, tmp_path / "out", to="hf")
  assert tokenizer_folder.load(tmp_path / "out").spec() == VOCABULARY.spec()


def test_parameters_are_those_of_the_folders(prepare, folders):
  run = prepare()
  _, teacher = tiny_models.read(folders / "teacher")
  jax.tree.map(np.testing.assert_array_equal, run.teacher.params, teacher)
  _, student = tiny_models.read(folders / "checkpoint_7")
  jax.tree.map(np.testing.assert_array_equal, run.initial_params(), student)
  assert run.teacher.config.dropout_rate == 0.0


def test_dropout_and_dtype_are_those_of_the_run(prepare):
  config = prepare("DROPOUT_RATE=0.25", "DTYPE=bfloat16").student.config
  assert (config.dropout_rate, config.dtype) == (0.25, "bfloat16")


def test_a_model_is_known_by_its_content_and_nothing_is_copied(
  prepare, folders, tmp_path
):
  """The Hugging Face folder counts as the saved model that it came from."""
  first = run_description.describe(prepare())["contents"]
  assert not list((tmp_path / "cache").glob("models/*"))
  saved = f"TEACHER_CHECKPOINT_PATH={folders / 'teacher_saved'}"
  assert run_description.describe(prepare(saved))["contents"] == first


def begin(run):
  """The folder of a run as its first checkpoint finds it."""
  (run.folder / "checkpoints" / "00000001").mkdir(parents=True)
  run_description.write(run, run_description.describe(run), resumed=False)


def test_a_run_goes_on_without_its_first_student(
  prepare, tmp_path, folders, caplog
):
  begin(prepare())
  gone = f"INITIAL_CHECKPOINT_PATH={tmp_path / 'gone'}"
  run = prepare(gone)
  assert "goes on without it" in caplog.text
  assert run.student.config.num_encoder_layers == 1
  assert run.student.config.vocab_size == STUDENT_ROWS
  # Nor without the tokenizer that it brought.
  built = configuration.build(command_records.TrainConfig)
  data = dataclasses.replace(built.data, cache="", vocabulary="")
  built = dataclasses.replace(built, data=data)
  chosen = setup._with_tokenizer(built.data, {}, run.folder)
  assert chosen.vocabulary == str(run.folder)
  assert tokenizer_folder.load(run.folder).spec() == VOCABULARY.spec()


def test_a_run_goes_on_where_its_first_student_cannot_be_read(
  prepare, monkeypatch, caplog
):
  def damaged(checkpoint):
    if checkpoint.config.num_encoder_layers == 1:  # the student's
      raise UserError("damaged checkpoint")
    return ""

  monkeypatch.setattr(Checkpoint, "content_sha256", property(damaged))
  with pytest.raises(UserError, match="damaged checkpoint"):
    prepare()
  monkeypatch.undo()
  begin(prepare())
  monkeypatch.setattr(Checkpoint, "content_sha256", property(damaged))
  assert not prepare().student.content_sha256
  assert "damaged checkpoint; the run goes on without" in caplog.text


def test_another_first_student_is_refused_when_a_run_goes_on(prepare, tmp_path):
  begin(prepare())
  size = {"vocab_size": STUDENT_ROWS, "vocabulary_size": NUM_IDS}
  write(tmp_path / "other", to="hf", seed=3, **size)
  run = prepare(f"INITIAL_CHECKPOINT_PATH={tmp_path / 'other'}")
  with pytest.raises(UserError, match="content of the initial checkpoint: "):
    resume_check.changes(run, run_description.describe(run))


def test_every_second_layer_of_the_teacher(prepare, folders, caplog):
  run = prepare("INITIAL_CHECKPOINT_PATH=", "EVERY_KTH_LAYER=(1, 2)")
  config = run.student.config
  assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)
  params = trees.flatten(run.initial_params())
  _, teacher = tiny_models.read(folders / "teacher")
  teacher = trees.flatten(teacher)
  assert "encoder layers 0, 1 of 2, decoder layers 0, 2 of 3" in caplog.text
  mlp = "mlp/wo/kernel"
  for mine, theirs in (
    ("encoder/layers_1", "encoder/layers_1"),
    ("decoder/layers_1", "decoder/layers_2"),
  ):
    np.testing.assert_array_equal(
      params[f"{mine}/{mlp}"], teacher[f"{theirs}/{mlp}"]
    )
  card = run.about["card"]
  assert card["initial"] == (
    "layers 0, k, 2k, … of the teacher, k = 1 (encoder) and 2 (decoder)"
  )


@pytest.mark.parametrize(
  ("bindings", "message"),
  [
    (
      ["EVERY_KTH_LAYER=3"],
      r"EVERY_KTH_LAYER is 3 for the encoder, which has 1 layers; give a",
    ),
    (["EVERY_KTH_LAYER=1"], r"EVERY_KTH_LAYER is 1, which takes all layers"),
    (["EVERY_KTH_LAYER=0"], r"EVERY_KTH_LAYER is 0; give a number of at least"),
    (["EVERY_KTH_LAYER=(2, 2, 2)"], r"is \(2, 2, 2\); give a number of"),
    (
      ["EVERY_KTH_LAYER=2", "STUDENT_MODEL={'vocab_size': 266}"],
      r"STUDENT_MODEL is given: the sizes follow",
    ),
    (
      ["EVERY_KTH_LAYER=2", "OPTIMIZER=adafactor", "RESTORE_OPTIMIZER=True"],
      r"EVERY_KTH_LAYER is 2 and RESTORE_OPTIMIZER is True, .* leave RESTORE",
    ),
    (
      ["INITIAL_CHECKPOINT_PATH="],
      r"STUDENT_MODEL is None and there is no checkpoint .*give INITIAL_CHECKP",
    ),
    (
      ["VOCABULARY=bytes"],
      r"was made with another vocabulary than VOCABULARY 'bytes'",
    ),
    (["EXTRA_IDS=7"], r"EXTRA_IDS has no effect: the tokenizer in .* has 5"),
    (["VOCABULARY=.."], r"VOCABULARY '\.\.' is a folder without a tokenizer"),
    (
      ["TEACHER_CHECKPOINT_PATH=google/flan-t5-small"],
      r"TEACHER_CHECKPOINT_PATH: there is no folder google/flan-t5-small",
    ),
  ],
)
def test_what_cannot_be_is_refused(prepare, bindings, message):
  with pytest.raises(UserError, match=message):
    prepare(*bindings)


def test_layers_of_a_random_student_are_refused(given):
  bindings = [b for b in given if not b.startswith("TEACHER_")]
  configuration.load(
    ["test/sft.gin"],
    [*bindings, "INITIAL_CHECKPOINT_PATH=", "EVERY_KTH_LAYER=2"],
  )
  with pytest.raises(UserError, match="starts from random weights; give INIT"):
    configuration.build(command_records.TrainConfig)


def test_a_teacher_of_another_tokenizer_is_refused(prepare, tmp_path):
  size = {"vocab_size": 267, "vocabulary_size": 267}
  write(tmp_path / "other", to="hf", vocabulary=ByteVocabulary(8), **size)
  with pytest.raises(
    UserError, match=r"TEACHER_CHECKPOINT_PATH .* has another tokenizer than"
  ):
    prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'other'}")


def test_a_table_that_is_too_narrow_is_refused(prepare, tmp_path):
  write(tmp_path / "narrow", to="gkd", vocabulary=None, vocab_size=100)
  with pytest.raises(
    UserError, match=r"teacher has 100 ids but VOCABULARY has 264, more than"
  ):
    prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'narrow'}")


def test_gkd_evaluate_and_sample_read_foreign_folders(given, folders, tmp_path):
  cache_dir = f"--cache_dir={tmp_path}"
  names = ("EVAL_CACHE", "TASK_FEATURE", "VOCABULARY", "STUDENT_MODEL")
  common = [f"--gin.{b}" for b in given if b.startswith(names)]
  model = f"--gin.INITIAL_CHECKPOINT_PATH={folders / 'teacher'}"
  scores = ["--gin_file=test/evaluate.gin", f"--gin.MODEL_DIR={tmp_path / 's'}"]
  scores += ["--gin.EVAL_TEMPERATURES=(1.0,)", "--gin.EVAL_EXAMPLES=8"]
  assert command.main(["evaluate", *scores, *common, model, cache_dir]) == 0
  assert "accuracy" in (tmp_path / "s" / "metrics.json").read_text()
  names = ("TRAIN_CACHE", "TASK_FEATURE", "VOCABULARY", "STUDENT_MODEL")
  common = [f"--gin.{b}" for b in given if b.startswith(names)]
  answers = ["--gin_file=test/sample.gin", f"--gin.OUTPUT_DIR={tmp_path / 'a'}"]
  answers += ["--gin.TRAIN_LIMIT=8", "--gin.SAMPLING_TEMPERATURE=5.0"]
  assert command.main(["sample", *answers, *common, model, cache_dir]) == 0
  # 272 rows, 264 ids: padded ids and PAD are never drawn.
  drawn = [
    int(token)
    for row in tiny_caches.TokenCache(tmp_path / "a").tokens(range(16))
    for token in row.targets
  ]
  assert len(drawn) > 30
  assert 0 < min(drawn) <= max(drawn) < NUM_IDS


def test_the_tokenizer_of_the_checkpoint_where_none_is_named(
  prepare, caches, tmp_path
):
  data = records.DataConfig(task="toy", split="train", lengths=LENGTHS)
  write(
    tmp_path / "model",
    to="gkd",
    vocab_size=STUDENT_ROWS,
    vocabulary_size=NUM_IDS,
  )
  named = {"student": source.open_checkpoint(tmp_path / "model")}
  chosen = setup._with_tokenizer(data, named, None)
  assert chosen.vocabulary == str(tmp_path / "model")
  own_choice = records.DataConfig(
    task="toy", split="train", lengths=LENGTHS, vocabulary="bytes"
  )
  assert setup._with_tokenizer(own_choice, named, None) is own_choice


def test_rows_of_a_table_are_not_taken_for_ids(prepare, tmp_path, caplog):
  """A model that does not know its real ids has those of the data."""
  params = write(
    tmp_path / "plain", to="gkd", vocabulary=None, vocab_size=TEACHER_ROWS
  )
  run = prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'plain'}")
  assert run.teacher.lm.vocabulary_size == NUM_IDS
  assert "264 of the 272 rows are real ids, as the data's" in caplog.text
  tiny_models.save_params(
    tmp_path / "old", params, {"vocabulary_sha256": "0" * 64}
  )
  with pytest.raises(UserError, match="was trained with another vocabulary"):
    prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'old'}")


def test_a_given_size_is_not_looked_up(prepare):
  config = t5.T5Config.from_size(
    tiny_models.SIZE, vocab_size=266, vocabulary_size=264, num_encoder_layers=1
  )
  size = {**tiny_models.SIZE, "vocab_size": 266, "vocabulary_size": 264}
  size |= {"num_encoder_layers": 1}
  student = prepare(f"STUDENT_MODEL={size}").student
  assert student.config.num_encoder_layers == config.num_encoder_layers
  other = {**size, "mlp_activations": ("silu", "linear")}
  # T5X does not say them, a Hugging Face folder does.
  assert prepare(f"STUDENT_MODEL={other}").student.config.mlp_activations == (
    "silu",
    "linear",
  )
  other |= {"vocab_size": 272, "num_encoder_layers": 2}
  with pytest.raises(
    UserError, match=r"TEACHER_MODEL has mlp_activations=.* was trained with"
  ):
    prepare(f"TEACHER_MODEL={other}")
  size["num_decoder_layers"] = 2
  run = prepare(f"STUDENT_MODEL={size}")
  with pytest.raises(UserError, match="does not fit the model"):
    run.initial_params()
