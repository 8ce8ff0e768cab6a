"""Texts of the next step that were drawn before an update, in checkpoints.

With `Rollout.staleness` 1 the parameters that drew them are gone when a step is
saved, so that they could not be drawn again. A checkpoint holds the fields of
the batch that a rollout replaces as arrays of its state, and the metrics and
checks in its notes; the rest of the batch is a function of the step.

  store.save(done, *joined(state, ahead))
  ahead = restored(store.restore(start, like).ahead, metadata, batch)
"""

from collections.abc import Mapping
from typing import Any

import jax

from gkd import metrics
from gkd.training.rollout import RolledOut
from gkd.training.state import TrainState
from gkd.types import Array
from gkd.types import Batch

_NOTE = "ahead"  # in the notes of a checkpoint


def joined(
  state: TrainState, ahead: RolledOut | None
) -> tuple[TrainState, dict[str, Any]]:
  """What a checkpoint holds of a state and the next step, if that is drawn.

  Returns:
    The state with arrays of the rollout, which this waits for, and JSON.
  """
  if ahead is None:
    return state, {}
  saved = {name: getattr(ahead.batch, name) for name in like(ahead.batch)}
  means, checks = jax.device_get((ahead.metrics, ahead.checks))
  note = {
    "metrics": metrics.to_json(means),
    "checks": {name: int(value) for name, value in checks.items()},
    "input_width": ahead.input_width,
  }
  return state.replace(ahead=saved), {_NOTE: note}


def like(batch: Batch) -> dict[str, Array]:
  """Arrays with shapes, types and shardings of those that `joined` adds."""
  return {
    "targets": batch.targets,
    "weights": batch.weights,
    "log_probs": batch.weights,
    "source": batch.source,
    "staleness": batch.source,
  }


def restored(
  saved: Mapping[str, Array], metadata: Mapping[str, Any], batch: Batch
) -> RolledOut:
  """The rollout of the next step.

  Args:
    saved: arrays of `like`.
    metadata: of the checkpoint.
    batch: the loader's of the next step, on the devices.
  """
  noted = metadata[_NOTE]
  return RolledOut(
    batch.replace(**saved),
    metrics.from_json(noted["metrics"]),
    noted["checks"],
    input_width=noted["input_width"],
  )
