"""Whole or not at all, bit for bit there and back, and said beforehand."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints import expected_leaves
from gkd.checkpoints import source
from gkd.checkpoints.conversion import plan
from gkd.checkpoints.hf import safetensors_file
from gkd.checkpoints.native import native_arrays
from gkd.cli import convert_command as command
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.checkpoints.native import test_native_checkpoint

MADE = tiny_models.make(slots=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Ours, with slots and step 7."""
  return tiny_models.save(tmp_path_factory.mktemp("ours") / "model", MADE)


@pytest.fixture(scope="module")
def stepless(tmp_path_factory):
  made = dataclasses.replace(MADE, step=None, slots={})
  return tiny_models.save(tmp_path_factory.mktemp("ours") / "stepless", made)


def remarks(planned) -> str:
  return "\n".join(planned.remarks)


def left_in(folder):
  return sorted(entry.name for entry in folder.iterdir())


def assert_same_model(left, right):
  left, right = source.open_checkpoint(left), source.open_checkpoint(right)
  assert left.config == right.config
  tiny_models.assert_same_arrays(left.leaves, right.leaves)
  tiny_models.assert_same_arrays(left.slots, right.slots)
  assert left.step == right.step


@pytest.mark.parametrize(
  ("name", "layout", "step", "slots"),
  [
    ("t5_1_1_tiny", "legacy", 10, True),
    ("t5_1_0_tiny", "legacy", 10, True),
    ("t5_1_1_tiny", "orbax", 10, True),
    ("t5_1_1_scan_tiny", "legacy", 0, False),
  ],
)
def test_t5x_to_ours_and_back_is_the_same_files(
  tmp_path, t5x_checkpoint, name, layout, step, slots
):
  """Slots included: T5X itself could have written them."""
  saved = t5x_checkpoint(name, layout, step)
  ours, back = tmp_path / "ours", tmp_path / "back"
  tiny_models.convert(saved, ours, to="gkd", slots=slots)
  tiny_models.convert(ours, back, to="t5x", slots=slots)
  assert_same_model(saved, ours)
  assert_same_model(saved, back)
  assert left_in(tmp_path) == ["back", "ours"]
  written = tiny_models.files_of(back)
  wanted = tiny_models.files_of(t5x_checkpoint(name, "legacy", step))
  if not slots:  # those of stacked layers are left out, also in the index
    del written["checkpoint"], wanted["checkpoint"]
    wanted = {n: wanted[n] for n in wanted if n.startswith("target.")}
  assert written == wanted


@pytest.mark.parametrize("changes", [{}, {"bias_per_layer": True}])
def test_bfloat16_goes_through_t5x_unchanged_under_the_names_announced(
  tmp_path, changes
):
  made = tiny_models.make(dtype=tiny_models.BFLOAT16, **changes)
  ours, t5x, again = (tmp_path / name for name in ("ours", "t5x", "again"))
  tiny_models.save(ours, made)
  tiny_models.convert(ours, t5x, to="t5x")
  tiny_models.convert(t5x, again, to="gkd")
  assert_same_model(ours, again)
  tiny_models.assert_same_arrays(
    source.open_checkpoint(again).leaves, made.leaves
  )
  # T5X's folders, one an array; of stacked layers each is named once.
  announced = expected_leaves.table("t5x", made.config)
  metadata = {
    file.parent.name: tuple(tiny_models.read_json(file)["shape"])
    for file in t5x.glob("*/.zarray")
  }
  assert {n.partition("[")[0]: s for n, s in announced.values()} == metadata
  name = "encoder/layers_0/mlp/wo/kernel"
  assert expected_leaves.table("gkd", made.config)[name] == (name, (24, 16))


FAMILIES = {
  "t5_1_1": {},
  "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
  "ul2": {"mlp_activations": ("silu", "linear"), "dtype": tiny_models.BFLOAT16},
  "umt5": {"bias_per_layer": True},
  "umt5_tied": {"bias_per_layer": True, "logits_via_embedding": True},
  # Padding 1, end of sequence 2, start (and unknown) 0.
  "madlad": {"pad_id": 1, "eos_ids": (2,), "start_id": 0},
}


