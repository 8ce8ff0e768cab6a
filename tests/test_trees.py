"""Names and arithmetic over parameter trees."""

import jax.numpy as jnp
import numpy as np

from gkd import trees

TREE = {
  "encoder": {"layers_0": {"mlp": {"wo": {"kernel": jnp.ones((2, 3))}}}},
  "decoder": {"norm": {"scale": 2 * jnp.ones(4)}},
}


def test_flatten_names_leaves_by_path_in_sorted_order():
  assert list(trees.flatten(TREE)) == [
    "decoder/norm/scale",
    "encoder/layers_0/mlp/wo/kernel",
  ]


def test_order_of_names_is_that_of_the_joined_path():
  tree = {"a": {"b": 1}, "a.b": 2, "a0": 3}
  assert list(trees.flatten(tree)) == ["a.b", "a/b", "a0"]


def test_num_parameters_counts_scalars():
  assert trees.num_parameters(TREE | {"step": jnp.zeros(())}) == 11


def test_global_norm_of_bfloat16_is_computed_in_float32():
  tree = {name: jnp.full(500, 0.1, jnp.bfloat16) for name in "ab"}
  value = float(jnp.bfloat16(0.1))
  norm = trees.global_norm(tree)
  assert norm.dtype == jnp.float32
  np.testing.assert_allclose(norm, value * np.sqrt(1000), rtol=1e-6)
