"""The hash of a module follows its code and not its comments."""

import ast
import hashlib
import json
import subprocess
import sys

import pytest

from gkd.data import hashes

CODE = '''\
"""Says hello.

  indented, and two blanks at the end  
"""

import os  # of the system


def hello(name):

  # Politely.
  text = f"""Hällo # {name}

  "how" are you"""   # ä
  mark = "#"  # not a comment before this
  return (text +
          # in between
          mark)
'''
SAME = '''\
# A new first line.
"""Says hello.

  indented, and two blanks at the end  
"""
import os
def hello(name):
  text = f"""Hällo # {name}

  "how" are you"""

  mark = "#"
  return (text +
          mark)

# The end.'''


def test_comments_and_blank_lines_do_not_count():
  assert hashes.without_comments(CODE) == hashes.without_comments(SAME)
  # Nothing but comments was lost.
  tree = ast.parse(hashes.without_comments(CODE))
  assert ast.dump(tree) == ast.dump(ast.parse(CODE))


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ('mark = "#"', 'mark = "##"'),
    ('Hällo # {name}\n\n  "how"', 'Hällo # {name}\n  "how"'),
    ("end  \n", "end\n"),
    ("  return (", "  return 0, ("),
    ("hello(name)", "hello(name )"),
  ],
)
def test_code_and_texts_count(old, new):
  changed = CODE.replace(old, new)
  assert changed != CODE
  assert hashes.without_comments(changed) != hashes.without_comments(CODE)


def test_lines_are_those_of_the_tokeniser():
  """A form feed or a line separator within a text ends no line."""
  code = 'x = "a\u2028b"  # c\ny = "\x0c"  # d\nz = 1  # e\n'
  expected = 'x = "a\u2028b"\ny = "\x0c"\nz = 1\n'
  assert hashes.without_comments(code) == expected


def test_a_module_is_found_without_being_run(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  file = tmp_path / "some_module.py"
  file.write_text("raise RuntimeError  # never\n")
  expected = hashlib.sha256(b"raise RuntimeError\n").hexdigest()
  assert hashes.source_hash("some_module") == expected
  file.write_text("raise RuntimeError\n\n")
  assert hashes.source_hash("some_module") == expected
  file.write_text("raise ValueError\n")
  assert hashes.source_hash("some_module") != expected
  assert hashes.source_hash("no_such_module") is None
  # What is no Python is taken as it is.
  file.write_bytes(b'x = """\n')
  assert hashes.source_hash("some_module") == hashes.file_hash(file)


def test_a_content_hash_does_not_depend_on_the_order_of_keys():
  left = hashes.content_hash({"a": 1, "b": ["ä"]})
  assert left == hashes.content_hash({"b": ["ä"], "a": 1})
  text = json.dumps({"a": 1, "b": ["ä"]}, ensure_ascii=False)
  assert left == hashlib.sha256(text.encode()).hexdigest()
  assert left != hashes.content_hash({"b": ["ä"], "a": 2})


def test_workers_and_readers_need_no_jax():
  """Each worker would start a second later and take 200 MB more."""
  code = (
    "import sys\n"
    "from gkd.data.builder import workers, lookup\n"
    "heavy = {'jax', 'flax', 'tensorflow', 'seqio'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
