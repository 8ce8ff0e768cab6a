"""`gkd convert` from the shell: what it prints, refuses and writes."""

import re

import pytest

from gkd.checkpoints import source
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import convert_command
from gkd.cli import main as command
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("commands") / "model"
  folder.mkdir()
  checkpoint = tiny_models.make(slots=True, vocabulary_size=21)
  tokenizer = vocabulary.load("characters:0123456789+=abcdef")
  native_checkpoint.write(folder, checkpoint, vocabulary=tokenizer)
  return folder


@pytest.fixture
def gkd(capsys):
  """`gkd(…)`: exit code, standard output, the lines of standard error."""

  def run(*arguments):
    code = command.main(["convert", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()

  return run


def test_it_says_what_it_found_assumed_and_wrote(gkd, t5x_checkpoint, tmp_path):
  folder = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  code, out, errors = gkd(folder, tmp_path / "a", "--to=gkd")
  assert (code, errors) == (0, [])
  for part in (
    f"{folder}: T5X, msgpack and zarr",
    "T5 1.1 of width 32, 2 + 2 layers, 2 heads of 16, MLP 48 (51.71k param",
    "float32, 0.2 MB, step 10",
    "  assumed mlp_activations: gelu and linear",
    "  optimizer: its slots are left out; --slots keeps them",
    "  tokenizer: none is beside the source",
    f"written: {tmp_path}/a, a model of gkd",
  ):
    assert part in out
  assert source.open_checkpoint(tmp_path / "a").step == 10


def test_what_is_given_is_not_assumed(gkd, t5x_checkpoint, tmp_path):
  folder = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  code, out, _ = gkd(
    folder,
    tmp_path / "a",
    "--to=gkd",
    "--set=mlp_activations=silu,linear",
    "--set=vocabulary_size=100",
    "--set=relative_max_distance=64",
    "--set=layer_norm_epsilon=1e-5",
    "--set=dropout_rate=0.0",
    "--dtype=bfloat16",
    "--slots",
  )
  assert code == 0
  assert "assumed" not in out
  assert "UL2-style" in out
  assert "dtype: float32 to bfloat16, which rounds" in out
  opened = source.open_checkpoint(tmp_path / "a")
  assert opened.config.mlp_activations == ("silu", "linear")
  assert (opened.config.vocabulary_size, opened.config.dropout_rate) == (
    100,
    0.0,
  )
  assert {leaf.dtype for leaf in opened.leaves.values()} == {"bfloat16"}
  assert {leaf.dtype for leaf in opened.slots.values()} == {"float32"}


def test_a_dry_run_lists_every_array_and_writes_nothing(gkd, model, tmp_path):
  for arguments in ([], [tmp_path / "a"]):
    code, out, errors = gkd(model, *arguments, "--to=t5x", "--dry_run")
    assert (code, errors) == (0, [])
    rows = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    listed = {row[0]: row[1:] for row in rows if len(row) == 4}
    checkpoint = tiny_models.make()
    assert listed.pop("source") == ["destination", "shape", "type"]
    assert listed == {
      name: [
        "target." + name.replace("/", "."),
        str(leaf.shape).replace(" ", ""),
        "float32",
      ]
      for name, leaf in checkpoint.leaves.items()
    }
    count = sum(leaf.read().size for leaf in checkpoint.leaves.values())
    total = (
      f"{len(checkpoint.leaves)} arrays, {count:,} parameters, {4 * count:,} b"
    )
    assert total in out
    assert out.endswith("nothing was written (--dry_run)\n")
  assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_stacked_layers(gkd, t5x_checkpoint):
  folder = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  _, out, _ = gkd(folder, "--to=gkd", "--dry_run")
  stacked = r"target\.encoder\.encoder\.mlp\.wo\.kernel\[:, 1\] +"
  assert re.search(stacked + r"encoder/layers_1/mlp/wo/kernel +\(48,32\)", out)
  assert "optimizer: left out, because slots of stacked layers" in out


def test_a_dry_run_shows_slots(gkd, model):
  _, out, _ = gkd(model, "--to=gkd", "--dry_run", "--slots")
  assert "\nslot v_row/token_embedder/embedding" in out
  assert "with Adafactor's slots" in out


def test_the_tokenizer_goes_along(gkd, model, tmp_path):
  code, out, _ = gkd(model, tmp_path / "a", "--to=gkd")
  assert (code, "tokenizer: characters" in out) == (0, True)
  spec = tmp_path / "a" / "vocabulary" / "vocabulary.json"
  assert vocabulary.load(spec).size == 21
  code, out, _ = gkd(model, tmp_path / "b", "--to=gkd", "--tokenizer=none")
  assert (code, "left out, as was asked" in out) == (0, True)
  assert not (tmp_path / "b" / "vocabulary").exists()


def test_a_name_that_t5x_does_not_find_is_said(gkd, model, tmp_path):
  _, out, _ = gkd(model, tmp_path / "a", "--to=t5x")
  assert "when it is called checkpoint_<step>" in out
  _, out, _ = gkd(model, tmp_path / "checkpoint_7", "--to=t5x")
  assert "checkpoint_<step>" not in out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--to=gkd"], "gkd convert needs a folder to write: gkd convert SRC DST"),
    (["{out}", "--to=gkd", "--license=mit"], "--license has no effect: only a"),
    (["{out}", "--to=gkd", "--set=emb_dim"], "--set emb_dim: expected NAME=V"),
    (["{out}", "--to=gkd", "--set=width=3"], "expected NAME=VALUE with a fiel"),
    (["{out}", "--to=gkd", "--set=emb_dim=None"], "expected NAME=VALUE with"),
    (["{out}", "--to=gkd", "--set=dropout_rate=nan"], "rate is 'nan'; expect"),
    (["{out}", "--to=gkd", "--set=emb_dim=8"], "emb_dim=8 was given, but"),
    (["{out}", "--to=gkd", "--step=8"], "step 8 was given, but"),
    (["{model}", "--to=gkd"], "exists and nothing is replaced"),
    (["{out}", "--to=t5x", "--tokenizer=x"], "has no effect: a T5X check"),
    (["{out}", "--to=gkd", "--tokenizer=/no/x"], "/no/x' cannot be read"),
    (["{out}", "--to=gkd", "--gin.STEPS=1"], "takes no gin values"),
  ],
)
def test_mistakes_are_one_line_and_exit_code_2(
  gkd, model, tmp_path, arguments, message
):
  named = {"out": tmp_path / "out", "model": model}
  code, _, errors = gkd(model, *(text.format(**named) for text in arguments))
  assert (code, len(errors)) == (2, 1)
  assert message in errors[0]
  assert list(tmp_path.iterdir()) == []


def test_a_field_given_twice_is_refused():
  with pytest.raises(UserError, match="--set head_dim is given twice"):
    convert_command.parse_fields(["head_dim=1", "head_dim=2"])
  assert convert_command.parse_fields(["dtype=bfloat16", "head_dim=8"]) == {
    "dtype": "bfloat16",
    "head_dim": 8,
  }


def test_fields_of_every_family_with_sizes_can_be_set():
  texts = ["relative_buckets=8", "rope_theta=5.0"]
  assert convert_command.parse_fields(texts) == {
    "relative_buckets": 8,
    "rope_theta": 5.0,
  }


def test_ctrl_c_says_that_nothing_is_left(gkd, model, tmp_path, monkeypatch):
  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(native_checkpoint, "write", interrupt)
  code, _, errors = gkd(model, tmp_path / "out", "--to=gkd")
  assert (code, len(errors)) == (130, 1)
  assert f"nothing is left at {tmp_path}/out" in errors[0]
  assert list(tmp_path.iterdir()) == []
