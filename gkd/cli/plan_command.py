"""`gkd plan`: memory, collectives and time of a run on devices not at hand."""

import json
from typing import Any

import jax

from gkd import files
from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.plan import estimate
from gkd.plan import programs
from gkd.plan import topology
from gkd.types import UserError

MARK = b'"topology"'  # at the beginning of the JSON


def plan(name: str, output: str) -> None:
  """Compiles the loaded configuration for a topology; prints, writes JSON.

  Raises:
    UserError: it does not fit; the advice was printed and written.
  """
  config = configuration.build(TrainConfig)
  mesh = config.mesh(topology.devices(name))
  result = _summary(config, name, mesh, topology.chip(name))
  print(estimate.table(result))
  if output:
    files.write_text(output, json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")
  if not result["fits"]:
    raise UserError(f"the run does not fit {name}; see the lines above")


def planned(config: TrainConfig, name: str, mesh: jax.sharding.Mesh) -> str:
  """The table of a run on devices that are here, which `name` describes."""
  return estimate.table(_summary(config, name, mesh, None))


def _summary(
  config: TrainConfig,
  name: str,
  mesh: jax.sharding.Mesh,
  chip: topology.Chip | None,
) -> dict[str, Any]:
  compiled = list(programs.compiled(config, mesh))
  return estimate.summary(config, name, dict(mesh.shape), compiled, chip)
