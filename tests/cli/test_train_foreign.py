"""Runs that start from T5X checkpoints and Hugging Face folders.

Teacher and student come from folders of those formats, the tokenizer too; the
student may be made of the teacher's layers.
"""

import dataclasses
import functools
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
from gkd.config import records
from gkd.config import setup
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import ByteVocabulary
from gkd.training import resume_check
from gkd.training import run_description
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.cli import command_lines
from tests.data import tiny_caches

EXTRA_IDS = 5
VOCABULARY = ByteVocabulary(EXTRA_IDS)
NUM_IDS = VOCABULARY.size  # 264
IDS = {"vocabulary_size": NUM_IDS}
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
  return {
    "TRAIN_CACHE": folder / "train",
    "EVAL_CACHE": folder / "validation",
    "TASK_FEATURE_LENGTHS": LENGTHS,
    "TRAIN_LIMIT": None,
    "EVAL_EXAMPLES": 8,
    "BATCH_SIZE": 8,
    "TRAIN_STEPS": 2,
    "CHECKPOINT_PERIOD": 1,
    "SAMPLE_PERIOD": 0,
  }


def write(path, *, to, vocabulary=VOCABULARY, seed=0, **changes):
  """A random model as a folder of a format; returns its parameters."""
  model = tiny_models.make(seed, **changes)
  scaled = {
    name: np.float32(0.1) * leaf.read() for name, leaf in model.leaves.items()
  }
  leaves = tiny_models.as_leaves(scaled)
  model = dataclasses.replace(model, leaves=leaves)
  saved = path.with_name(f"{path.name}_saved")
  saved.mkdir(parents=True)
  native_checkpoint.write(saved, model, vocabulary=vocabulary)
  if to == "gkd":
    saved.rename(path)
  else:
    tiny_models.convert(saved, path, to=to, step=7 if to == "t5x" else None)
  return trees.unflatten(scaled)


def write_both(root, **changes):
  """The teacher as a Hugging Face folder, the student as a T5X checkpoint."""
  teacher = {"vocab_size": TEACHER_ROWS, **IDS, **changes}
  student = {"vocab_size": STUDENT_ROWS, "num_encoder_layers": 1, **IDS}
  write(root / "teacher", to="hf", **teacher)
  write(root / "checkpoint_7", to="t5x", seed=1, **student | changes)
  return root


