"""How near a run comes to the limits of its machine, and its memory."""

from collections.abc import Mapping
from typing import Any

import jax

from gkd import flops
from gkd.experiments.bench import ceilings
from gkd.experiments.bench.workload import Workload
from gkd.training import telemetry


def of(
  work: Workload, seconds: Mapping[str, Any], decoded: float
) -> dict[str, Any]:
  """Counts the programs of a run whose phases were timed.

  Args:
    work: after its last step.
    seconds: {phase: {"wall": {"median": …}, …}}.
    decoded: tokens of the longest row after its first, which the prompt gives.

  Returns:
    "programs", FLOPs of all devices and bytes on one of each; "ceilings" of a
    device; "utilization": of score and update their FLOPs over the ceiling, of
    `decode` the bytes of weights that a token reads over the bandwidth;
    "memory_bytes": peaks of the host and of a device, where it does not say its
    own the largest of the programs.
  """
  # Before the ceilings take some.
  peak, host_peak = telemetry.peak_device_bytes(), telemetry.peak_host_bytes()
  write = work.sample if "sample" in seconds else work.fixed
  batch = write(0, work.place(work.read(0))).batch
  run, traces = work.run, work.traces(batch)
  medians = {name: x["wall"]["median"] for name, x in seconds.items()}
  programs = {
    name: {
      "flops": flops.products(traced.jaxpr, int(decoded)).flops,
      "bytes": _memory(traced),
    }
    for name, traced in traces.items()
    if name in seconds
  }
  hidden = jax.eval_shape(run.student.lm.hidden_of, work.state.params, batch)
  limit, shares = ceilings.measure(hidden.dtype), {}
  for name in programs.keys() - {"sample"}:
    # What is computed a second time to save memory is no use.
    useful = work.update_flops(batch) if name == "update" else 0
    rate = (useful or programs[name]["flops"]) / medians[name]
    shares[name] = rate / limit.flops / run.mesh.size
  if {"sample", "prefill"} <= medians.keys() and decoded >= 1:
    whole, prompt = (
      flops.products(traces["sample"].jaxpr, trips).kernels for trips in (1, 0)
    )
    token = {
      "seconds": (medians["sample"] - medians["prefill"]) / decoded,
      "bytes": (whole - prompt) / run.mesh.shape["model"],
    }
    programs["sample"]["token"] = token
    shares["decode"] = token["bytes"] / token["seconds"] / limit.bandwidth
  peaks = [program["bytes"]["peak"] for program in programs.values()]
  return {
    "programs": programs,
    "ceilings": limit._asdict() | {"dtype": hidden.dtype.name},
    "utilization": shares,
    "memory_bytes": {
      "device": peak or max(peaks, default=0),
      "host": host_peak,
    },
  }


def _memory(traced: jax.stages.Traced) -> dict[str, int]:
  """Bytes on a device, as the compiler says; JAX keeps what it compiled."""
  analysis = traced.lower().compile().memory_analysis()
  arguments = analysis.argument_size_in_bytes
  temporary = analysis.temp_size_in_bytes
  new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  return {
    "arguments": arguments,
    "temporary": temporary,
    "peak": arguments + temporary + new,
  }
