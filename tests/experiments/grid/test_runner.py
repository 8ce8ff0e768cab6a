"""Jobs run once, after those that they need, and never outlive the grid."""

import json
import signal
import sys
import time
from unittest import mock

import pytest

from gkd.errors import UserError
from gkd.experiments.grid import runner
from gkd.experiments.grid.jobs import Job
from tests import child

# In place of gkd: does what its second argument says, in the folder of the
# first, and notes that it was started.
PROGRAM = """
import os, pathlib, signal, sys, time

folder = pathlib.Path(sys.argv[2].partition("=")[2])
with (folder / "started").open("a") as file:
  file.write(f"{os.getpid()}\\n")
what, _, other = sys.argv[3].partition("=")[2].partition(" ")
if what == "fail":
  sys.exit("no such thing")
if what == "meet":
  end = time.monotonic() + 60
  while not (folder.parent / other / "started").exists():
    assert time.monotonic() < end
    time.sleep(0.01)
if what == "sleep" and not (folder / "saved").exists():
  def save(number, frame):
    (folder / "saved").write_text(str(number))
    sys.exit(128 + number)
  signal.signal(signal.SIGTERM, save)
  signal.signal(signal.SIGINT, save)
  (folder / "ready").touch()
  time.sleep(60)
"""


def job(folder, name, what="", after=()):
  bindings = [f"MODEL_DIR={folder / name}", f"WHAT={what}"]
  after, result = list(after), folder / name
  return Job(
    name=name,
    stage=name[0],
    axes={},
    command="train",
    bindings=bindings,
    after=after,
    result=result,
  )


def run(jobs, folder, resolve=lambda job: "as they were", **changes):
  (folder / "program.py").write_text(PROGRAM)
  program = [sys.executable, str(folder / "program.py")]
  with mock.patch.object(runner, "PROGRAM", program):
    runner.run(jobs, resolve, folder, environment={}, **changes)


def test_what_is_done_is_not_done_again_and_a_failure_stops_what_needs_it(
  tmp_path, capsys
):
  def jobs(what):
    return [
      job(tmp_path, "teacher"),
      job(tmp_path, "bad", what, ["teacher"]),
      job(tmp_path, "scores", after=["bad"]),
      job(tmp_path, "good", after=["teacher"]),
    ]

  message = (
    r"1 of 4 jobs failed.*: bad; 1 that need them were not started; mend"
  )
  with pytest.raises(UserError, match=message):
    run(jobs("fail"), tmp_path)
  shown = capsys.readouterr().err
  assert "FAILED  bad, exit code 1" in shown
  assert "\n        no such thing\n" in shown
  assert not (tmp_path / "scores").exists()
  assert json.loads((tmp_path / "good" / "done.json").read_text()) == {
    "seconds": pytest.approx(10, abs=10),
    "settings": "as they were",
  }
  (tmp_path / "bad" / "seconds.json").write_text('{"seconds": 1000}')
  run(jobs("work"), tmp_path)
  # Of all starts, those that were cut or failed as well.
  assert 1000 < runner.done_jobs(jobs("work"), tmp_path)["bad"] < 1010
  starts = {
    path.parent.name: len(path.read_text().splitlines())
    for path in tmp_path.glob("*/started")
  }
  assert starts == {"teacher": 1, "bad": 2, "scores": 1, "good": 1}
  # Made anew, and all that stands on it.
  (tmp_path / "bad" / "done.json").unlink()
  assert {*runner.done_jobs(jobs("work"), tmp_path)} == {"teacher", "good"}
  run(jobs("work"), tmp_path)
  assert len((tmp_path / "scores" / "started").read_text().splitlines()) == 2


def test_a_job_whose_files_were_edited_fails_and_the_others_go_on(
  tmp_path, capsys
):
  def resolve(job):
    sound[job.name] -= 1
    if sound[job.name] < 0:
      raise UserError("its gin files were edited")
    return ""

  sound = {"bad": 0, "late": 1, "good": 2}
  jobs = [job(tmp_path, name) for name in sound]
  message = r"2 of 3 jobs failed, see above: bad, late; 0"
  with pytest.raises(UserError, match=message):
    run(jobs, tmp_path, resolve)
  assert "FAILED  bad: its gin files were edited" in capsys.readouterr().err
  assert {*runner.done_jobs(jobs, tmp_path)} == {"good"}
  assert not (tmp_path / "bad").exists()


def test_workers_run_jobs_at_once(tmp_path):
  jobs = [job(tmp_path, "a", "meet b"), job(tmp_path, "b", "meet a")]
  run(jobs, tmp_path, workers=2)


@pytest.mark.parametrize(
  ("number", "passed_on", "code"),
  [
    (signal.SIGTERM, signal.SIGTERM, 143),
    (signal.SIGINT, signal.SIGINT, 130),
    (signal.SIGKILL, signal.SIGTERM, -9),  # by the kernel
  ],
)
def test_a_signal_reaches_the_jobs_which_save_and_go_on_later(
  tmp_path, number, passed_on, code
):
  script = """
    import pathlib, sys
    from gkd.training.preemption import Interrupted
    from tests.experiments.grid import test_runner as this
    folder = pathlib.Path(sys.argv[1])
    jobs = [this.job(folder, "a", "sleep"), this.job(folder, "b", after=["a"])]
    try:
      this.run(jobs, folder)
    except Interrupted as error:
      assert "with 0 of 2 jobs done" in str(error)
      sys.exit(error.exit_code)
  """
  grid = child.start(script, tmp_path)
  _wait_for(tmp_path / "a" / "ready")
  grid.send_signal(number)
  assert grid.wait() == code, grid.communicate()
  _wait_for(tmp_path / "a" / "saved")
  assert int((tmp_path / "a" / "saved").read_text()) == passed_on
  assert not list(tmp_path.glob("*/done.json"))
  assert (tmp_path / "a" / "seconds.json").exists() == (code > 0)
  run([job(tmp_path, "a", "sleep"), job(tmp_path, "b", "", ["a"])], tmp_path)
  assert len(list(tmp_path.glob("*/done.json"))) == 2


def test_time_left_is_that_of_jobs_alike(tmp_path):
  jobs = [job(tmp_path, name) for name in ("a1", "a2", "a3", "a4", "b1", "b2")]
  done = {"a1": 10.0, "a2": 20.0}
  running = {"a3": 5.0, "b1": 40.0}
  # Of b1 and b2 nothing is known.
  assert runner.seconds_left(jobs, done, running) == (10 + 15, False)
  running["a3"] = 99.0
  assert runner.seconds_left(jobs[:4], done, running) == (15, True)


def _wait_for(path):
  end = time.monotonic() + 100
  while not path.exists() or (path.name == "saved" and not path.read_text()):
    assert time.monotonic() < end
    time.sleep(0.02)
