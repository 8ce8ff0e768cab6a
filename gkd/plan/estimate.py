"""What compiled programs mean for a run: time by roofline, room, advice."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import jax

from gkd.chips import Chip
from gkd.config.command_records import TrainConfig
from gkd.plan.programs import Program

_GIB = 2**30
_MIB = "MiB", 2**20
# What makes the temporaries of a program fewer.
_TEMPORARIES = {
  "update": (
    "temporaries: MICRO_BATCHES, SCAN_LAYERS with REMAT='minimal' or 'full',"
    " CHUNK_SIZE"
  ),
  "save": "the copy that is saved: FSDP_PARALLELISM, or SCAN_LAYERS=False",
}
_OF_SAMPLING = (
  "temporaries of sampling: a smaller BATCH_SIZE a device, DTYPE='bfloat16' or,"
  " with FSDP_PARALLELISM, GATHER_TO_SAMPLE=False"
)
ASSUMPTIONS = (
  "time: the longest of matrix products at the chip's bfloat16 peak, of reading"
  " and writing what they multiply (weights whole on each copy), and of the"
  " collectives' results over all links; nothing else takes time, and nothing"
  " overlaps less than wholly. A lower bound, for ratios more than for seconds."
)


def seconds(
  program: Program, chip: Chip, copies: int, model: int
) -> dict[str, float]:
  """{what: seconds of one device}, of which the longest counts.

  Args:
    program: compiled.
    chip: the device.
    copies: devices with rows of their own.
    model: devices that share rows.
  """
  products, num = program.products, copies * model
  moved = products.weights / model + products.activations / num
  sent = sum(c.count * c.size for c in program.collectives)
  return {
    "products": products.flops / num / chip.flops,
    "memory": moved / chip.bandwidth,
    "network": sent / chip.network,
  }


def advice(config: TrainConfig, program: Program, room: float) -> list[str]:
  """What makes a program that does not fit smaller, the largest part first."""
  memory = program.memory
  wants = [
    (
      memory.teacher,
      "the teacher: FSDP_PARALLELISM, TEACHER_DTYPE='bfloat16',"
      " TEACHER_MEMORY='pinned_host' or more MODEL_PARALLELISM",
    ),
    (
      memory.student + memory.optimizer,
      "student and optimizer: FSDP_PARALLELISM, or OPTIMIZER='adafactor'",
    ),
    (
      memory.temporary,
      _TEMPORARIES.get(program.name, _OF_SAMPLING),
    ),
  ]
  wants.sort(key=lambda want: -want[0])
  return [
    f"{program.name} needs {memory.peak / _GIB:.2f} of {room / _GIB:.2f} GiB;"
    f" {size / _GIB:.2f} for {what}"
    for size, what in wants
    if size > room / 10
  ]


def summary(
  config: TrainConfig,
  topology: str,
  mesh: jax.sharding.Mesh,
  programs: Sequence[Program],
  chip: Chip | None,
) -> dict[str, Any]:
  """All of a plan as JSON; the chip is None where it is not known."""
  mesh_shape = dict(mesh.shape)
  copies = mesh_shape["data"] * mesh_shape["fsdp"]
  result: dict[str, Any] = {
    "topology": topology,
    "mesh": mesh_shape,
    "batch_size": config.batch_size,
    "lengths": dict(config.data.lengths),
    "fits": True,
    "advice": [],
    "programs": {},
  }
  for program in programs:
    fits = program.fits
    if chip is not None and program.memory.peak > chip.memory:
      fits = False
    told: dict[str, Any] = {
      "fits": fits,
      "bytes": program.memory._asdict(),
      "flops": program.products.flops,
      "collectives": [c._asdict() for c in program.collectives],
      "compile_seconds": round(program.compile_seconds, 1),
    }
    if chip is not None:
      if fits:
        told["seconds"] = seconds(program, chip, copies, mesh_shape["model"])
      if not fits:
        result["advice"] += advice(config, program, chip.memory)
    result["fits"] &= fits
    result["programs"][program.name] = told
  if chip is not None:
    result |= {"memory": chip.memory, "assumptions": ASSUMPTIONS}
  if chip is not None and result["fits"]:
    times = {
      name: max(told["seconds"].values())
      for name, told in result["programs"].items()
    }
    fixed = times["update"] + times.get("teacher", 0.0)
    result["step_seconds"] = {"fixed data": fixed}
    if "sample" in times:
      on_policy = times["sample"] + times["update"]
      result["step_seconds"]["on-policy"] = on_policy
      result["cost_of_sampling"] = on_policy / fixed
  return result


def table(plan: dict[str, Any]) -> str:
  """The plan for reading."""
  shape = ", ".join(f"{axis} {n}" for axis, n in plan["mesh"].items())
  lengths = " + ".join(map(str, plan["lengths"].values()))
  programs = list(plan["programs"].values())
  title = f"{plan['topology']} ({shape}), batch {plan['batch_size']}, {lengths}"
  lines = [f"{title} tokens", "", _row("per chip", plan["programs"])]
  peak = max(p["bytes"]["peak"] for p in programs)
  unit, scale = ("GiB", _GIB) if peak > _GIB or "memory" in plan else _MIB
  for name in programs[0]["bytes"]:
    sizes = [p["bytes"][name] / scale for p in programs]
    if any(sizes):
      lines.append(_row(f"{name}, {unit}", (f"{size:.3f}" for size in sizes)))
  if "memory" in plan:
    room = f"{plan['memory'] / _GIB:.2f}"
    lines.append(_row("available, GiB", [room] * len(programs)))
  if "memory" in plan or not plan["fits"]:
    lines.append(_row("fits", ("yes" if p["fits"] else "NO" for p in programs)))
  flops = (f"{p['flops'] / 1e9:,.1f}" for p in programs)
  lines.append(_row("GFLOP of all chips", flops))
  kinds = {c["kind"] for p in programs for c in p["collectives"]}
  for kind in sorted(kinds):
    sums = []
    for program in programs:
      own = [c for c in program["collectives"] if c["kind"] == kind]
      total = sum(c["count"] * c["size"] for c in own)
      sums.append(f"{sum(c['count'] for c in own)}: {total / _GIB:.2f}")
    lines.append(_row(f"{kind}, number: GiB", sums))
  for name in programs[0].get("seconds", ()) if plan["fits"] else ():
    times = (f"{1e3 * p['seconds'][name]:.2f}" for p in programs)
    lines.append(_row(f"{name}, ms", times))
  times = (f"{p['compile_seconds']:.0f}" for p in programs)
  lines.append(_row("compile, CPU s", times))
  for name, time in plan.get("step_seconds", {}).items():
    lines.append(f"a step, {name}: at least {1e3 * time:.2f} ms")
  if "cost_of_sampling" in plan:
    lines.append(f"on-policy / fixed data: {plan['cost_of_sampling']:.2f}")
  lines.append("evaluations are not planned; models that they use are counted")
  return "\n".join([*lines, *plan["advice"]])


def _row(title: str, values: Iterable[str]) -> str:
  return f"{title:28}" + "".join(f"{value:>12}" for value in values)