@pytest.fixture(scope="module")
def tokenizers(spiece_file, madlad_file):
  """MADLAD's and T5's special ids, 400 ids with T5's sentinels."""
  madlad = vocabulary.SentencePieceVocabulary(madlad_file, 100, pad_id=1)
  t5 = vocabulary.load(spiece_file, 100)
  return {name: madlad if name == "madlad" else t5 for name in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("through", ["gkd", "t5x"])
def test_hugging_face_through_another_format_is_the_same_files(
  tmp_path, tokenizers, family, through
):
  """All but the card, which says where the folder came from."""
  made = tiny_models.make(
    vocab_size=416, vocabulary_size=400, **FAMILIES[family]
  )
  first, middle, last = (tmp_path / name for name in ("hf", "middle", "back"))
  tiny_models.save(first, made, "hf", tokenizers[family])
  config = source.open_checkpoint(first).config
  assert config == made.config
  announced = dict(expected_leaves.table("hf", config).values())
  tensors = safetensors_file.open_folder(first)
  assert {n: leaf.shape for n, leaf in tensors.items()} == announced
  tiny_models.convert(first, middle, to=through)
  options = {}
  if through == "t5x":  # which does not say it
    fields = ("mlp_activations", "vocabulary_size", "pad_id", "eos_ids")
    given = {name: getattr(config, name) for name in fields}
    options = {"given": given, "tokenizer": first}
  tiny_models.convert(middle, last, to="hf", **options)
  written, wanted = map(tiny_models.files_of, (last, first))
  del written["README.md"], wanted["README.md"]
  assert "model.safetensors" in wanted
  assert written == wanted
  tiny_models.assert_same_arrays(
    source.open_checkpoint(last).leaves, made.leaves
  )


@pytest.mark.parametrize("to", ["gkd", "t5x", "hf"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
  small_disk, to, monkeypatch
):
  monkeypatch.setattr(conversion, "_check_space", lambda *_: None)
  # Orbax's threads would tell of their errors on top of ours.
  monkeypatch.setattr(native_arrays, "_BATCH_BYTES", 1)
  disk = small_disk("60k" if to != "gkd" else "400k")
  with pytest.raises(
    UserError, match=r"cannot write .*/out; nothing is left of it: .*space"
  ) as error:
    tiny_models.save(disk / "out", MADE, to)
  assert "\n" not in str(error.value)
  assert left_in(disk) == []


@pytest.mark.parametrize("to", ["gkd", "t5x", "hf"])
def test_what_cannot_fit_is_refused_before_it_is_begun(
  tmp_path, monkeypatch, to
):
  usage = shutil.disk_usage(tmp_path)._replace(free=16_000)
  monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: usage)
  with pytest.raises(UserError, match=r"would take at least .* MB are free"):
    tiny_models.save(tmp_path / "deep" / "out", MADE, to)
  assert left_in(tmp_path) == []


def test_a_card_that_is_not_written_and_its_own_source_are_refused(
  model, tmp_path
):
  with pytest.raises(UserError, match="--license has no effect: only a Hugg"):
    conversion.write(
      plan(model, to="gkd"), tmp_path / "a", card={"license": "mit"}
    )
  with pytest.raises(UserError, match=r"is in .*/model, the folder to convert"):
    conversion.write(plan(model, to="gkd"), model / "in")


def test_as_it_is_unless_asked_otherwise(model):
  planned = plan(model, to="gkd", slots=True)
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, MADE.leaves)
  tiny_models.assert_same_arrays(planned.checkpoint.slots, MADE.slots)
  assert planned.remarks == ("tokenizer: none is beside the source",)
  assert re.search("AutoTokenizer finds none", remarks(plan(model, to="hf")))


def test_types_are_rounded_to_nearest_or_exact_and_said(model, tmp_path):
  planned = plan(model, to="t5x", dtype="bfloat16")
  for name, leaf in MADE.leaves.items():
    bits = leaf.read().view(np.uint32)
    # To nearest, ties to even: what a bfloat16 keeps is the upper half.
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    cast = planned.checkpoint.leaves[name]
    assert cast.dtype == "bfloat16"
    np.testing.assert_array_equal(cast.read().view(np.uint16), kept)
  assert "float32 to bfloat16, which rounds to 8 of 24 bits" in remarks(planned)
  made = tiny_models.make(dtype=tiny_models.BFLOAT16)
  half = tiny_models.save(tmp_path / "half", made)
  planned = plan(half, to="t5x", dtype="float32")
  for name, leaf in made.leaves.items():
    bits = leaf.read().view(np.uint16).astype(np.uint32) << 16
    cast = planned.checkpoint.leaves[name].read()
    np.testing.assert_array_equal(cast.view(np.uint32), bits)
  assert "bfloat16 to float32, which is exact" in remarks(planned)
  assert plan(half, to="t5x", dtype="bfloat16").remarks == ()


def test_slots_are_kept_on_request_and_said_to_be_left_out(
  model, stepless, t5x_checkpoint
):
  assert plan(model, to="t5x", slots=True).checkpoint.slots
  planned = plan(model, to="t5x")
  assert planned.checkpoint.slots == {}
  assert "slots are left out; --slots keeps them" in remarks(planned)
  with pytest.raises(UserError, match=r"none to convert \(it has none\)"):
    plan(stepless, to="t5x", slots=True)
  folder = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  with pytest.raises(UserError, match=r"slots were asked.*stacked layers are"):
    plan(folder, to="gkd", slots=True)


def test_the_step_is_checked_or_told(model, stepless):
  assert plan(model, to="t5x", step=7).checkpoint.step == 7
  with pytest.raises(UserError, match=rf"^step {2**31}.*expected 0 "):
    plan(stepless, to="t5x", step=2**31)
  for to, step, remark in (
    ("t5x", None, "step: 0, since the source does not say one"),
    ("gkd", 9, "step: 9, as given"),
  ):
    planned = plan(stepless, to=to, step=step)
    assert planned.checkpoint.step == (step or 0)
    assert remark in remarks(planned)


