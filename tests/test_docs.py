"""What README and docs/ show works as it stands, in folders of the test."""

import gzip
import itertools
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest

from gkd.checkpoints.hf import hf_folder
from gkd.cli import main as command
from gkd.data.cache import TokenCache
from gkd.text import vocabulary
from tests.checkpoints import tiny_models

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
_BLOCK = re.compile(r"^```(?:\w*)\n(.*?)^```$", re.M | re.S)
COMMANDS = _BLOCK.findall(README)
BLOCKS = [block for page in PAGES.values() for block in _BLOCK.findall(page)]
# Where the README's commands write.
FOLDER = "/tmp/gkd"


def commands(block: str) -> list[list[str]]:
  """The arguments of each `gkd …` of a block."""
  lines = block.replace("\\\n", " ").splitlines()
  return [shlex.split(line)[1:] for line in lines if line.startswith("gkd ")]


def files(folder: pathlib.Path, *names: str) -> None:
  """Writes the blocks that begin with `# NAME` as files of that name."""
  for name in names:
    (text,) = [b for b in BLOCKS if b.startswith(f"# {name}\n")]
    (folder / name).write_text(text, "utf-8")


CHAINS = [commands(b) for b in COMMANDS if "--gin_file=test/" in b]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
  """Folder in which the README's chain of commands was run."""
  folder = tmp_path_factory.mktemp("readme")
  caches = str(folder / "caches")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("GKD_CACHE_DIR", caches)
    for arguments in itertools.chain(*CHAINS):
      moved = [a.replace(FOLDER, str(folder / "gkd")) for a in arguments]
      assert command.main(moved) == 0, moved
  return folder


