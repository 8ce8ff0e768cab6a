"""Seconds in which JAX traced, lowered and compiled each program."""

from jax import monitoring

# Fired once for each program (jax/_src/dispatch.py); the last with the seconds
# in which it was compiled, or read from the persistent cache.
_STAGES = {
  "/jax/core/compile/jaxpr_trace_duration": "trace",
  "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
  "/jax/core/compile/backend_compile_duration": "compile",
}
_HIT = "/jax/compilation_cache/cache_hits"


class CompileTimes:
  """Listens while it is open.

  Attributes:
    programs: {name: {"trace", "lower", "compile": seconds, "count": programs of
      that name, "cached": how many of them were read from the cache}}.
  """

  def __init__(self):
    self._all: dict[str, dict[str, float]] = {}
    self._hit = False

  def __enter__(self) -> "CompileTimes":
    monitoring.register_event_duration_secs_listener(self._stage)
    monitoring.register_event_listener(self._cache)
    return self

  def __exit__(self, *exception) -> None:
    monitoring.unregister_event_duration_listener(self._stage)
    monitoring.unregister_event_listener(self._cache)

  @property
  def programs(self) -> dict[str, dict[str, float]]:
    # Others were traced inside them.
    return {name: x for name, x in self._all.items() if x["count"]}

  def _stage(self, event: str, seconds: float, **metadata) -> None:
    if event not in _STAGES:
      return
    name = metadata.get("fun_name", "a program")
    name = name.removeprefix("jit(").removesuffix(")")
    fields = (*_STAGES.values(), "count", "cached")
    times = self._all.setdefault(name, dict.fromkeys(fields, 0))
    times[_STAGES[event]] += seconds
    if _STAGES[event] == "compile":
      times["count"] += 1
      times["cached"] += self._hit
      self._hit = False

  def _cache(self, event: str, **metadata) -> None:
    self._hit |= event == _HIT
