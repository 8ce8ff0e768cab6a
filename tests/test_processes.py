"""Two processes are as one with the same devices, and stop together."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest

from gkd import partitioning
from gkd import processes
from gkd.data.loader import Loader
from gkd.errors import UserError
from gkd.training import loop
from tests import tiny
from tests import two_processes
from tests.data import tiny_caches
from tests.faults import harness


@pytest.fixture(scope="module")
def pair(tmp_path_factory, caches):
  """The folder of two processes of two devices, and what each says."""
  folder = tmp_path_factory.mktemp("pair")
  tiny_caches.numbered(folder / "numbered", 100)
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  script = pathlib.Path(two_processes.__file__)
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
  root = pathlib.Path(caches["train"].path).parent
  started = [
    subprocess.Popen(
      [sys.executable, script, str(index), port, folder, root],
      env={
        **os.environ,
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=600) for process in started]
  finally:
    for process in started:
      process.kill()
  for process, (_, error) in zip(started, outputs, strict=True):
    assert process.returncode == 0, error
  return folder, [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_each_of_two_processes_reads_its_own_rows(pair):
  """Together they hold the batch that one process would have."""
  folder, said = pair
  cache = tiny.TokenCache(folder / "numbered")
  loader = Loader(cache, batch_size=8, lengths=tiny_caches.LENGTHS, seed=3)
  expected = loader.batch(2)
  for index, own in enumerate(said):
    # Four copies of the model, then two of two devices each.
    for batch in own["batches"]:
      assert batch["asked"] == [list(range(4 * index, 4 * index + 4))]
      assert batch["rows"] == expected.rows.tolist()
      assert batch["inputs"] == expected.inputs.tolist()


def test_a_process_that_differs_is_named(pair):
  text = "process 1 of 2 differs from process 0 in its run: settings.train_ste"
  for own in pair[1]:
    assert own["disagreement"].startswith(f"{text}ps is 7 and not 6; start all")
    assert own["largest"] == 1
    name = "process 1 of 2 differs from process 0 in its program: version is "
    assert own["program"].startswith(f"{name}'0.1' and not '0.0'; start all")


def test_a_signal_to_one_process_saves_and_stops_both(pair):
  for own in pair[1]:
    assert own["code"] == 143
    assert own["left"][-1] == f"{two_processes.STOPPED + 2:08d}"


def test_two_processes_end_as_one_with_two_devices(pair, tmp_path, caches):
  """Bit for bit, though they were stopped in between; lines come once."""
  mesh = partitioning.make_mesh(devices=jax.devices()[:2])
  loop.train(two_processes.run_of(tmp_path, caches, mesh))
  expected = harness.fingerprint(tmp_path)
  ended = harness.fingerprint(pair[0] / "run")
  assert harness.differences(expected, ended) == []
  assert {"samples/step_00000003.jsonl", "metrics.jsonl"} <= expected.keys()


def test_one_process_asks_nobody():
  assert processes.is_writer()
  assert processes.exchange("name", "text") == ["text"]
  assert processes.from_writer(lambda: {1}) == {1}
  assert processes.largest(3) == 3
  processes.agree("run", object())
  processes.leave(2)


@pytest.mark.parametrize(
  "given", [("host:1", None, None), ("", 2, 0), ("host:1", 2, 2)]
)
def test_flags_that_say_too_little_are_refused(given):
  with pytest.raises(
    UserError, match=r"--coordinator, --num_processes, .* all"
  ):
    processes.initialize(*given)


def test_a_laptop_is_one_process(monkeypatch):
  monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "a pod that is of no job")
  processes.initialize()
  assert processes.count() == 1
