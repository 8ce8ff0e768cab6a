"""Files of the data directory are found, and noted for those who listen."""

from gkd.text import raw_files


def test_found_files_are_noted_while_someone_listens(tmp_path):
  for name in ("a", "b", "c"):
    (tmp_path / name).write_text(name)
  raw_files.find(tmp_path, "a")
  with raw_files.recording() as outer:
    raw_files.find(tmp_path, "b")
    with raw_files.recording() as inner:
      assert raw_files.find(str(tmp_path), "c") == tmp_path / "c"
  raw_files.find(tmp_path, "a")
  assert inner == {"c": tmp_path / "c"}
  assert outer == {"b": tmp_path / "b", "c": tmp_path / "c"}
