"""The table has every phase; a comparison divides by the earlier result."""

import copy
import re

import pytest

from gkd.experiments.bench import bench_table
from gkd.types import UserError


def clocks(wall, cpu):
  return {
    kind: {"min": x, "median": x, "max": x}
    for kind, x in (("wall", wall), ("cpu", cpu))
  }


PROGRAM = {"trace": 1, "lower": 2, "compile": 3, "count": 1, "cached": 1}
RESULT = {
  "work": {
    "models": {"student": "T5 1.1 small"},
    "batch_size": 8,
    "lengths": {"inputs": 64, "targets": 32},
  },
  "hardware": "cpu × 1",
  "seconds": {"sample": clocks(0.2, 0.4), "evaluation": clocks(3, 4)},
  "start_up": {
    "import": clocks(1, 1),
    "build": clocks(2, 2),
    "first_calls": {"sample": {**clocks(5, 6), "programs": {"f": PROGRAM}}},
  },
  "ratio": clocks(1.5, 1.6),
  "tokens_per_second": {"sample": 1280.0},
  "tokens_per_row": 31.9,
  "utilization": {"decode": 0.25},
  "ceilings": {"flops": 3e11, "bandwidth": 2e10, "dtype": "float32"},
  "memory_bytes": {"device": 2**31, "host": 3 * 2**30},
}


def rows(text):
  """{label: numbers} of the lines of a table."""
  found = (
    re.fullmatch(r"(\S+(?: \S+)*)\s\s+(.+)", x) for x in text.split("\n")
  )
  return {match[1]: match[2].split() for match in found if match}


def test_every_phase_has_a_row_in_milliseconds():
  text = bench_table.describe(RESULT)
  table = rows(text)
  assert table["sample"] == ["200.00", "400.00", "1,280", "25.0%"]
  assert table["evaluation"] == ["3000.00", "4000.00"]
  assert table["first sample"] == ["5000.00", "6000.00"]
  assert table["on-policy / fixed"] == ["1.50", "1.60"]
  for part in (
    "student: T5 1.1 small",
    "batch of 8 rows, 64 + 32 tokens",
    "1 programs, 1 of them from the cache: traced in 1.0 s, lowered in 2.0 s",
    "peak memory: device 2.00 GiB, host 3.00 GiB",
    "300 GFLOP/s in float32, 20.0 GB/s",
    "31.9",
  ):
    assert part in text


def test_ratios_are_of_this_result_to_the_earlier_one():
  earlier = copy.deepcopy(RESULT)
  earlier["seconds"] = {"sample": clocks(0.4, 0.1), "update": clocks(1, 1)}
  earlier["memory_bytes"] = {"device": 0, "host": 2**30}
  table = rows(bench_table.compare(RESULT, earlier))
  assert table["sample"] == ["0.500", "4.000"]
  assert table["first sample"] == ["1.000", "1.000"]
  assert table["memory, host"] == ["3.000"]
  assert not {"update", "evaluation", "memory, device"} & table.keys()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"batch_size": 4}, "b.json has batch_size 4, this run has 8; give"),
    ({"lengths": {"inputs": 64}}, 'lengths {"inputs": 64}, this run has'),
    ({"models": {}}, "has models {}, this run has"),
  ],
)
def test_a_result_of_other_work_is_refused(changes, message):
  earlier = RESULT | {"work": RESULT["work"] | changes}
  with pytest.raises(UserError, match=message) as error:
    bench_table.check_same_work(RESULT["work"], earlier, "b.json")
  assert "\n" not in str(error.value)
  bench_table.check_same_work(RESULT["work"], RESULT, "b.json")
