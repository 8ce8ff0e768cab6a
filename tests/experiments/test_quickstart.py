"""Stages are done once, and only for what they were made with."""

import argparse
import types

import numpy as np
import pytest

from gkd.checkpoints import source
from gkd.config import command_records
from gkd.config import configuration
from gkd.experiments.quickstart import pipeline
from gkd.experiments.quickstart import result_rows
from gkd.experiments.quickstart.stages import Stages
from gkd.types import UserError
from tests.report import example_runs


def test_a_stage_is_done_again_only_where_it_failed(tmp_path):
  calls = []

  def fail_once():
    calls.append(1)
    if len(calls) == 1:
      raise KeyboardInterrupt

  def run():
    stages = Stages(tmp_path, "made with this", num_stages=1)
    stages.run("sft", "…", fail_once)
    return stages.total_seconds

  with pytest.raises(KeyboardInterrupt):
    run()
  cut = tmp_path / "stages" / "sft.cut"
  assert "seconds" in cut.read_text()
  cut.write_text('{"seconds": 1000}')
  assert 1000 < run() < 1010  # of both starts
  run()
  assert len(calls) == 2


def test_a_folder_of_another_teacher_or_configuration_is_refused(tmp_path):
  Stages(tmp_path, "made with this", num_stages=1)
  with pytest.raises(UserError, match="another configuration") as error:
    Stages(tmp_path, "made with that", num_stages=1)
  assert "\n" not in str(error.value)


def test_a_folder_with_results_of_something_else_is_refused(tmp_path):
  (tmp_path / "results.json").write_text("{}")
  with pytest.raises(UserError, match=r"holds results\.json, which"):
    Stages(tmp_path, "made with this", num_stages=1)
  assert [f.name for f in tmp_path.iterdir()] == ["results.json"]


def test_a_seed_that_is_none_is_refused_before_the_first(tmp_path):
  args = argparse.Namespace(seeds=[0, -1], output=str(tmp_path / "out"))
  with pytest.raises(UserError, match="RANDOM_SEED is -1; give 0 to"):
    pipeline.main(args)
  assert not list(tmp_path.iterdir())


def test_the_digest_depends_on_the_teacher_and_on_every_gin_file(
  tmp_path, monkeypatch
):
  folder = tmp_path / "configs"
  folder.mkdir()
  (folder / "a.gin").write_text("X = 1")
  monkeypatch.setattr(configuration, "config_folder", lambda: folder)
  first = pipeline._made_with(False)
  assert first == pipeline._made_with(False)
  assert first != pipeline._made_with(True)
  (folder / "a.gin").write_text("X = 2")
  assert first != pipeline._made_with(False)


def test_time_counts_the_stages_of_this_call_only(tmp_path):
  Stages(tmp_path, "x", 1).run("seed_1-sft", "…", lambda: None)
  (tmp_path / "stages" / "seed_1-sft.json").write_text('{"seconds": 1000}')
  stages = Stages(tmp_path, "x", 1)
  stages.run("seed_0-sft", "…", lambda: None)
  assert stages.total_seconds < 100


def test_every_method_has_a_configuration_that_can_be_built():
  folder = configuration.config_folder() / pipeline.CONFIGS
  for method in (pipeline.TEACHER_ROW, pipeline.STUDENT, *pipeline.METHODS):
    assert (folder / f"{method.run}.gin").is_file(), method


def test_all_arms_get_equal_updates_on_equal_batches():
  """Only what an arm is about may differ between the methods."""
  seen = []
  for method in pipeline.METHODS:
    unused = ["MODEL_DIR=x", "INITIAL_CHECKPOINT_PATH=x"]
    if method.distils:
      unused.append("TEACHER_CHECKPOINT_PATH=x")
    file = f"{pipeline.CONFIGS}/{method.run}.gin"
    configuration.load([file], unused)
    built = configuration.build(command_records.TrainConfig)
    seen.append((built.train_steps, built.batch_size, built.optimizer))
  assert len(set(seen)) == 1


def test_a_row_says_what_the_run_was_and_what_it_scored(tmp_path):
  scores, trained = tmp_path / "scores" / "gkd_on_policy", tmp_path / "run"
  values, infos = {}, {}
  for metric, label, value in (
    ("accuracy", "", 62.0),
    ("accuracy", "t1", 45.0),
    ("forward_kl", "", 1.4),
    ("reverse_kl", "", 5.6),
  ):
    name = f"eval/quickstart/{metric}_{label}"
    values[name] = value
    infos[name] = {"metric": metric, "label": label, "task": "quickstart"}
  example_runs.write(scores, values=values, infos=infos)
  seconds = {"data": 1.0, "sample": 2.0, "update": 3.0, "evaluate": 50.0}
  times = {f"time/{phase}_seconds": x for phase, x in seconds.items()}
  lines = [{"step": step, **times} for step in (50, 100)]
  settings = {
    "rollout": {"student_fraction": 1.0},
    "objective": {"divergence": {"type": "ForwardKL"}},
  }
  example_runs.write(trained, lines, about={"settings": settings})
  row = result_rows.row("gkd_on_policy", "none", 3, trained, scores)
  assert row == {
    "method": "gkd_on_policy",
    "run": "gkd_on_policy",
    "labels": "none",
    "seed": 3,
    "lambda": 1.0,
    "divergence": "ForwardKL",
    "accuracy_greedy": 62.0,
    "accuracy_sampled": 45.0,
    "forward_kl": 1.4,
    "reverse_kl": 5.6,
    "train_seconds": 12.0,
    "updates": 100,
  }
  other = row | {"labels": "a much longer kind of labels than the others"}
  first, second = result_rows.text([row, other], "test").splitlines()[3:5]
  assert first.index("62.0") == second.index("62.0")
  assert len(first) == len(second)


def test_the_shipped_teacher_is_small_and_whole():
  files = [file for file in pipeline.TEACHER.rglob("*") if file.is_file()]
  assert sum(file.stat().st_size for file in files) < 2e6
  checkpoint = source.open_checkpoint(pipeline.TEACHER)
  assert checkpoint.config.emb_dim == 64
  assert checkpoint.metadata["vocabulary_sha256"]


def test_a_teacher_made_anew_is_compared_with_the_one_that_comes_along(
  monkeypatch,
):
  def opened(value):
    leaf = types.SimpleNamespace(read=lambda: np.full(3, value))
    return types.SimpleNamespace(leaves={"kernel": leaf})

  monkeypatch.setattr(source, "open_checkpoint", opened)
  assert "bit for bit" in pipeline._compare(1.0, 1.0)
  assert "at most 0.5" in pipeline._compare(1.5, 1.0)


def test_the_command_in_the_results_can_be_typed():
  args = types.SimpleNamespace(seeds=[0, 1], split="test", train_teacher=True)
  assert pipeline._command(args) == (
    "gkd quickstart --seeds 0 1 --split=test --train_teacher"
  )
