"""From macros to ways of decoding: what `gkd evaluate` and `gkd sample` ask.

evaluated((0.0, 0.7), beam_size=4, beam_alpha=0.6, num_samples=1)
# [SamplingParams(0.0), SamplingParams(0.7), BeamSearch(4, 0.6)]
"""

from collections.abc import Sequence

from gkd.config import configuration
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.sampling.strategies import Strategy
from gkd.types import UserError


def evaluated(
  temperatures: Sequence[float],
  beam_size: int,
  beam_alpha: float,
  num_samples: int,
) -> list[Strategy]:
  """One way for each temperature, then the beam search unless its size is 0.

  Raises:
    UserError: a wrong value, none at all, or one that does nothing.
  """
  found: list[Strategy] = [
    SamplingParams(temperature=float(t)) for t in temperatures
  ]
  found += _searches(beam_size, beam_alpha)
  for way in found:
    way.validate()
  if not found:
    raise UserError(
      "EVAL_TEMPERATURES is empty and EVAL_BEAM_SIZE 0, so nothing would be"
      " decoded; give a temperature or a beam size"
    )
  # As metrics and files are named.
  if len({way.label for way in found}) < len(found):
    raise UserError(
      f"EVAL_TEMPERATURES are {tuple(temperatures)}; give each"
      " temperature once, EVAL_SAMPLES for several answers"
    )
  if num_samples > 1 and not any(way.is_random for way in found):
    greedy = "greedy answers" if temperatures else "the answers"
    raise UserError(
      f"EVAL_SAMPLES is {num_samples} but {greedy} are all the same; give a"
      " temperature above 0 in EVAL_TEMPERATURES"
    )
  return found


def sampled(
  decoding: SamplingParams, beam_size: int, beam_alpha: float, num_samples: int
) -> Strategy:
  """How the completions of a prompt come about.

  Raises:
    UserError: a wrong value, or more completions than there can be.
  """
  way = next(iter(_searches(beam_size, beam_alpha)), decoding)
  way.validate()
  if isinstance(way, BeamSearch) and num_samples > way.size:
    raise UserError(
      f"NUM_SAMPLES is {num_samples} but BEAM_SIZE {beam_size} finds at most"
      f" {beam_size} completions of a prompt; raise BEAM_SIZE"
    )
  if isinstance(way, SamplingParams) and num_samples > 1 and not way.is_random:
    raise UserError(
      f"NUM_SAMPLES is {num_samples} but greedy completions are all the"
      " same; give a SAMPLING_TEMPERATURE above 0, or a BEAM_SIZE"
    )
  return way


def refuse_idle_flags(way: Strategy) -> None:
  """What `gkd sample` was given for another way than this one."""
  if isinstance(way, BeamSearch):
    names = ("SAMPLING_TEMPERATURE", "SAMPLING_TOP_K", "SAMPLING_TOP_P")
    why = f"BEAM_SIZE is {way.size}, and a beam search draws nothing"
    configuration.refuse_idle_flags(names, why)
    return
  why = "BEAM_SIZE is 0, so there is no beam search"
  configuration.refuse_idle_flags(["BEAM_ALPHA"], why)
  if not way.is_random:
    names = ("SAMPLING_TOP_K", "SAMPLING_TOP_P")
    why = "SAMPLING_TEMPERATURE is 0, which is greedy"
    configuration.refuse_idle_flags(names, why)


def _searches(size: int, alpha: float) -> list[BeamSearch]:
  """The beam search, or none where the size is 0."""
  return [] if size == 0 else [BeamSearch(size, alpha)]
