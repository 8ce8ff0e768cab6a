"""The progress line in a log file and on a terminal."""

import io

from gkd import progress


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_log_file_gets_plain_lines_and_always_the_last_step():
  stream = io.StringIO()
  bar = progress.Progress(3, description="sft", stream=stream, seconds=1e9)
  for loss in (3.0, 2.0, 1.25):
    bar.update(1, {"loss": loss})
  bar.close()
  lines = stream.getvalue().splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("sft: 3/3 · ")
  assert lines[0].endswith(" · 0:00 left · loss 1.25")
  assert "\r" not in stream.getvalue()


def test_log_file_gets_a_line_every_interval():
  stream = io.StringIO()
  bar = progress.Progress(100, stream=stream, seconds=0.0)
  for _ in range(5):
    bar.update()
  assert len(stream.getvalue().splitlines()) == 5


def test_rate_is_that_of_the_steps_since_the_last_line(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(1000, initial=800, stream=stream, seconds=5.0)
  now[0] += 10.0
  bar.update(20)  # 2 a second; 180 are left, so 90 s
  assert stream.getvalue() == "820/1000 · 2 steps/s · 1:30 left\n"
  now[0] += 6.0
  bar.update(30)  # 5 a second; 150 are left, so 30 s
  last = stream.getvalue().splitlines()[-1]
  assert last == "850/1000 · 5 steps/s · 0:30 left"


def test_a_line_at_the_end_has_the_rate_of_more_than_an_instant(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(9000, stream=stream, seconds=10.0, unit="row")
  now[0] += 10.0
  bar.update(1000)
  now[0] += 10.0
  bar.update(7999, {"tokens/s": 12345.6})
  now[0] += 0.001
  bar.update(1)
  # 8000 rows since the first line, in 10.001 s.
  last = stream.getvalue().splitlines()[-1]
  assert last == "9000/9000 · 800 rows/s · 0:00 left · tokens/s 12,346"


def test_what_is_done_before_the_delay_shows_nothing(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(2, stream=stream, seconds=0.0, delay=5.0)
  now[0] += 4.9
  bar.update(2)
  assert stream.getvalue() == ""


def test_what_takes_longer_than_the_delay_shows_rate_and_time_left(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(
    50, stream=stream, unit="prompt", seconds=10.0, delay=5.0
  )
  now[0] += 3.0
  bar.update(10)
  now[0] += 7.0
  bar.update(10)  # 20 in 10 seconds; 30 are left
  assert stream.getvalue() == "20/50 · 2 prompts/s · 0:15 left\n"


def test_without_a_total_nothing_is_said_of_the_time_left(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  stream = io.StringIO()
  bar = progress.Progress(None, description="cache", unit="row", stream=stream)
  bar.update(5)
  now[0] += 10.0
  bar.update(15)
  assert stream.getvalue() == "cache: 20 · 2 rows/s\n"


def test_delayed_bar_shows_nothing_when_it_is_done_at_once():
  stream = _Terminal()
  with progress.Progress(
    2, description="quick", stream=stream, delay=60
  ) as bar:
    bar.update(2)
  assert "quick" not in stream.getvalue()


def test_terminal_gets_a_bar_that_lines_do_not_tear():
  stream = _Terminal()
  bar = progress.Progress(2, description="sft", stream=stream)
  bar.update(1, {"loss": 0.5})
  bar.print("saved a checkpoint")
  bar.update(1)
  bar.close()
  assert "sft: 100%" in stream.getvalue()
  assert "saved a checkpoint\n" in stream.getvalue()
