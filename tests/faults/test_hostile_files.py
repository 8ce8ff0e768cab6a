"""A few cases of `make hostile`, of every format, and that it sees faults."""

import pytest

from tests.faults import hostile_files
from tests.faults import mutations
from tests.faults import sound_files


def test_damaged_files_are_refused_or_harmless():
  records = hostile_files.run([f"suite:{n}" for n in range(40)], workers=1)
  assert len(records) == 40
  assert [r for r in records if r["fault"]] == []
  assert {"same", "refused"} <= {r["verdict"] for r in records}


def _bug(*_):
  raise KeyError("a bug")


def _refuse(text):
  def refuse(*_):
    raise sound_files.Refused(text)

  return refuse


def _refuse_half_done(kind, folder, scratch):
  (scratch / "half").touch()
  raise sound_files.Refused("one line")


def _write(kind, folder, scratch):
  (folder / "new").touch()
  return "sound"


def _hang(*_):
  raise hostile_files.hostile.Hung


def _take_memory(*_):
  assert len(bytearray(b"x") * (600 << 20))
  return "sound"


@pytest.mark.parametrize(
  ("reader", "fault"),
  [
    (_bug, "KeyError: 'a bug' at tests/faults"),
    (_hang, "Hung: "),
    (_refuse("two\nlines"), "not refused in one line"),
    (_refuse(""), "not refused in one line"),
    (_refuse_half_done, "left behind"),
    (_write, "the source was written to"),
    (_take_memory, "MiB"),
    (lambda *_: "other values", "wrong values were accepted"),
    (lambda *_: "sound", ""),
    (_refuse("one line"), ""),
  ],
)
def test_a_fault_is_seen(reader, fault, tmp_path, monkeypatch):
  (tmp_path / "sound" / "model").mkdir(parents=True)
  (tmp_path / "sound" / "model" / "file").write_text("x")
  monkeypatch.setattr(mutations, "describe", lambda *_: ("model", "flip file"))
  monkeypatch.setattr(mutations, "mutate", lambda *_: False)
  monkeypatch.setattr(sound_files, "read", reader)
  values = {"model": "sound", "memory": hostile_files._memory("VmRSS")}
  with (tmp_path / "log").open("w+b") as log:
    record = hostile_files._try(
      "0:0", tmp_path / "sound", tmp_path, log, values
    )
  assert (record["fault"] != "") == (fault != "")
  assert fault in record["fault"]
