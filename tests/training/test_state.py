"""The first state has the types and the layout of the model."""

import jax
import jax.numpy as jnp
import numpy as np

from gkd import partitioning
from gkd.training import state as states
from tests import second_family
from tests import tiny

MODEL = second_family.model(rows=8)


def test_a_bfloat16_student_becomes_a_state_that_can_be_restored():
  mesh = partitioning.make_mesh()
  optimizer = tiny.adamw()
  params = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, jnp.bfloat16), MODEL.abstract_params
  )
  state = states.initial_state(MODEL, params, optimizer, mesh)
  wanted = states.abstract_state(MODEL, optimizer, mesh)
  assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(
    lambda x: x.dtype, wanted
  )


def test_fresh_parameters_are_made_in_parts():
  """The same ones on any mesh."""
  mesh = partitioning.make_mesh(model=2)
  key = jax.random.key(0)
  params = states.random_params(MODEL, key, mesh)
  assert params["head"].sharding.shard_shape((8, 8)) == (8, 4)
  one = partitioning.make_mesh(devices=jax.devices()[:1])
  jax.tree.map(
    np.testing.assert_array_equal,
    params,
    states.random_params(MODEL, key, one),
  )


def test_the_callers_parameters_outlive_a_donated_state():
  mesh = partitioning.make_mesh()
  params = states.random_params(MODEL, jax.random.key(0), mesh)
  state = states.initial_state(MODEL, params, tiny.adamw(), mesh)
  jax.jit(lambda state: state, donate_argnums=0)(state)
  assert state.params["head"].is_deleted()
  assert not params["head"].is_deleted()
