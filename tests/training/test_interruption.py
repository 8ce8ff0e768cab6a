"""Signals become requests, or exceptions where anything may be left."""

import os
import signal
import threading

import pytest

from gkd.training.interruption import Interrupted
from gkd.training.interruption import terminable


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
