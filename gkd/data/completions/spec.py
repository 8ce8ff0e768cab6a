"""Who completes which prompts, and how, and what came of it in words.

`gkd.data.completions.write` carries it out.

plan = Completions(model=model, parameters={"sha256": "…"}, prompts=cache,
                   lengths={"inputs": 64, "targets": 32}, num_samples=4)
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
from typing import Any
from typing import Literal
from typing import NamedTuple

import jax
import numpy as np

from gkd import partitioning
from gkd.data.cache import TokenCache
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.sampling.strategies import Strategy
from gkd.sampling.strategies import check_beams
from gkd.types import LanguageModel
from gkd.types import UserError

# Shards are files that training keeps open: not many thousands of them. And a
# kill loses one, so there are not few.
_SHARDS = 256
_MIN_SHARD_PROMPTS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completions:
  """Completions of the prompts of a cache.

  Attributes:
    model: who writes.
    parameters: JSON that names its parameters, such as the sha256 of their
      checkpoint; what others wrote is never continued.
    prompts: the cache whose prompts are completed.
    lengths: {"inputs": I, "targets": T}; a completion has at most T tokens.
    rows: rows of `prompts`, ascending; None for all.
    decoding: how they come about: drawn, or the best of a search; host
      numbers.
    num_samples: completions of each prompt.
    seed: of the draws; a search has none.
    writer: what the model is to those who train on the completions.
    batch_size: prompts at once; changes nothing but the time.
    shard_prompts: prompts whose completions are written at a time; None for a
      256th of them, at least 256.
    mesh: devices; None for all of them on the data axis.
  """

  model: LanguageModel
  parameters: Mapping[str, Any]
  prompts: TokenCache
  lengths: Mapping[str, int]
  rows: Sequence[int] | None = None
  decoding: Strategy = dataclasses.field(default_factory=SamplingParams)
  num_samples: int = 1
  seed: int = 0
  writer: Literal["teacher", "student"] = "teacher"
  batch_size: int = 32
  shard_prompts: int | None = None
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    if self.mesh is None:
      object.__setattr__(self, "mesh", partitioning.make_mesh())
    partitioning.check_division(self.batch_size, 1, self.mesh)
    self.decoding.validate()
    if self._searches:
      check_beams(self.decoding.size, self.model.vocabulary_size - 1)  # no PAD
    if self._searches and self.num_samples > self.decoding.size:
      raise UserError(
        f"num_samples is {self.num_samples}, but a search finds at most as many"
        f" completions of a prompt as it has beams, {self.decoding.size}; give"
        " no more"
      )
    if not len(self.prompts) or not self.num_prompts:
      raise UserError(
        f"cache {self.prompts.path} has no prompts to complete; check the task"
        " and its split"
      )
    longest, limit = self.width, self.lengths["inputs"]
    if longest > limit:
      raise UserError(
        f"inputs length {limit} is too short for the cache {self.prompts.path},"
        f" which has a prompt of {longest} tokens; set TASK_FEATURE_LENGTHS to"
        f" {longest} inputs or more, or make a cache with the shorter length"
      )

  @property
  def _searches(self) -> bool:
    return isinstance(self.decoding, BeamSearch)

  @property
  def passes(self) -> int:
    """How often a batch of prompts is answered."""
    return 1 if self._searches else self.num_samples

  @property
  def counted(self) -> tuple[str, ...]:
    """What is added up over the completions, see `Result`."""
    more = ("missing", "same_text") if self._searches else ()
    return ("tokens", "truncated", *more)

  @property
  def num_prompts(self) -> int:
    return len(self.prompts) if self.rows is None else len(self.rows)

  @property
  def width(self) -> int:
    """Tokens of the longest prompt: the width of all batches."""
    return self.prompts.info["longest"]["inputs"]

  @property
  def prompts_per_shard(self) -> int:
    if self.shard_prompts is not None:
      return self.shard_prompts
    unit = max(_MIN_SHARD_PROMPTS, self.batch_size)
    return -(-self.num_prompts // (_SHARDS * unit)) * unit

  @functools.cached_property
  def key(self) -> dict[str, Any]:
    """JSON of all that the rows depend on, and their place in shards."""
    chosen = None
    if self.num_prompts < len(self.prompts):
      content = np.asarray(self.rows, "<i8").tobytes()
      chosen = hashlib.sha256(content).hexdigest()
    info, way = self.prompts.info, self.decoding
    if isinstance(way, BeamSearch):
      numbers = {"beam_size": way.size, "beam_alpha": way.alpha}
    else:
      names = "temperature", "top_k", "top_p"
      numbers = {name: getattr(way, name) for name in names}
    key = {
      "source": self.writer,
      "parameters": dict(self.parameters),
      "model": dataclasses.asdict(self.model.config),
      "prompts": {
        **{name: info[name] for name in ("task", "split", "hash")},
        "rows": self.num_prompts,
        "chosen": chosen,
      },
      "lengths": dict(self.lengths),
      **numbers,
      "num_samples": self.num_samples,
      **({} if self._searches else {"seed": self.seed}),
      "shard_prompts": self.prompts_per_shard,
    }
    return json.loads(json.dumps(key))  # lists for tuples, as it comes back

  @property
  def words(self) -> str:
    """One sentence for the start-up print."""
    info = self.prompts.info
    each = "a completion" if self.num_samples == 1 else "completions"
    count = "" if self.num_samples == 1 else f"{self.num_samples:,} "
    found = "found" if self._searches else "drawn"
    seed = "" if self._searches else f", seed {self.seed}"
    return (
      f"{count}{each} of each of {self.num_prompts:,} prompts of"
      f" {info['task']} {info['split']}, {found} {self.decoding.describe()}, at"
      f" most {self.lengths['targets']:,} tokens{seed}; written"
      f" {self.prompts_per_shard:,} prompts at a time"
    )

  def shard(self, index: int) -> Sequence[int]:
    """Rows of `prompts` whose completions go into shard `index`."""
    rows = range(len(self.prompts)) if self.rows is None else self.rows
    size = self.prompts_per_shard
    return rows[index * size : (index + 1) * size]

  @property
  def num_shards(self) -> int:
    return -(-self.num_prompts // self.prompts_per_shard)


class Result(NamedTuple):
  """What was written, all of it and by this call."""

  path: str
  prompts: int
  completions: int
  tokens: int  # EOS included
  truncated: int  # completions that ended without EOS
  missing: int  # fewer than were asked for, as a search ended too few beams
  same_text: int  # other tokens, but the text of a better one of the prompt
  new_completions: int  # by this call; the others were there already
  new_tokens: int
  seconds: float  # of this call, from the moment that parameters are loaded
  compile_seconds: float  # of those

  @property
  def words(self) -> str:
    """The summary line."""
    text = (
      f"{self.completions:,} completions of {self.prompts:,} prompts in"
      f" {self.path}: {self.tokens:,} tokens, mean length"
      f" {self.tokens / self.completions:.1f},"
      f" {self.truncated / self.completions:.1%} cut without EOS"
    )
    if self.missing:
      text += f", {self.missing:,} missing, as fewer beams ended"
    if self.same_text:
      text += f", {self.same_text:,} with the text of a better one"
    if not self.new_completions:
      return f"{text}; complete, nothing to do"
    now = ""
    if self.new_completions < self.completions:
      now = f"{self.new_completions:,} of them now, "
    seconds = max(self.seconds - self.compile_seconds, 1e-9)
    return (
      f"{text}; {now}in {self.seconds:.1f} s, of which"
      f" {self.compile_seconds:.1f} s compiling: a rate of"
      f" {self.new_completions / seconds:,.1f} completions/s,"
      f" {self.new_tokens / seconds:,.0f} tokens/s"
    )
