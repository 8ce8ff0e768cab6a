"""Says in words when what the student writes degenerates.

watch = Degeneration()
watch.observe({"train/truncation_rate": 1.0, …})  # logs a warning, once
"""

from collections.abc import Mapping
import logging

log = logging.getLogger("gkd")

_MOST_TRUNCATED = 0.95
_MOST_REPEATED = 0.5
_MOST_GROWTH = 1.5
_ADVICE = (
  "look at samples/, and raise 'targets' of TASK_FEATURE_LENGTHS if answers are"
  " that long; else lower LEARNING_RATE, or mix in fixed texts with a"
  " STUDENT_DATA_FRACTION below 1"
)


class Degeneration:
  """Watches the training means of reports; each warning comes once a start.

  Attributes:
    first_length: tokens of a sample at the first report of the run, restarts
      included; None before it.
  """

  def __init__(self, first_length: float | None = None):
    self.first_length = first_length
    self._said: set[int] = set()

  def observe(self, line: Mapping[str, float]) -> None:
    """Logs what is wrong with the samples behind a line of a report."""
    length = line.get("train/sampled_length")
    # A horizon cuts texts and lets them grow as it does.
    if length is None or "train/rollout_horizon" in line:
      return
    self.first_length = self.first_length or length
    truncated = line["train/truncation_rate"]
    repeated = line.get("train/repetition_rate", 0.0)  # none of one token
    growth = length / self.first_length
    signs = {
      f"{truncated:.0%} of the student's samples were cut at the longest"
      " length, so it hardly ever ends a text": truncated >= _MOST_TRUNCATED,
      f"{repeated:.0%} of the student's tokens repeat the token before": (
        repeated >= _MOST_REPEATED
      ),
      f"the student's samples have grown {growth:.1f} times, from"
      f" {self.first_length:.0f} to {length:.0f} tokens": (
        growth >= _MOST_GROWTH
      ),
    }
    for number, (sign, is_so) in enumerate(signs.items()):
      if is_so and number not in self._said:
        self._said.add(number)
        log.warning("%s: %s", sign, _ADVICE)
