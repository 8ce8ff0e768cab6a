"""`gkd plan`: memory, collectives and time of a run on devices not at hand."""

import json

from gkd import files
from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.plan import estimate
from gkd.plan import programs
from gkd.plan import topology
from gkd.training.run import Run
from gkd.types import UserError

MARK = b'"topology"'  # at the beginning of the JSON


def plan(name: str, output: str) -> None:
  """Compiles the loaded configuration for a topology; prints, writes JSON.

  Raises:
    UserError: it does not fit; the advice was printed and written.
  """
  config = configuration.build(TrainConfig)
  mesh = config.mesh(topology.devices(name))
  roles = programs.models(config, mesh)
  compiled = list(programs.compiled(config, roles, mesh))
  result = estimate.summary(config, name, mesh, compiled, topology.chip(name))
  print(estimate.table(result))
  if output:
    files.write_text(output, json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")
  if not result["fits"]:
    raise UserError(f"the run does not fit {name}; see the lines above")


def planned(config: TrainConfig, run: Run) -> str:
  """The table of a run on its own devices."""
  roles = {name: model.lm for name, model in run.roles.items()}
  compiled = list(programs.compiled(config, roles, run.mesh))
  name = f"{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}"
  return estimate.table(
    estimate.summary(config, name, run.mesh, compiled, chip=None)
  )
