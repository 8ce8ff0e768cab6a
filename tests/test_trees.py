"""Names and arithmetic over parameter trees."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e18, 1e20, 1e37])
def test_global_norm_overflows_only_where_its_value_does(scale):
  values = [scale * x for x in np.random.default_rng(0).normal(size=(2, 50))]
  tree = [jnp.float32(x) for x in values]
  expected = np.linalg.norm(np.float64(tree))
  np.testing.assert_allclose(trees.global_norm(tree), expected, rtol=1e-6)
  for bad in (jnp.inf, jnp.nan):
    assert not np.isfinite(trees.global_norm([*tree, jnp.float32(bad)]))


def test_global_norm_of_ordinary_values_is_optax_s_to_the_bit():
  for seed in range(20):
    draws = np.random.default_rng(seed).normal(size=(3, 40))
    tree = {n: jnp.float32(x) for n, x in zip("abc", draws, strict=True)}
    assert trees.global_norm(tree) == optax.tree.norm(tree)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_makes_a_tree_not_finite(bad):
  assert trees.is_finite(TREE | {"step": jnp.int32(3)})
  assert not trees.is_finite(TREE | {"v": jnp.float32([1, bad])})
