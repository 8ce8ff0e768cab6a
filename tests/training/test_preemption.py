"""Signals become requests, or exceptions where anything may be left."""

import os
import signal
import threading

import pytest

from gkd.training.preemption import Interrupted
from gkd.training.preemption import PreemptionHandler
from gkd.training.preemption import terminable


def test_sigterm_leaves_work_that_may_be_left():
  before = signal.getsignal(signal.SIGTERM)
  with (
    pytest.raises(Interrupted, match="stopped by SIGTERM") as raised,
    terminable(),
  ):
    os.kill(os.getpid(), signal.SIGTERM)
  assert raised.value.exit_code == 143
  assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_changed():
  seen = []

  def work():
    with terminable():
      seen.append(signal.getsignal(signal.SIGTERM))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [signal.getsignal(signal.SIGTERM)]


def asking(stop, number=signal.SIGTERM):
  """Work during which a signal comes."""

  def work():
    signal.raise_signal(number)
    done.append(1)
    return 1

  done = []
  return stop.run_preemptible(work), done


def test_a_signal_is_noted_and_nothing_else_happens(capfd):
  with PreemptionHandler() as stop:
    assert stop.requested is None
    stop.check("after step 1")
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert stop.requested == signal.SIGTERM
  assert capfd.readouterr().err.count("finishing this step and saving it") == 1
  with pytest.raises(Interrupted, match=r"SIGTERM after step 1; the same"):
    stop.check("after step 1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_is_done_again_is_left_at_once(number):
  with PreemptionHandler() as stop:
    assert stop.run_preemptible(lambda: 7) == 7
    assert asking(stop, number) == (None, [])
    # Once asked it does not begin.
    assert stop.run_preemptible(lambda: pytest.fail("it began")) is None
    assert stop.requested == number
    signal.raise_signal(signal.SIGTERM)  # and nothing is left any more


def test_an_error_of_the_work_comes_through():
  with PreemptionHandler() as stop:
    with pytest.raises(ZeroDivisionError):
      stop.run_preemptible(lambda: 1 / 0)
    signal.raise_signal(signal.SIGTERM)  # noted, not thrown
    assert stop.requested


def test_the_second_interrupt_goes_to_the_handler_that_is_given(capfd):
  seen = []
  before = signal.getsignal(signal.SIGINT)
  with PreemptionHandler(second=lambda *_: seen.append(1)) as stop:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert not seen
    signal.raise_signal(signal.SIGINT)
    assert seen == [1]
    assert stop.requested == signal.SIGTERM
  assert signal.getsignal(signal.SIGINT) is before
