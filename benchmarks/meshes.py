"""Eight virtual devices against one: losses, sampled texts, memory a device.

The same on-policy steps (rollout, score, update) are made on one device and on
meshes that share out rows, parameters, wide dimensions, or all three, and
compared. Nothing is saved; no accelerator is needed.

Usage:
  python -m benchmarks.meshes --output=results/meshes/meshes.json
"""

import argparse
import dataclasses
import math
from pathlib import Path
import tempfile
from typing import Any

import jax
import numpy as np

from benchmarks import conversion
from gkd import partitioning
from gkd.models import t5
from gkd.training import rollout
from gkd.training import state as states
from gkd.training import step
from gkd.training.run import Run
from gkd.types import Model
from tests import tiny

STEPS, SEED = 6, np.int32(3)
# Of losses, relative: of the first and of all steps. AdamW divides gradients by
# their size, those too that are 0 but for their rounding.
TOLERANCES = 1e-6, 1e-4
# Devices on the axes data, fsdp and model.
MESHES = {
  "one device": (1, 1, 1),
  "data": (8, 1, 1),
  "fsdp": (1, 8, 1),
  "model": (1, 1, 8),
  "mixed": (2, 2, 2),
}
STUDENT = t5.encoder_decoder(
  dataclasses.replace(
    tiny.STUDENT.config,
    vocab_size=32,
    emb_dim=128,
    num_heads=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=16,
    mlp_dim=256,
  )
)
TEACHER = t5.encoder_decoder(
  dataclasses.replace(STUDENT.config, emb_dim=192, mlp_dim=384)
)


def run_on(sizes: tuple[int, int, int], cache: Any, folder: str) -> Run:
  """The run on a mesh of so many devices."""
  devices = jax.devices()[: math.prod(sizes)]
  models = {"student": STUDENT, "teacher": TEACHER}
  return tiny.make_run(
    folder,
    {"train": cache},
    roles={n: Model(m, tiny.parameters(m, 0)) for n, m in models.items()},
    rollout=rollout.Rollout(student_fraction=1.0),
    optimizer=tiny.adamw(learning_rate=1e-3),
    mesh=partitioning.make_mesh(sizes[2], devices, fsdp=sizes[1]),
  )


def trained(run: Run) -> dict[str, Any]:
  """The steps: losses, sampled tokens, final parameters, bytes of device 0."""
  teacher = partitioning.place_model(run.teacher, run.mesh)
  sharding = partitioning.batch_sharding(run.mesh)
  state = states.initial_state(
    run.student.lm, run.initial_params(), run.optimizer, run.mesh
  )
  losses, tokens = [], []
  for number in range(STEPS):
    rolled = rollout.roll_out(
      jax.device_put(run.loader.batch(number), sharding),
      step=number,
      seed=SEED,
      plan=run.rollout,
      student=dataclasses.replace(run.student, params=state.params),
      teacher=teacher,
      vocabulary=run.loader.vocabulary,
    )
    tokens.append(np.asarray(rolled.batch.targets))
    frozen = {"teacher": teacher.params}
    arguments = run.train_step, state, frozen, rolled.batch
    if not number:
      update_peak = peak(step.update_step.lower(*arguments, SEED).compile())
    state, metrics = step.update_step(*arguments, SEED)
    losses.append(float(metrics["loss"].compute()))
  return {
    "losses": losses,
    "tokens": np.asarray(tokens),
    "final": jax.device_get(state.params),
    "bytes": {
      "parameters": on_a_device(state.params),
      "optimizer": on_a_device(state.opt_state),
      "teacher": on_a_device(teacher.params),
      "peak_of_update": update_peak,
    },
  }


def on_a_device(tree: Any) -> int:
  """Bytes of the parts of arrays that the first device holds."""
  shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(tree)]
  return sum(shard.nbytes for shard in shards)


def peak(compiled: Any) -> int:
  """Bytes that a program takes of a device; its output is its input."""
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.argument_size_in_bytes


def row(name: str, found: dict[str, Any], one: dict[str, Any]) -> dict:
  """A mesh beside one device."""
  losses = np.asarray([found["losses"], one["losses"]])
  moved = jax.tree.map(
    lambda a, b: float(np.abs(a - b).max()), found["final"], one["final"]
  )
  return {
    "mesh": name,
    "losses": found["losses"],
    "losses_by": np.abs(losses[0] / losses[1] - 1).tolist(),
    "parameters_by": max(jax.tree.leaves(moved)),
    "tokens": one["tokens"].size,
    "tokens_that_differ": int((found["tokens"] != one["tokens"]).sum()),
    "bytes_a_device": found["bytes"],
  }


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True)
  args = parser.parse_args()
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 8)
  with tempfile.TemporaryDirectory() as folder:
    cache = tiny.make_cache(Path(folder) / "train")
    found = {n: trained(run_on(s, cache, folder)) for n, s in MESHES.items()}
  rows = [row(name, found[name], found["one device"]) for name in MESHES]
  conversion.report({"rows": rows, **conversion.conditions()}, args.output)
  by = np.asarray([r["losses_by"] for r in rows])
  is_near = (by[:, 0] <= TOLERANCES[0]).all() and (by <= TOLERANCES[1]).all()
  return int(not is_near or any(r["tokens_that_differ"] for r in rows))


if __name__ == "__main__":
  raise SystemExit(main())
