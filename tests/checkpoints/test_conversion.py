"""Whole or not at all, and bit for bit there and back."""

import os
import shutil
import subprocess

import ml_dtypes
import pytest
import sentencepiece

from gkd.checkpoints import conversion
from gkd.checkpoints import source
from gkd.checkpoints import stored_names
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.native import native_checkpoint
from gkd.text import sentencepiece_training
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("converting") / "model"
  folder.mkdir()
  native_checkpoint.write(folder, tiny_models.make(slots=True))
  return folder


def left_in(folder):
  return sorted(entry.name for entry in folder.iterdir())


def assert_same_model(left, right):
  left, right = source.open_checkpoint(left), source.open_checkpoint(right)
  assert left.config == right.config
  tiny_models.assert_same_arrays(left.leaves, right.leaves)
  tiny_models.assert_same_arrays(left.slots, right.slots)
  assert left.step == right.step


@pytest.mark.parametrize(
  ("name", "layout", "slots"),
  [
    ("t5_1_1_tiny", "legacy", True),
    ("t5_1_0_tiny", "legacy", True),
    ("t5_1_1_tiny", "orbax", True),
    ("t5_1_1_scan_tiny", "legacy", False),
  ],
)
def test_t5x_to_ours_and_back_is_the_same_files(
  tmp_path, t5x_checkpoint, name, layout, slots
):
  """Slots included: T5X itself could have written them."""
  step = 0 if "scan" in name else 10
  saved = t5x_checkpoint(name, layout, step)
  ours, back = tmp_path / "ours", tmp_path / "back"
  conversion.convert(saved, ours, to="gkd", slots=slots)
  conversion.convert(ours, back, to="t5x", slots=slots)
  assert_same_model(saved, ours)
  assert_same_model(saved, back)
  assert left_in(tmp_path) == ["back", "ours"]
  found = tiny_models.files_of(back)
  wanted = tiny_models.files_of(t5x_checkpoint(name, "legacy", step))
  if not slots:  # those of stacked layers are left out, also in the index
    del found["checkpoint"], wanted["checkpoint"]
    wanted = {n: wanted[n] for n in wanted if n.startswith("target.")}
  assert found == wanted


@pytest.mark.parametrize("changes", [{}, {"bias_per_layer": True}])
def test_bfloat16_goes_through_t5x_unchanged_under_the_names_announced(
  tmp_path, changes
):
  made = tiny_models.make(dtype=ml_dtypes.bfloat16, **changes)
  ours, t5x, again = (tmp_path / name for name in ("ours", "t5x", "again"))
  ours.mkdir()
  native_checkpoint.write(ours, made)
  conversion.convert(ours, t5x, to="t5x")
  conversion.convert(t5x, again, to="gkd")
  assert_same_model(ours, again)
  tiny_models.assert_same_arrays(
    source.open_checkpoint(again).leaves, made.leaves
  )
  # T5X's folders, one an array; of stacked layers each is named once.
  announced = stored_names.table("t5x", made.config)
  metadata = {
    file.parent.name: tuple(tiny_models.read_json(file)["shape"])
    for file in t5x.glob("*/.zarray")
  }
  assert {n.partition("[")[0]: s for n, s in announced.values()} == metadata
  name = "encoder/layers_0/mlp/wo/kernel"
  assert stored_names.table("gkd", made.config)[name] == (name, (24, 16))


