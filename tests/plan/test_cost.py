"""Costs of programs, against counting by hand."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gkd import flops
from gkd import partitioning
from gkd.plan import cost

WEIGHTS, ROWS = jnp.ones((8, 8)), jnp.ones((4, 3, 8))


def loop(weights, x):
  def body(x, _):
    return jnp.tanh(x @ weights), None

  return jax.lax.scan(body, x, None, length=5)[0].sum()


def test_products_in_a_loop_count_as_often_as_it_runs():
  forward = flops.products(jax.jit(loop).trace(WEIGHTS, ROWS).jaxpr, 1)
  assert forward.flops == 5 * 2 * (4 * 3 * 8 * 8)
  assert forward.weights == forward.kernels == 5 * 4 * (8 * 8)
  assert forward.activations == 5 * 4 * (2 * 4 * 3 * 8)
  both = flops.products(jax.jit(jax.grad(loop)).trace(WEIGHTS, ROWS).jaxpr, 1)
  assert both.flops == 3 * forward.flops  # and the gradients of both factors
  single = jax.jit(jnp.matmul).trace(ROWS[:, 0], WEIGHTS)
  assert flops.products(single.jaxpr, 1).kernels == 4 * (8 * 8)


def test_what_is_computed_again_counts_on_request():
  gradient = jax.grad(jax.checkpoint(loop))
  jaxpr = jax.jit(gradient).trace(WEIGHTS, ROWS).jaxpr
  forward = flops.products(jax.jit(loop).trace(WEIGHTS, ROWS).jaxpr, 1)
  assert flops.products(jaxpr, 1).flops == 4 * forward.flops
  model = flops.products(jaxpr, 1, recomputed=False)
  assert model.flops == 3 * forward.flops


def test_loops_of_unknown_length_are_told_theirs():
  def search(x):
    return jax.lax.while_loop(
      lambda x: jnp.sum(x) < 9,
      lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x),
      x,
    )

  trace = jax.jit(search).trace(WEIGHTS)
  assert flops.products(trace.jaxpr, 7).flops == 7 * 2 * 8**3


def test_collectives_in_a_loop_count_as_often_as_it_runs():
  mesh = partitioning.make_mesh(4)
  split = NamedSharding(mesh, P("model", None))
  whole = partitioning.replicated(mesh)

  def run(weights, x):
    def body(x, _):
      x = jnp.tanh(x @ weights)
      return jax.lax.with_sharding_constraint(x, whole), None

    return jax.lax.scan(body, x, None, length=5)[0]

  arrays = jax.device_put(WEIGHTS, split), jax.device_put(ROWS, whole)
  compiled = jax.jit(run).lower(*arrays).compile()
  # Each device has a part of every sum.
  assert cost.collectives(compiled.as_text(), 1) == [
    cost.Collective("all-reduce", "f32[4,3,8]", 5, 4 * 4 * 3 * 8)
  ]


def test_arrays_that_are_joined_in_one_collective_all_count():
  hlo = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %a = (f32[8,4]{1,0}, f32[2]{0}) all-reduce(%x, %y), channel_id=1
  %b = (f32[2]{0}, f32[8]{0}) all-gather-start(%z), channel_id=2
}
"""
  found = {c.kind: (c.shape, c.size) for c in cost.collectives(hlo, 1)}
  assert found == {
    "all-reduce": ("f32[8,4]", 4 * (32 + 2)),
    "all-gather": ("f32[8]", 4 * 8),
  }