def macros_of(folders):
  return {
    "TEACHER_CHECKPOINT_PATH": folders / "teacher",
    "INITIAL_CHECKPOINT_PATH": folders / "checkpoint_7",
    "VOCABULARY": folders / "teacher",
    "STUDENT_MODEL": None,
    "TEACHER_MODEL": None,
  }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  return write_both(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
  """Models that are computed with: each layer adds to the time to compile."""
  folder = tmp_path_factory.mktemp("shallow")
  return write_both(folder, num_decoder_layers=1)


@pytest.fixture
def macros(tmp_path, caches, folders):
  return caches | {"MODEL_DIR": tmp_path / "run"} | macros_of(folders)


@pytest.fixture
def prepare(macros, caplog, tmp_path):
  caplog.set_level(logging.INFO, logger="gkd")
  return functools.partial(
    command_lines.prepare,
    "test/distill.gin",
    cache_dir=tmp_path / "cache",
    **macros,
  )


def test_a_run_from_foreign_folders_starts_trains_goes_on_and_leaves(
  macros, shallow, tmp_path, caplog, capsys
):
  caplog.set_level(logging.INFO, logger="gkd")
  train = command_lines.arguments(
    "train",
    f"--cache_dir={tmp_path / 'cache'}",
    file="test/distill.gin",
    **macros | macros_of(shallow),
  )
  assert command.main(train) == 0
  for part in (
    f"student {STUDENT_ROWS} rows, teacher {TEACHER_ROWS} rows for the same"
    f" {NUM_IDS} ids",
    "INITIAL_CHECKPOINT_PATH: the checkpoint brings no tokenizer",
    "NOT CHECKED",
  ):
    assert part in caplog.text
  run = tmp_path / "run"
  kept = tokenizer_folder.load(run)
  assert kept.spec() == VOCABULARY.spec()
  described = json.loads((run / "run.json").read_text())
  assert described["model"]["vocab_size"] == STUDENT_ROWS
  assert described["model"]["num_encoder_layers"] == 1
  card = described["card"]
  assert card["teacher"] == str(shallow / "teacher")
  assert card["initial"] == f"{shallow / 'checkpoint_7'}, step 7"
  assert card["steps"] == 2
  assert all(isinstance(value, str | int) for value in card.values())
  # One more step, and out again: a Hugging Face folder with its tokenizer.
  caplog.clear()
  assert command.main([*train, "--gin.TRAIN_STEPS=3"]) == 0
  assert "resuming after step 2" in caplog.text
  out = tmp_path / "out"
  convert = ["convert", str(run), str(out), "--to=hf", "--license=mit"]
  assert command.main(convert) == 0
  printed = capsys.readouterr().out
  assert "step 3" in printed
  assert f"written: {out}, a Hugging Face folder" in printed
  saved, exported = map(source.open_checkpoint, (run, out))
  tiny_models.assert_same_arrays(exported.leaves, saved.leaves)
  assert tokenizer_folder.load(out).spec() == VOCABULARY.spec()
  model_card = (out / "README.md").read_text("utf-8")
  for part in ('license: "mit"', "toy_validation/accuracy", "step 7"):
    assert part in model_card


def test_parameters_are_those_of_the_folders(prepare, folders):
  run = prepare()
  _, teacher = tiny_models.read(folders / "teacher")
  jax.tree.map(np.testing.assert_array_equal, run.teacher.params, teacher)
  _, student = tiny_models.read(folders / "checkpoint_7")
  jax.tree.map(np.testing.assert_array_equal, run.initial_params(), student)
  assert run.teacher.config.dropout_rate == 0.0


@pytest.mark.parametrize(("steps", "is_warned"), [(25, True), (7, False)])
def test_train_steps_that_may_count_those_of_t5x_are_warned_of(
  prepare, caplog, steps, is_warned
):
  """The checkpoint is of step 7, where T5X would go on to step 25."""
  prepare(f"TRAIN_STEPS={steps}")
  warnings = [x.message for x in caplog.records if x.levelname == "WARNING"]
  told = [text for text in warnings if "unlike T5X's" in text]
  assert len(told) == is_warned
  assert all("TRAIN_STEPS 25 " in text and "give 18" in text for text in told)


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
  data = records.DataConfig(task="toy", split="train", lengths=LENGTHS)
  chosen = setup._with_tokenizer(data, {}, run.folder)
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
  write(tmp_path / "other", to="hf", seed=3, vocab_size=STUDENT_ROWS, **IDS)
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


MISTAKES = r"""
EVERY_KTH_LAYER=3
  EVERY_KTH_LAYER is 3 for the encoder, which has 1 layers; give a
EVERY_KTH_LAYER=1
  EVERY_KTH_LAYER is 1, which takes all layers
EVERY_KTH_LAYER=0
  EVERY_KTH_LAYER is 0; give a number of at least
EVERY_KTH_LAYER=(2, 2, 2)
  is \(2, 2, 2\); give a number of
EVERY_KTH_LAYER=2; STUDENT_MODEL=T5_1_1_SMALL
  STUDENT_MODEL is given: the sizes follow
EVERY_KTH_LAYER=2; OPTIMIZER=adafactor; RESTORE_OPTIMIZER=True
  EVERY_KTH_LAYER is 2 and RESTORE_OPTIMIZER is True, .* leave RESTORE
KEEP_LAYERS=range(0,2)
  KEEP_LAYERS is 'range\(0,2\)', but the encoder has 1 layers; give
KEEP_LAYERS=0,1; EVERY_KTH_LAYER=2
  EVERY_KTH_LAYER is 2 and KEEP_LAYERS is given too; leave one of
INITIAL_CHECKPOINT_PATH=
  STUDENT_MODEL is None and there is no checkpoint .*give INITIAL_CHECKP
VOCABULARY=bytes
  was made with another vocabulary than VOCABULARY 'bytes'
EXTRA_IDS=7
  EXTRA_IDS has no effect: the tokenizer in .* has 5
VOCABULARY=..
  VOCABULARY '\.\.' is a folder without a tokenizer
TEACHER_CHECKPOINT_PATH=google/flan-t5-small
  TEACHER_CHECKPOINT_PATH: there is no folder google/flan-t5-small
"""


@pytest.mark.parametrize(
  ("values", "message"), command_lines.mistakes(MISTAKES)
)
def test_what_cannot_be_is_refused(prepare, values, message):
  with pytest.raises(UserError, match=message):
    prepare(*values)


def test_layers_of_a_random_student_are_refused():
  bindings = ["MODEL_DIR=run", "STUDENT_MODEL=None", "EVERY_KTH_LAYER=2"]
  with pytest.raises(UserError, match="starts from random weights; give INIT"):
    command_lines.train_config("test/sft.gin", *bindings)


def test_a_teacher_of_another_tokenizer_is_refused(prepare, tmp_path):
  size = {"vocab_size": 267, "vocabulary_size": 267}
  other = tmp_path / "other"
  write(other, to="hf", vocabulary=ByteVocabulary(8), **size)
  with pytest.raises(UserError) as refused:
    prepare(f"TEACHER_CHECKPOINT_PATH={other}")
  assert str(refused.value) == (
    f"TEACHER_CHECKPOINT_PATH {other} has another tokenizer than the data: 267"
    " ids (UTF-8 bytes, 267 ids of which 8 extra) against 264 (UTF-8 bytes, 264"
    " ids of which 5 extra); set VOCABULARY to the checkpoint's folder; a"
    " student of another tokenizer learns from the teacher's text: gkd sample,"
    " then gkd cache export (docs/data.md)"
  )


def test_a_table_that_is_too_narrow_is_refused(prepare, tmp_path):
  write(tmp_path / "narrow", to="gkd", vocabulary=None, vocab_size=100)
  with pytest.raises(
    UserError,
    match=r"teacher has 100 ids but VOCABULARY has 264, more than .*cache expo",
  ):
    prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'narrow'}")