FAMILIES = {
  "t5_1_1": {},
  "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
  "ul2": {"mlp_activations": ("silu", "linear")},
  "umt5": {"bias_per_layer": True},
  # Padding 1, end of sequence 2, start (and unknown) 0.
  "madlad": {"pad_id": 1, "eos_ids": (2,), "start_id": 0},
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
  """MADLAD's and T5's special ids, 400 ids with T5's sentinels."""
  folder = tmp_path_factory.mktemp("words")
  texts = [f"{n} + {n * 7} = {n * 8}" for n in range(200)]
  sentencepiece_training.train_sentencepiece(
    texts, 300, folder / "spiece.model"
  )
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_prefix=str(folder / "madlad"),
    vocab_size=300,
    byte_fallback=True,
    minloglevel=2,
  )
  content = (folder / "madlad.model").read_bytes()
  madlad = vocabulary.SentencePieceVocabulary(
    "spiece.model", 100, content, pad_id=1
  )
  t5 = vocabulary.load(folder / "spiece.model", 100)
  return {name: madlad if name == "madlad" else t5 for name in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("through", ["gkd", "t5x"])
def test_hugging_face_through_another_format_is_the_same_files(
  tmp_path, tokenizers, family, through
):
  """All but the card, which says where the folder came from."""
  dtype = ml_dtypes.bfloat16 if family == "ul2" else "float32"
  made = tiny_models.make(
    dtype=dtype, vocab_size=416, vocabulary_size=400, **FAMILIES[family]
  )
  first, middle, last = (tmp_path / name for name in ("hf", "middle", "back"))
  first.mkdir()
  hf_folder.write(first, made, vocabulary=tokenizers[family])
  config = source.open_checkpoint(first).config
  assert config == made.config
  # What T5X does not say, and what Hugging Face does not.
  given = {"mlp_activations": config.mlp_activations, "vocabulary_size": 400}
  given |= {"pad_id": config.pad_id, "eos_ids": config.eos_ids}
  conversion.convert(first, middle, to=through)
  conversion.convert(
    middle,
    last,
    to="hf",
    given=given if through == "t5x" else None,
    tokenizer=first if through == "t5x" else None,
  )
  found, wanted = map(tiny_models.files_of, (last, first))
  del found["README.md"], wanted["README.md"]
  assert "model.safetensors" in wanted
  assert found == wanted
  tiny_models.assert_same_arrays(
    source.open_checkpoint(last).leaves, made.leaves
  )


@pytest.fixture
def small_disk(tmp_path):
  """`small_disk("64k")`: a folder with a file system of its own."""
  folder = tmp_path / "disk"
  folder.mkdir()

  def mount(size):
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
    if (
      os.geteuid()
      or subprocess.run([*command, str(folder)], check=False).returncode
    ):
      pytest.skip("a small disk: only root may mount one")
    return folder

  yield mount
  subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.mark.parametrize("to", ["gkd", "t5x", "hf"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
  model, small_disk, to, monkeypatch
):
  monkeypatch.setattr(conversion, "_check_space", lambda *_: None)
  # Orbax's threads would tell of their errors on top of ours.
  monkeypatch.setattr(native_arrays, "_BATCH_BYTES", 1)
  disk = small_disk("60k" if to != "gkd" else "400k")
  options = {"slots": to == "gkd", "tokenizer": "none" if to == "hf" else None}
  with pytest.raises(
    UserError, match=r"cannot write .*/out; nothing is left of it .*space"
  ) as error:
    conversion.convert(model, disk / "out", to=to, **options)
  assert "\n" not in str(error.value)
  assert left_in(disk) == []


def test_what_is_refused_before_it_is_begun(model, tmp_path, monkeypatch):
  """Nothing is left there; see test_atomic_dir."""
  with pytest.raises(UserError, match="license: only a Hugging Face folder"):
    conversion.convert(model, tmp_path / "a", to="gkd", card={"license": "mit"})
  with pytest.raises(UserError, match=r"is in .*/model, the folder to convert"):
    conversion.convert(model, model / "out", to="gkd")
  usage = shutil.disk_usage(tmp_path)._replace(free=16_000)
  monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: usage)
  for to in ("gkd", "t5x", "hf"):
    tokenizer = "none" if to == "hf" else None
    with pytest.raises(UserError, match=r"would take at least .* MB are free"):
      conversion.convert(
        model, tmp_path / "deep" / "out", to=to, tokenizer=tokenizer
      )
  assert left_in(tmp_path) == []
