"""Compile times are by program, and those in the cache are told apart."""

import jax

from gkd.experiments.bench.compile_times import CompileTimes


def test_each_program_counts_once_with_all_its_stages():
  def inner(x):
    return x + 1

  def a_new_program(x):
    return jax.jit(inner)(x) * 2

  function = jax.jit(a_new_program)
  with CompileTimes() as compiles:
    jax.block_until_ready([function(1.0), function(2.0)])
  times = compiles.programs["a_new_program"]
  assert times["count"] == 1
  assert min(times[stage] for stage in ("trace", "lower", "compile")) > 0
  assert "inner" not in compiles.programs
  jax.block_until_ready(jax.jit(lambda x: x - 1)(1.0))
  assert compiles.programs.keys() == {"a_new_program"}


def test_what_comes_from_the_cache_is_counted():
  with CompileTimes() as compiles:
    for event in ("cache_misses", "cache_hits"):
      jax.monitoring.record_event(f"/jax/compilation_cache/{event}")
      jax.monitoring.record_event_duration_secs(
        "/jax/core/compile/backend_compile_duration", 2.0, fun_name="jit(f)"
      )
  assert compiles.programs["f"] == {
    "trace": 0, "lower": 0, "compile": 4, "count": 2, "cached": 1
  }  # fmt: skip
