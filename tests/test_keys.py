"""Keys of rows that occur once, and of those that occur again."""

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys

KEY = keys.stream(3, 5, keys.Role.STUDENT_SAMPLE)


def test_a_row_that_occurs_again_gets_another_key():
  ids = jnp.array([5, -1, 7, 5, -1, 5])
  data = np.asarray(jax.random.key_data(keys.per_row(KEY, ids)))
  for place in (0, 1, 2):  # the first of its id
    alone = jax.random.key_data(jax.random.fold_in(KEY, ids[place]))
    np.testing.assert_array_equal(data[place], alone)
  # Positions fold in numbers too, and no row takes the keys of another's.
  row = keys.per_row(KEY, ids[:1])
  positions = [keys.at_position(row, position) for position in range(4)]
  data = np.concatenate([data, *map(jax.random.key_data, positions)])
  assert len(np.unique(data, axis=0)) == len(data)