def test_gkd_evaluate_and_sample_read_foreign_folders(
  caches, shallow, tmp_path
):
  cache_dir = f"--cache_dir={tmp_path}"
  common = {
    "TASK_FEATURE_LENGTHS": LENGTHS,
    "VOCABULARY": shallow / "teacher",
    "STUDENT_MODEL": None,
    "INITIAL_CHECKPOINT_PATH": shallow / "teacher",
  }
  evaluate = command_lines.arguments(
    "evaluate",
    cache_dir,
    **common,
    EVAL_CACHE=caches["EVAL_CACHE"],
    MODEL_DIR=tmp_path / "s",
    EVAL_TEMPERATURES=(1.0,),
    EVAL_EXAMPLES=8,
  )
  assert command.main(evaluate) == 0
  assert "accuracy" in (tmp_path / "s" / "metrics.json").read_text()
  sample = command_lines.arguments(
    "sample",
    cache_dir,
    **common,
    TRAIN_CACHE=caches["TRAIN_CACHE"],
    OUTPUT_DIR=tmp_path / "a",
    TRAIN_LIMIT=8,
    SAMPLING_TEMPERATURE=5.0,
  )
  assert command.main(sample) == 0
  # 272 rows, 264 ids: padded ids and PAD are never drawn.
  drawn = [
    int(token)
    for row in tiny_caches.TokenCache(tmp_path / "a").tokens(range(16))
    for token in row.targets
  ]
  assert len(drawn) > 30
  assert 0 < min(drawn) <= max(drawn) < NUM_IDS


def test_the_tokenizer_of_the_checkpoint_where_none_is_named(tmp_path):
  data = records.DataConfig(task="toy", split="train", lengths=LENGTHS)
  write(tmp_path / "model", to="gkd", vocab_size=STUDENT_ROWS, **IDS)
  named = {"student": source.open_checkpoint(tmp_path / "model")}
  chosen = setup._with_tokenizer(data, named, None)
  assert chosen.vocabulary == str(tmp_path / "model")
  own_choice = dataclasses.replace(data, vocabulary="bytes")
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
  with pytest.raises(UserError, match=r"with another vocabulary.*cache export"):
    prepare(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'old'}")


def test_a_given_size_is_not_looked_up(prepare):
  size = {**tiny_models.SIZE, "vocab_size": 266, "num_encoder_layers": 1, **IDS}
  student = prepare(f"STUDENT_MODEL={size}").student
  assert student.config.num_encoder_layers == 1
  silu = ("silu", "linear")
  other = {**size, "mlp_activations": silu}
  # T5X does not say them, a Hugging Face folder does.
  student = prepare(f"STUDENT_MODEL={other}").student
  assert student.config.mlp_activations == silu
  other |= {"vocab_size": 272, "num_encoder_layers": 2}
  message = r"TEACHER_MODEL has mlp_activations=.* was trained with"
  with pytest.raises(UserError, match=message):
    prepare(f"TEACHER_MODEL={other}")
  size["num_decoder_layers"] = 2
  run = prepare(f"STUDENT_MODEL={size}")
  with pytest.raises(UserError, match="does not fit the model"):
    run.initial_params()
