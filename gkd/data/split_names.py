"""Names of splits, as TFDS writes them: "train", "train[:90%]", "a+b"."""

import re


def may_intersect(left: str, right: str) -> bool:
  """Whether two TFDS split names of one task can share rows.

  Slices are compared where both are in percent or both in rows; a mix of the
  two may intersect, since the number of rows is not known here.
  """
  return any(
    _parts_intersect(a, b) for a in _parts(left) for b in _parts(right)
  )


def _parts_intersect(a: tuple, b: tuple) -> bool:
  (name_a, unit_a, *range_a), (name_b, unit_b, *range_b) = a, b
  if "all" in (name_a, name_b):
    return True
  if name_a != name_b:
    return False
  if unit_a is None or unit_a != unit_b:
    return True
  return max(range_a[0], range_b[0]) < min(range_a[1], range_b[1])


def _parts(split: str) -> list[tuple]:
  """(name, unit, start, end) of each part; unit None is the whole split."""
  parts = []
  for text in split.split("+"):
    match = re.fullmatch(
      r"\s*([\w.\-]+)\s*(?:\[(\d*)(%?):(\d*)(%?)\])?\s*", text
    )
    if match is None:  # a form that only TFDS understands
      parts.append((text.strip().partition("[")[0], None))
      continue
    name, start, start_unit, end, end_unit = match.groups()
    if not start and not end:
      parts.append((name, None))
      continue
    unit = "%" if "%" in (start_unit, end_unit) else "rows"
    first = int(start) if start else 0
    last = int(end) if end else (100 if unit == "%" else float("inf"))
    parts.append((name, unit, first, last))
  return parts
