"""Runs kept by the trackers' own packages, without a server: `make parity`."""

import json

import jax
import pytest

from gkd.training import loop
from gkd.training import trackers
from tests.tiny import lines
from tests.tiny import make_run

pytestmark = pytest.mark.parity


def read_wandb(folder):
  """Numbers stand as text in the protobuf records of an offline run."""
  runs = sorted(folder.glob("wandb/offline-run-*"))
  names = {run.name.rpartition("-")[2] for run in runs}
  written = b"".join(x.read_bytes() for r in runs for x in r.glob("*.wandb"))

  def has(step, name, value):
    return name.encode() in written and repr(value).encode() in written

  tables = [json.loads(x.read_text()) for x in folder.rglob("*.table.json")]
  texts = [t["data"][0][t["columns"].index("text")] for t in tables]
  return names, has, texts, b"student_fraction" in written


def read_mlflow(folder):
  import mlflow

  client = mlflow.MlflowClient()
  (experiment,) = client.search_experiments(filter_string="name = 'gkd'")
  runs = client.search_runs([experiment.experiment_id])
  (run_id,) = names = {run.info.run_id for run in runs}
  assert {run.info.status for run in runs} == {"FINISHED"}

  def has(step, name, value):
    history = client.get_metric_history(run_id, name)
    return (step, value) in {(x.step, x.value) for x in history}

  samples = client.download_artifacts(run_id, "samples/step_00000002.jsonl")
  with open(samples) as file:
    texts = [json.loads(file.readline())["text"]]
  return names, has, texts, runs[0].data.params["rollout.student_fraction"]


def read_aim(folder):
  import aim
  from aim.storage.context import Context

  repo = aim.Repo(str(folder / "aim"))
  names = repo.list_all_runs()
  # Read-only, it would show what `aim up` has indexed, and so nothing.
  run = aim.Run(names[0], repo=repo, system_tracking_interval=None)
  metrics = {metric.name: metric for metric in run.metrics()}

  def has(step, name, value):
    return dict(metrics[name].data.items())[step][0] == value

  sequence = run.get_text_sequence("samples", Context({}))
  written = [rows[0].data for rows in sequence.values.sparse_list()[1]]
  texts = [text.partition("\n\n")[2] for text in written]
  return names, has, texts, run["config", "settings", "rollout"]


@pytest.fixture(autouse=True)
def _unoptimized():
  """What is read is what was written: programs compile as in `make test`."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
  ("make", "read"),
  [
    (lambda folder: trackers.WandB(), read_wandb),
    (lambda folder: trackers.MLflow(), read_mlflow),
    (lambda folder: trackers.Aim(repo=str(folder / "aim")), read_aim),
  ],
  ids=["wandb", "mlflow", "aim"],
)
def test_a_resumed_run_is_one_run_of_the_tracker(
  tmp_path, caches, monkeypatch, make, read
):
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_DIR", str(tmp_path))
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
  monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
  monkeypatch.chdir(tmp_path)  # of MLflow's artifacts
  (tmp_path / "aim").mkdir()
  for steps in (2, 4):
    run = make_run(
      tmp_path / "run",
      caches,
      tracker=make(tmp_path),
      train_steps=steps,
      sample=2,
    )
    loop.train(run)
  names, has, texts, config = read(tmp_path)
  assert len(names) == 1
  assert config
  for line in lines(tmp_path / "run"):
    for name in ("train/loss", "train/lambda"):
      assert has(line["step"], name, line[name]), (line["step"], name)
  dump = tmp_path / "run" / "samples" / "step_00000002.jsonl"
  assert json.loads(dump.read_text().splitlines()[0])["text"] in texts
