"""The progress line in a log file and on a terminal."""

import io
import logging
import sys

import pytest

from gkd import progress


class _Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.mark.parametrize(
  ("options", "updates", "expected"),
  [
    # (seconds that pass, steps, numbers) of each update.
    (
      {"total": 3, "description": "sft", "seconds": 1e9},
      [(1.0, 1, {"loss": x}) for x in (3.0, 2.0, 1.25)],
      ["sft: 3/3 · 1 steps/s · 0:00 left · loss 1.25"],  # always the last step
    ),
    (  # 2 a second and 180 are left; then 5 a second and 150
      {"total": 1000, "initial": 800, "seconds": 5.0},
      [(10.0, 20), (6.0, 30)],
      [
        "820/1000 · 2 steps/s · 1:30 left",
        "850/1000 · 5 steps/s · 0:30 left",
      ],
    ),
    (  # at the end 8000 rows since the first line, in 10.001 s
      {"total": 9000, "unit": "row"},
      [(10.0, 1000), (10.0, 7999, {"tokens/s": 12345.6}), (0.001, 1)],
      [
        "1000/9000 · 100 rows/s · 1:20 left",
        "8999/9000 · 800 rows/s · 0:00 left · tokens/s 12,346",
        "9000/9000 · 800 rows/s · 0:00 left · tokens/s 12,346",
      ],
    ),
    ({"total": 2, "seconds": 0.0, "delay": 5.0}, [(4.9, 2)], []),
    (  # 20 in 10 seconds; 30 are left
      {"total": 50, "unit": "prompt", "delay": 5.0},
      [(3.0, 10), (7.0, 10)],
      ["20/50 · 2 prompts/s · 0:15 left"],
    ),
    (
      {"total": None, "description": "cache", "unit": "row"},
      [(0.0, 5), (10.0, 15)],
      ["cache: 20 · 2 rows/s"],
    ),
    (  # 68 s of compile tell nothing of the 130 steps that are left
      {"total": 150, "initial": 18, "description": "run", "compiles": True},
      [(68.0, 1), (1.0, 1), (9.0, 19)],
      [
        "run: compiling the first step",
        "run: 19/150",
        "run: 39/150 · 2 steps/s · 0:56 left",
      ],
    ),
    (
      {"total": 3, "compiles": True},
      [(68.0, 1), (1.0, 1), (1.0, 1)],
      ["compiling the first step", "1/3", "3/3 · 1 steps/s · 0:00 left"],
    ),
  ],
)
def test_a_log_file_gets_plain_lines_with_the_rate_since_the_last(
  monkeypatch, options, updates, expected
):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  with progress.Progress(stream=stream, **options) as bar:
    for seconds, *arguments in updates:
      now[0] += seconds
      bar.update(*arguments)
  assert stream.getvalue().splitlines() == expected
  assert "\r" not in stream.getvalue()


def test_what_is_no_step_does_not_slow_the_rate(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(60, stream=stream)
  for _ in range(2):
    now[0] += 10
    bar.update(20)
    with bar.paused():  # an evaluation
      now[0] += 500
  first, second = stream.getvalue().splitlines()
  assert first == "20/60 · 2 steps/s · 0:20 left"
  assert second == "40/60 · 2 steps/s · 0:10 left"


def test_a_log_file_gets_a_line_every_interval():
  stream = io.StringIO()
  bar = progress.Progress(100, stream=stream, seconds=0.0)
  for _ in range(5):
    bar.update()
  assert len(stream.getvalue().splitlines()) == 5


def test_delayed_bar_shows_nothing_when_it_is_done_at_once():
  stream = _Terminal()
  with progress.Progress(
    2, description="quick", stream=stream, delay=60
  ) as bar:
    bar.update(2)
  assert "quick" not in stream.getvalue()


def test_a_bar_is_cleared_before_a_line_of_a_log(monkeypatch):
  stream, log = _Terminal(), logging.getLogger("gkd")
  monkeypatch.setattr(sys, "stderr", stream)
  monkeypatch.setattr(log, "handlers", [logging.StreamHandler(stream)])
  with progress.Progress(2, description="sft") as bar:
    bar.update(1)
    log.warning("saved a checkpoint")
  assert "\rsaved a checkpoint\n" in stream.getvalue()
  assert stream.getvalue().count("saved") == 1
  assert [type(handler) for handler in log.handlers] == [logging.StreamHandler]


def test_a_bar_leaves_the_compile_out_of_the_time_left(monkeypatch):
  now = [100.0]
  stream = _Terminal()
  bar = progress.Progress(9, 4, stream=stream, compiles=True)
  monkeypatch.setattr(bar._bar, "_time", lambda: now[0])
  for seconds in (1000.0, 2.0, 2.0):
    now[0] += seconds
    bar.update()
  bar.close()
  assert "compiling the first step\n" in stream.getvalue()
  first, *later = stream.getvalue().rpartition("5/9")[2].split("\r")
  assert "<?" in first
  assert "00:04<00:04" in later[-1], later


def test_terminal_gets_a_bar_that_lines_do_not_tear():
  stream = _Terminal()
  bar = progress.Progress(2, description="sft", stream=stream)
  bar.update(1, {"loss": 0.5})
  bar.print("saved a checkpoint")
  bar.update(1)
  bar.close()
  assert "sft: 100%" in stream.getvalue()
  assert "saved a checkpoint\n" in stream.getvalue()