def test_chain_of_commands_runs_as_written(chain):
  (words,) = [[arguments[0] for arguments in block] for block in CHAINS]
  assert words == ["train", "train", "evaluate", "report"]
  runs = chain / "gkd"
  for run in ("teacher", "student"):
    lines = (runs / run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 20
    # The README's list of what a run leaves.
    for name in (
      "config.gin",
      "model-info.txt",
      "tensorboard",
      "checkpoints",
      "predictions",
    ):
      assert (runs / run / name).exists(), name
  assert (runs / "student" / "samples").exists()
  assert json.loads((runs / "scores" / "metrics.json").read_text())
  page = (runs / "report.html").read_text("utf-8")
  assert "student" in page
  assert "teacher" in page


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
  """The working folder of somebody who follows the README."""
  monkeypatch.chdir(tmp_path)
  # As `python -m gkd` has it.
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setenv("GKD_CACHE_DIR", str(tmp_path / "caches"))
  yield tmp_path
  for name in ("capitals", "hellinger"):
    sys.modules.pop(name, None)


def test_own_data_becomes_a_cache(own_folder):
  files(own_folder, "capitals.py", "capitals.gin")
  folder = own_folder / "data" / "capitals"
  folder.mkdir(parents=True)
  line = {"country": "Peru", "city": "Lima"}
  (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
  line = {"country": "Chad", "city": "N'Djamena"}
  with gzip.open(folder / "dev.jsonl.gz", "wt") as file:
    file.write(json.dumps(line) + "\n")
  flags = ["--gin_file=capitals.gin", "--data_dir=data"]
  assert f"cache make {' '.join(flags)}" in PAGES[ROOT / "docs" / "data.md"]
  assert command.main(["cache", "make", *flags]) == 0
  paths = sorted((own_folder / "caches" / "capitals").glob("[!.]*"))
  rows = {}
  for cache in map(TokenCache, paths):
    (row,) = cache.read(range(len(cache)))
    rows[cache.info["split"]] = row.prompt, row.reference
  assert rows == {
    "train": ("capital of Peru?", "Lima"),
    "validation": ("capital of Chad?", "N'Djamena"),
  }


def test_own_files_become_a_teacher_and_a_student(own_folder):
  files(own_folder, "cities.gin")
  (own_folder / "data").mkdir()
  syllables = ["".join(pair) for pair in itertools.product("bdfgkl", "aeiou")]
  names = list(map("".join, itertools.permutations(syllables, 2)))[:400]
  rows = list(zip(names[::2], names[1::2], strict=True))
  text = "country,city\n" + "".join(f"{a},{b}\n" for a, b in rows[:-9])
  (own_folder / "data" / "cities.csv").write_text(text)
  lines = [json.dumps({"country": a, "city": b}) for a, b in rows[-9:]]
  (own_folder / "data" / "more.jsonl").write_text("\n".join(lines))
  (block,) = [commands(b) for b in BLOCKS if "--gin_file=cities.gin" in b]
  less = ["--gin.TRAIN_STEPS=2", "--gin.EVAL_EXAMPLES=4"]
  for arguments in block:
    arguments += less * (arguments[0] == "train")
    assert command.main(arguments) == 0, arguments
  scores = json.loads((own_folder / "student/metrics.jsonl").read_text()
                      .splitlines()[-1])  # fmt: skip
  assert "eval/cities/exact_match" in scores
  assert "exact match" in (own_folder / "report.html").read_text("utf-8")


def test_own_divergence_is_right_and_trains(own_folder, chain):
  files(own_folder, "hellinger.py", "hellinger.gin")
  import hellinger

  rng = np.random.default_rng(0)
  p, q = rng.dirichlet(np.ones(7), size=(2, 3))
  p[0, 2] = q[1, 4] = 0  # log-probabilities of −inf
  with np.errstate(divide="ignore"):
    log_p, log_q = np.log(p), np.log(q)
  found = hellinger.Hellinger()(log_p, log_q)
  expected = 0.5 * np.square(np.sqrt(p) - np.sqrt(q)).sum(axis=-1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  arguments = [
    "train",
    "--gin_file=test/distill.gin",
    "--gin_file=hellinger.gin",
    f"--gin.MODEL_DIR={own_folder / 'run'}",
    f"--gin.TEACHER_CHECKPOINT_PATH={chain / 'gkd' / 'teacher'}",
    "--gin.TRAIN_STEPS=2",
    "--gin.EVAL_EXAMPLES=8",
    f"--cache_dir={chain / 'caches'}",
  ]
  assert command.main(arguments) == 0
  text = (own_folder / "run" / "config.gin").read_text()
  assert "DIVERGENCE = @hellinger.Hellinger()" in text
  line = (own_folder / "run" / "metrics.jsonl").read_text().splitlines()[-1]
  assert 0 < json.loads(line)["train/loss"] < 1


def test_three_commands_bring_a_t5_in_and_out(own_folder):
  """From Hugging Face folders to a distilled one, on small random models."""
  (own_folder / "data").mkdir()
  byt5 = vocabulary.load("bytes", 125)
  for name, width in (("flan-t5-base", 24), ("flan-t5-small", 16)):
    (own_folder / name).mkdir()
    model = tiny_models.make(
      vocab_size=384, emb_dim=width, num_encoder_layers=1, num_decoder_layers=1
    )
    hf_folder.write(own_folder / name, model, vocabulary=byt5)
  (block,) = [commands(b) for b in COMMANDS if "--to=gkd --dry_run" in b]
  look, train, export = block
  # The settings that are other than the README's; the last of a flag counts.
  train = [
    x.replace("tasks/gsm8k.gin", "tasks/chain_addition.gin") for x in train
  ]
  train += [
    "--gin.BATCH_SIZE=4",
    "--gin.TRAIN_STEPS=2",
    "--gin.TRAIN_LIMIT=8",
    "--gin.EVAL_EXAMPLES=4",
    "--gin.EVAL_BATCH_SIZE=4",
  ]
  for arguments in (look, train, export):
    assert command.main(arguments) == 0, arguments
  config, params = tiny_models.read(own_folder / "student")
  assert (config.emb_dim, config.vocabulary_size) == (16, 384)
  before = tiny_models.read(own_folder / "flan-t5-small")[1]
  table = params["token_embedder"]["embedding"]
  assert not np.array_equal(table, before["token_embedder"]["embedding"])
  card = (own_folder / "student" / "README.md").read_text("utf-8")
  assert 'license: "apache-2.0"' in card
  assert "| Teacher | flan-t5-base |" in card


def test_python_program_runs_and_the_notebook_is_the_same(own_folder):
  files(own_folder, "sums.py")
  program = (own_folder / "sums.py").read_text("utf-8")
  cells = json.loads((ROOT / "docs/quickstart.ipynb").read_text("utf-8"))[
    "cells"
  ]
  code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
  assert "\n\n\n".join(code) == program.rstrip()
  names: dict = {}
  exec(compile(program, "sums.py", "exec"), names)
  assert names["student"].path == "runs/student"
  (text,) = names["gkd"].generate(names["student"], ["12+34="])
  assert isinstance(text, str)
  scores = names["gkd"].evaluate(
    names["student"],
    names["common"]["evaluations"][0],
    teacher=names["teacher"],
  )
  assert {"eval/sums/accuracy", "eval/sums/reverse_kl"} <= scores.keys()


def test_pages_are_short_and_their_links_lead_somewhere():
  assert len(README.encode()) <= 9000
  for path, page in {ROOT / "README.md": README, **PAGES}.items():
    for link in re.findall(r"\]\(([^)#]+)\)", page):
      if "://" not in link:
        assert (path.parent / link).exists(), (path.name, link)
