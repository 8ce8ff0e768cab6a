"""A few cases of `make hostile`, of every format."""

from tests.faults import hostile_files


def test_damaged_files_are_refused_or_harmless():
  records = hostile_files.run([f"suite:{n}" for n in range(40)], workers=1)
  assert len(records) == 40
  assert [r for r in records if r["verdict"] == "fault"] == []
  assert {"same", "refused"} <= {r["verdict"] for r in records}
