"""What the fields of a user's own records mean for the macros that set them."""

import math

import pytest

from gkd.config import configuration
from gkd.types import UserError

MODULE = """
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Own:
  first: int = 1
  second: int = 2
  limit: float = math.inf
  limits: tuple = (0.5, math.inf)
"""
GIN = """
from __gin__ import dynamic_registration

import own_records

own_records.Own:
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
  (tmp_path / "own_records.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)

  def build(fields, *bindings):
    import own_records

    lines = [f"  {field} = %{macro}" for field, macro in fields.items()]
    (tmp_path / "own.gin").write_text("\n".join([GIN.strip(), *lines]))
    configuration.load([str(tmp_path / "own.gin")], bindings)
    return configuration.build(own_records.Own)

  return build


def test_different_defaults_of_one_macro_leave_it_without_a_value(build):
  fields = {"first": "SIZE", "second": "SIZE"}
  with pytest.raises(UserError, match="no value for SIZE; add "):
    build(fields)
  built = build(fields, "SIZE=32")
  assert (built.first, built.second) == (32, 32)


@pytest.mark.parametrize("field", ["limit", "limits"])
def test_a_default_that_gin_cannot_read_leaves_the_macro_without_a_value(
  build, field
):
  with pytest.raises(UserError, match="no value for LIMIT"):
    build({field: "LIMIT"})
  assert build({"first": "SIZE"}).limit == math.inf
