"""One of two processes of a run: two_processes.py INDEX PORT FOLDER CACHES.

Prints JSON: the rows that it read and the batch that all then hold, what it is
told where the two or their programs differ, and the checkpoints after a SIGTERM
to the second. The run, in FOLDER/run, is continued to its end.
"""

import json
import pathlib
import signal
import sys

import jax
from jax.experimental import multihost_utils

from gkd import partitioning
from gkd import processes
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.errors import UserError
from gkd.training import loop
from gkd.training.preemption import Interrupted
from tests import tiny
from tests.data import tiny_caches
from tests.faults import child
from tests.faults import harness

BATCH_SIZE = 8
STOPPED = 2  # the line of this step is written when the signal comes


def run_of(folder, caches, mesh):
  """On and off policy, with dumps, evaluations and a teacher."""
  return tiny.make_run(
    folder,
    caches,
    mesh=mesh,
    evaluations=[
      tiny.make_evaluation(caches["validation"], score_teacher=False)
    ],
    sample=3,
    eval=5,
  )


def batches(path) -> list[dict]:
  """What is read and held of a batch, for two shapes of the mesh."""
  loader = Loader(
    TokenCache(path),
    batch_size=BATCH_SIZE,
    lengths=tiny_caches.LENGTHS,
    seed=3,
  )
  found = []
  for model in (1, 2):
    asked = []

    def read(places, asked=asked):
      asked.append(list(places))
      return loader.batch(2, places)

    sharding = partitioning.batch_sharding(partitioning.make_mesh(model=model))
    batch = partitioning.place_rows(read, BATCH_SIZE, sharding)
    whole = multihost_utils.process_allgather(batch, tiled=True)
    held = {"rows": whole.rows.tolist(), "inputs": whole.inputs.tolist()}
    found.append({"asked": asked, **held})
  return found


def disagreement(index: int) -> str:
  """What a process is told whose settings are not those of the other one."""
  try:
    processes.agree("run", {"settings": {"seed": 3, "train_steps": 6 + index}})
  except UserError as error:
    return str(error)
  return "nothing"


def program_that_differs(index: int, port: str) -> str:
  """What a process is told as it joins another one with another program."""
  kept = processes._program
  processes._program = lambda: kept() | {"version": f"0.{index}"}
  try:
    processes.initialize(f"localhost:{port}", 2, index)
  except UserError as error:
    return str(error)
  return "nothing"


def main(index: int, port: str, folder: str, caches: str) -> None:
  child.keep_compiled_programs()
  said = {"program": program_that_differs(index, port)}
  said |= {
    "batches": batches(pathlib.Path(folder) / "numbered"),
    "disagreement": disagreement(index),
    "largest": int(processes.largest(index)),
  }
  opened = {n: TokenCache(pathlib.Path(caches) / n) for n in tiny.CACHES}
  # One device of each: a sum of two numbers has one order alone.
  mesh = partitioning.make_mesh(devices=jax.devices()[::2])
  run = run_of(pathlib.Path(folder) / "run", opened, mesh)

  def interrupt(step, values):
    if index == 1 and step == STOPPED:
      signal.raise_signal(signal.SIGTERM)

  try:
    loop.train(run, listener=interrupt)
  except Interrupted as error:
    processes.barrier("saved")
    said["left"] = harness.checkpoints(pathlib.Path(folder) / "run")
    said["code"] = error.exit_code
  loop.train(run)
  print(json.dumps(said))
  processes.leave(0)


if __name__ == "__main__":
  main(int(sys.argv[1]), *sys.argv[2:])