@pytest.mark.parametrize("below", ["", "checkpoints/00000002"])
def test_of_a_run_the_number_of_the_folder_chooses(tmp_path, below):
  """What is written is the absolute step."""
  made = test_native_checkpoint.make_run(tmp_path)
  tiny_models.rewrite_json(tmp_path / "run.json", first_step=1_000_000)
  planned = plan(tmp_path / below, to="t5x", step=2)
  assert planned.checkpoint.step == 1_000_002
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made[2].leaves)
  with pytest.raises(UserError, match=r"no checkpoint of step 1000002; it has"):
    plan(tmp_path / below, to="t5x", step=1_000_002)


def test_a_tokenizer_that_t5x_does_not_keep_and_what_a_writer_would_refuse(
  tmp_path,
):
  """A dry run does not promise it."""
  made = tiny_models.make(
    slots=True,
    bias_per_layer=True,
    vocabulary_size=21,
    mlp_activations=("gelu", "gelu"),
  )
  words = vocabulary.load("characters:0123456789+=abcdef")
  folder = tiny_models.save(tmp_path / "model", made, vocabulary=words)
  remark = rf"tokenizer: T5X keeps none; characters.* stays in {folder}"
  assert re.search(remark, remarks(plan(folder, to="t5x")))
  with pytest.raises(UserError, match="has no tokenizer in transformers"):
    plan(folder, to="hf")
  with pytest.raises(UserError, match="has no T5 with the activations"):
    plan(folder, to="hf", tokenizer="none")
  with pytest.raises(UserError, match="which T5X factors differently"):
    plan(folder, to="t5x", slots=True)


@pytest.mark.parametrize(
  ("to", "options", "message"),
  [
    ("pt", {}, "to 'pt'; expected gkd, t5x, hf"),
    (
      "gkd",
      {"dtype": "float16"},
      "dtype 'float16'; expected float32 or bfloat",
    ),
    ("t5x", {"tokenizer": "x"}, "^--tokenizer=x has no effect: a T5X"),
    ("t5x", {"step": -4}, r"^step -4.*expected 0 "),
    ("t5x", {"step": 8}, r"step 8 was given, but .* is of step 7"),
    ("hf", {"slots": True, "tokenizer": "none"}, "^--slots has no effect: a"),
    ("hf", {"given": {"dtype": "bfloat16"}}, "dtype=.* no effect: a .* keep"),
    ("t5x", {"given": {"dtype": "bfloat16"}}, "dtype=.* no effect: a .* keep"),
    ("t5x", {"given": {"dropout_rate": 0.0}}, "^--set dropout_rate=0.0 has no"),
    ("t5x", {"given": {"vocabulary_size": 40}}, "size=40 has no effect: a T5X"),
  ],
)
def test_impossible_requests_are_one_line(model, to, options, message):
  with pytest.raises(UserError, match=message) as error:
    plan(model, to=to, **options)
  assert "\n" not in str(error.value)


def test_a_field_that_is_not_given_and_no_tokenizer_are_no_request(model):
  given = {"dtype": None, "dropout_rate": None}
  assert plan(model, to="t5x", given=given).vocabulary is None
  assert plan(model, to="hf", given=given, tokenizer="none").vocabulary is None


def test_what_t5x_does_not_keep_comes_back_as_it_is_told(golden, tmp_path):
  folder = tmp_path / "hf"
  shutil.copytree(golden / "hf" / "t5_1_1_bfloat16", folder)
  tiny_models.rewrite_json(
    folder / "config.json",
    feed_forward_proj="gated-silu",
    dense_act_fn="silu",
    layer_norm_epsilon=1e-5,
    relative_attention_max_distance=64,
    dropout_rate=0.0,
    eos_token_id=2,
  )
  tiny_models.rewrite_json(folder / "generation_config.json", eos_token_id=2)
  first = tiny_models.convert(folder, tmp_path / "t5x", to="t5x")
  remark = plan(folder, to="t5x").remarks[-1]
  assert remark.startswith("config: T5X keeps none, and this one is not T5's")
  given = command.parse_fields(re.findall(r"--set (\S+)", remark))
  assert {"mlp_activations", "layer_norm_epsilon", "dropout_rate"} <= set(given)
  last = tiny_models.convert(
    tmp_path / "t5x", tmp_path / "back", to="hf", given=given, tokenizer="none"
  )
  assert source.open_checkpoint(tmp_path / "back").config == last.config
  assert last.config == first.config
  assert (last.config.layer_norm_epsilon, given["dropout_rate"]) == (1e-5, 0.0)
  # T5's own is not told.
  plain = plan(golden / "hf" / "t5_1_0", to="t5x")
  assert "config:" not in remarks(plain)
