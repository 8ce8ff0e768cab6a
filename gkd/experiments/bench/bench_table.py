"""Results of the bench as text, alone and beside an earlier one.

print(describe(result))
check_same_work(work_of(run), earlier, "bench.json")
print(compare(result, earlier))
"""

from collections.abc import Iterator
from collections.abc import Mapping
import json
from typing import Any

from gkd.errors import UserError

_GIB = 2**30
# Of a result, for `files.read_json`.
TYPES = {
  "work": {"models": dict, "batch_size": int, "lengths": dict},
  "seconds": dict,
  "start_up": {"import": dict, "build": dict, "first_calls": dict},
  "memory_bytes": {"device": int, "host": int},
}


def describe(result: Mapping[str, Any]) -> str:
  """The measurement as a table."""
  work, shares = result["work"], result["utilization"]
  lengths = " + ".join(map(str, work["lengths"].values()))
  lines = [
    *(f"{role}: {model}" for role, model in work["models"].items()),
    f"batch of {work['batch_size']} rows, {lengths} tokens;"
    f" {result['hardware']}",
    "",
    f"{'medians':26}{'wall ms':>11}{'CPU ms':>11}{'tokens/s':>11}"
    f"{'of ceiling':>12}",
  ]
  for name, wall, cpu in _medians(result):
    speed = result["tokens_per_second"].get(name)
    line = f"{name.replace('_', ' '):26}{1e3 * wall:11.2f}{1e3 * cpu:11.2f}"
    line += f"{speed:11,.0f}" if speed else ""
    share = shares.get("decode" if name == "sample" else name)
    lines.append(f"{line}{share:12.1%}" if share else line)
  if ratio := result.get("ratio"):
    wall, cpu = (ratio[kind]["median"] for kind in ("wall", "cpu"))
    lines.append(f"{'on-policy / fixed':26}{wall:11.2f}{cpu:11.2f}")
  return "\n".join([*lines, *_totals(result)])


def check_same_work(
  work: Mapping[str, Any], earlier: Mapping[str, Any], path: str
) -> None:
  """Refuses an earlier result of other models, batch size or lengths."""
  for name, value in work.items():
    if (other := earlier["work"].get(name)) != value:
      raise UserError(
        f"--compare {path} has {name} {json.dumps(other)}, this run has"
        f" {json.dumps(value)}; give a result of the same work"
      )


def compare(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> str:
  """Medians and peaks of a result over those of an earlier one."""
  before = {name: times for name, *times in _medians(earlier)}
  lines = [f"{'now / earlier':26}{'wall':>11}{'CPU':>11}"]
  for name, *now in _medians(result):
    if name in before:
      ratios = (a / b for a, b in zip(now, before[name], strict=True))
      name = name.replace("_", " ")
      lines.append(f"{name:26}" + "".join(f"{x:11.3f}" for x in ratios))
  for name, peak in result["memory_bytes"].items():
    if old := earlier["memory_bytes"][name]:
      lines.append(f"{f'memory, {name}':26}{peak / old:11.3f}")
  return "\n".join(lines)


def _medians(result: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
  """Name, wall and CPU seconds of phases and of the start."""
  start = result["start_up"]
  first = {f"first {name}": x for name, x in start["first_calls"].items()}
  parts = {"import": start["import"], "build": start["build"], **first}
  for name, times in {**result["seconds"], **parts}.items():
    yield name, times["wall"]["median"], times["cpu"]["median"]


def _totals(result: Mapping[str, Any]) -> Iterator[str]:
  """Lines on compilation, memory and ceilings."""
  compiled = [
    program
    for call in result["start_up"]["first_calls"].values()
    for program in call["programs"].values()
  ]
  count, cached, trace, lower, compile_ = (
    sum(program[key] for program in compiled)
    for key in ("count", "cached", "trace", "lower", "compile")
  )
  yield (
    f"{count} programs, {cached} of them from the cache: traced in"
    f" {trace:.1f} s, lowered in {lower:.1f} s, compiled or read in"
    f" {compile_:.1f} s"
  )
  memory, ceilings = result["memory_bytes"], result["ceilings"]
  yield (
    f"peak memory: device {memory['device'] / _GIB:.2f} GiB, host"
    f" {memory['host'] / _GIB:.2f} GiB"
  )
  yield (
    f"ceilings of a device: {ceilings['flops'] / 1e9:,.0f} GFLOP/s in"
    f" {ceilings['dtype']}, {ceilings['bandwidth'] / 1e9:,.1f} GB/s"
    " (sample: of the weights that a token after the first reads)"
  )
  yield f"tokens a row, as trained on: {result['tokens_per_row']:.1f}"
