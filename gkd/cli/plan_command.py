"""`gkd plan`: memory, collectives and time of a run on devices not at hand."""

import json
from typing import Any

from gkd import chips
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
  _refuse_unless_it_fits(result)


def of_run(config: TrainConfig, run: Run) -> None:
  """The same of a run on its own devices."""
  roles = {name: model.lm for name, model in run.roles.items()}
  compiled = list(programs.compiled(config, roles, run.mesh))
  kind = run.mesh.devices.flat[0].device_kind
  name, chip = f"{run.mesh.size} x {kind}", chips.of_kind(kind)
  result = estimate.summary(config, name, run.mesh, compiled, chip)
  print(estimate.table(result))
  _refuse_unless_it_fits(result)


def _refuse_unless_it_fits(result: dict[str, Any]) -> None:
  if not result["fits"]:
    raise UserError(
      f"the run does not fit {result['topology']}; see the lines above"
    )
