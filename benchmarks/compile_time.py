"""Time to compile an update, by the depth of teacher and student.

The layers of a stack are one program after the other, or a loop (SCAN_LAYERS).
Beside the update stands the gradient of the student alone, without the
optimizer, metrics and whatever else there is of each array. Models are narrow:
the width of an array does not matter to the compiler.

Usage:
  python -m benchmarks.compile_time --topology=cpu:1 --output=compile.json
  python -m benchmarks.compile_time --topology=v5e:2x2 --output=compile.json
"""

import argparse
import dataclasses
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import conversion
from gkd import partitioning
from gkd.losses import divergence
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.models.layer_stack import Execution
from gkd.plan import programs
from gkd.plan import topology
from gkd.training import state as states
from gkd.training import step
from gkd.types import LanguageModel
from tests import tiny

_LENGTHS = {"inputs": 32, "targets": 16}


def models(depth: int, *, scan: bool) -> tuple[LanguageModel, LanguageModel]:
  """Student and teacher with so many layers in each of their two stacks."""
  config = dataclasses.replace(
    tiny.STUDENT.config,
    emb_dim=64,
    num_heads=4,
    num_encoder_layers=depth,
    num_decoder_layers=depth,
    head_dim=16,
    mlp_dim=128,
  )
  other = dataclasses.replace(config, emb_dim=96, dropout_rate=0.0)
  return tuple(t5.encoder_decoder(c, Execution(scan)) for c in (config, other))


def measure(depth: int, scan: bool, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """CPU seconds of all that it takes to compile the two programs."""
  student, teacher = (
    partitioning.partitioned(m, mesh) for m in models(depth, scan=scan)
  )
  optimizer = tiny.adafactor()
  batch = programs._batch(8, _LENGTHS, mesh)
  state = states.abstract_state(student, optimizer, mesh)
  plan = step.TrainStep(
    student=student,
    frozen={"teacher": teacher},
    objective=Distillation(divergence.GeneralizedJSD(0.5)),
    optimizer=optimizer,
    mesh=mesh,
  )
  placed = {"teacher": programs._placed(teacher, mesh, None)}
  key = programs._array((), jnp.int32, partitioning.replicated(mesh))

  @jax.jit
  @jax.grad
  def gradient(params):
    inputs, targets = (jnp.ones((8, n), jnp.int32) for n in _LENGTHS.values())
    return student.hidden(params, inputs, targets).sum()

  return {
    "layers": depth,
    "scanned": scan,
    "arrays_of_state": len(jax.tree.leaves(state)),
    "gradient": seconds(gradient, state.params),
    "update": seconds(step.update_step, plan, state, placed, batch, key),
  }


def seconds(function: Any, *arguments: Any) -> dict[str, float]:
  """Of tracing and lowering, and of the compiler; bytes of temporaries."""
  started = time.process_time()
  lowered = function.lower(*arguments)
  between = time.process_time()
  compiled = lowered.compile()
  ended = time.process_time()
  return {
    "lower": between - started,
    "compile": ended - between,
    "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--topology", default="cpu:1")
  parser.add_argument("--layers", type=int, nargs="+", default=[4, 24])
  parser.add_argument("--output", required=True)
  args = parser.parse_args()
  topology.prepare(args.topology)
  devices = topology.devices(args.topology)
  mesh = partitioning.make_mesh(devices=devices, fsdp=len(devices))
  rows = []
  conditions = {"topology": args.topology, **conversion.conditions()}
  for scan, depth in itertools.product((True, False), args.layers):
    rows.append(measure(depth, scan, mesh))
    conversion.report({"cpu_seconds": rows, **conditions}, args.output)


if __name__ == "__main__":
  main()
