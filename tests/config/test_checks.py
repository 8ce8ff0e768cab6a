"""Numbers that cannot be are refused by the name of their macro."""

import pytest

from gkd.config import checks
from gkd.types import UserError


def test_a_number_below_one_is_refused():
  checks.at_least_one("BATCH_SIZE", 1)
  with pytest.raises(UserError, match="BATCH_SIZE is 0; give at least 1"):
    checks.at_least_one("BATCH_SIZE", 0)


@pytest.mark.parametrize("value", [-1, 2**31])
def test_a_seed_is_a_positive_number_of_32_bits_with_a_sign(value):
  checks.seed(0)
  checks.seed(2**31 - 1)
  with pytest.raises(
    UserError, match=rf"SEED is {value}; give 0 to 2147483647"
  ):
    checks.seed(value)
