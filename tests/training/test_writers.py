"""What a run reports can be read back, also after a kill and a resume."""

import json
import math
import os
import sys

import jax.numpy as jnp
import pytest

from gkd.training import writers
from gkd.training.writers import Writers
from tests import child


def _lines(directory):
  with open(os.path.join(directory, "metrics.jsonl"), encoding="utf-8") as f:
    return [
      json.loads(line, parse_constant=lambda name: pytest.fail(name))
      for line in f
    ]


def test_a_line_is_there_at_once_with_null_for_what_json_lacks(tmp_path):
  run = Writers(tmp_path)
  numbers = {"a": jnp.float32(0.5), "b": 3, "c": 1e30}
  bad = {"d": math.nan, "e": math.inf, "f": -math.inf}
  run.scalars(20, numbers | bad)
  (line,) = _lines(tmp_path)
  assert line == {"step": 20, "a": 0.5, "b": 3.0, "c": 1e30} | dict.fromkeys(
    bad
  )
  run.close()


def test_resumed_run_reports_every_step_once(tmp_path):
  run = Writers(tmp_path)
  for step in (10, 20, 30):
    run.scalars(step, {"train/loss": step / 10})
    fields = ("prompt", "source", "text", "tokens")
    run.samples(step, [dict.fromkeys(fields)])
  run.close()

  run = Writers(tmp_path, resume_step=20)
  run.scalars(30, {"train/loss": -1.0})
  run.close()
  assert [(line["step"], line["train/loss"]) for line in _lines(tmp_path)] == [
    (10, 1.0),
    (20, 2.0),
    (30, -1.0),
  ]
  assert sorted(os.listdir(tmp_path / "samples")) == [
    "step_00000010.jsonl",
    "step_00000020.jsonl",
  ]


def test_predictions_of_later_steps_and_torn_files_go(tmp_path):
  folder = tmp_path / "predictions"
  folder.mkdir()
  stays = [
    "sums-validation-00000020.jsonl",
    "sums-test-t0.5-00000000.jsonl",
    "notes-of-mine.jsonl",
    "30.jsonl",
  ]
  others = {
    "notes-20260101.jsonl": '{"prompt": "p", "text": "t"}\n',
    "torn-20260101.jsonl": '{"prompt"',
    "list-20260101.jsonl": "[]",
  }
  goes = [
    "sums-validation-00000030.jsonl",
    "sums-validation-100000030.jsonl",
    "sums-validation-00000010.jsonl.tmp",
    ".sums-validation-00000010.jsonl.partial",
    ".sums-validation-00000010.jsonl.123-4567.partial",
    ".00000010.jsonl.123-4567.partial",
  ]
  record = dict.fromkeys(("row", "prompt", "reference", "text", "prediction"))
  for name in stays + goes:
    (folder / name).write_text(json.dumps(record) + "\n")
  for name, text in others.items():
    (folder / name).write_text(text)
  others["pipe-20260101.jsonl"] = ""
  os.mkfifo(folder / "pipe-20260101.jsonl")
  Writers(tmp_path, resume_step=20).close()
  assert sorted(os.listdir(folder)) == sorted([*stays, *others])
  Writers(tmp_path).close()
  assert sorted(os.listdir(folder)) == sorted([*stays[2:], *others])


LINES = """\
{"step": 4, "train/loss": 1.0}
{"step": 6, "train/loss": 2.0}
{"step": 6, "eval/sums/accuracy": 0.5}
{"step": 8, "train/loss": 3.0, "eval/sums/accuracy": null}
{"step": 8"""  # torn by a kill


@pytest.mark.parametrize(
  ("resumed", "kept"),
  [
    ({}, 0),  # a new run keeps no line of an earlier one
    ({"resume_step": 8}, 4),
    ({"resume_step": 6}, 3),
    ({"resume_step": 6, "partial": True}, (0, 2)),
    ({"resume_step": 6, "pending_eval": True}, 1),
    ({"resume_step": 6, "partial": True, "pending_eval": True}, 1),
    ({"resume_step": 4, "partial": False}, 1),
  ],
)
def test_lines_that_will_be_written_again_are_dropped(tmp_path, resumed, kept):
  path = tmp_path / "metrics.jsonl"
  path.write_text(LINES)
  run = Writers(tmp_path, **resumed)
  lines = LINES.splitlines(keepends=True)
  expected = lines[:kept] if isinstance(kept, int) else [lines[n] for n in kept]
  assert path.read_text() == "".join(expected)
  run.scalars(10, {"train/loss": 4.0})
  run.close()
  assert [line["step"] for line in _lines(tmp_path)] == [
    *(json.loads(line)["step"] for line in expected),
    10,
  ]


def test_means_that_come_again_leave_the_line_of_an_evaluation(tmp_path):
  line = {"step": 8, "train/loss": 3.0, "time/x": 1.0, "eval/sums/accuracy": 1}
  (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
  Writers(tmp_path, resume_step=8, partial=True).close()
  (found,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(found) == {"step": 8, "eval/sums/accuracy": 1}


def test_a_file_that_needs_no_change_is_left_alone(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text("".join(LINES.splitlines(keepends=True)[:3]))
  before = path.stat()
  Writers(tmp_path, resume_step=6).close()
  assert path.stat().st_ino == before.st_ino
  assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_values_are_read_back_to_the_bit(tmp_path):
  run = Writers(tmp_path)
  run.scalars(1, {"eval/sums/accuracy": 0.1 + 0.2})
  run.scalars(2, {"train/loss": 1.0})
  run._metrics.write('{"step": 5, "eval/sums/accuracy": "x"}\n' + "[" * 10**5)
  run._metrics.write("\n")
  run.scalars(3, {"eval/sums/accuracy": math.nan})
  run.close()
  assert writers.read_values(tmp_path, "eval/sums/accuracy") == {1: 0.1 + 0.2}
  assert writers.read_values(tmp_path / "new", "eval/sums/accuracy") == {}
  assert [writers.has_values(tmp_path, s, "eval/") for s in range(4)] == [
    *(False, True, False, True)
  ]


def test_samples_take_any_text_and_numbers(tmp_path):
  row = {"text": "zwölf\n\u2028 → 12", "score": -1.5, "bad": float("nan")}
  Writers(tmp_path).samples(7, [row, {"text": ""}])
  file = tmp_path / "samples" / "step_00000007.jsonl"
  with file.open(encoding="utf-8", newline="\n") as lines:
    first, second = map(json.loads, lines)
  assert first == row | {"bad": None}
  assert second == {"text": ""}


def test_tensorboard_events_hold_the_values_and_need_no_tensorflow(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "tensorflow", None)  # its import raises
  run = Writers(tmp_path)
  run.scalars(3, {"train/loss": 0.25})
  run.close()
  from tensorboardX import proto

  found = []
  directory = tmp_path / "tensorboard"
  for name in os.listdir(directory):
    for record in _records((directory / name).read_bytes()):
      event = proto.event_pb2.Event.FromString(record)
      found += [
        (event.step, value.tag, value.simple_value)
        for value in event.summary.value
      ]
  assert found == [(3, "train/loss", 0.25)]


def test_an_installed_torch_is_left_to_others(tmp_path):
  (tmp_path / "torch.py").write_text("print('imported')")
  script = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from gkd.training.writers import Writers
    Writers(sys.argv[1]).close()
    print("written")
    import torch
  """
  assert child.run(script, tmp_path) == "written\nimported"


def _records(data):
  """Payloads of a TFRecord file: length, crc, payload, crc."""
  while data:
    length = int.from_bytes(data[:8], "little")
    yield data[12 : 12 + length]
    data = data[16 + length :]
