"""Buckets that are given where a path is expected."""

import pytest

from tests.cli.command_lines import error_of

SFT = "train --gin_file=test/sft.gin --gin.MODEL_DIR=run"


@pytest.mark.parametrize(
  "command",
  [
    "train --gin_file=test/sft.gin --gin.MODEL_DIR=gs://b/c",
    f"{SFT} --gin.TRAIN_CACHE=gs://b/c",
    f"{SFT} --gin.EVAL_CACHE=gs://b/c --gin.TRAIN_CACHE=x",
    f"{SFT} --data_dir=gs://b/c",
    f"{SFT} --cache_dir=gs://b/c",
    f"{SFT} --compile_cache=gs://b/c",
    f"{SFT} --gin.VOCABULARY=gs://b/c",
    "evaluate --gin_file=test/evaluate.gin --gin.MODEL_DIR=gs://b/c"
    " --gin.INITIAL_CHECKPOINT_PATH=x",
    "sample --gin_file=test/sample.gin --gin.OUTPUT_DIR=gs://b/c"
    " --gin.INITIAL_CHECKPOINT_PATH=x",
    "cache vocabulary --gin_file=test/sft.gin --size=9 --output=gs://b/c",
    "cache check gs://b/c",
    "cache export gs://b/c --output=x.jsonl",
    "report gs://b/c",
    "report x --output=gs://b/c",
    "grid test/grid.toml --output=gs://b/c",
    "quickstart --output=gs://b/c",
  ],
)
def test_a_bucket_is_refused_and_no_folder_of_its_name_is_made(
  command, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  message = error_of(command.split(), capsys)
  assert "gs://b/c is no path of a file system; mount the bucket" in message
  assert message.endswith("such as /mnt/b/c")
  assert not list(tmp_path.iterdir())
