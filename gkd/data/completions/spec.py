"""What a model completes and how; a summary of what was written."""

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
from gkd.sampling.generate import forbidden_ids
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import Strategy
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
    model: writes them.
    parameters: JSON that names its parameters, such as the sha256 of their
      checkpoint; what others wrote is never continued.
    prompts: the cache whose prompts are completed.
    lengths: {"inputs": I, "targets": T}; a completion has at most T tokens.
    rows: rows of `prompts`, ascending; None for all.
    decoding: draws, or takes the best of a search; host numbers.
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
    model = partitioning.partitioned(self.model, self.mesh)
    object.__setattr__(self, "model", model)
    if self.rows is None:
      object.__setattr__(self, "rows", range(len(self.prompts)))
    partitioning.check_division(self.batch_size, 1, self.mesh)
    self.decoding.validate()
    vocabulary = self.prompts.vocabulary
    forbidden = forbidden_ids(self.model.start_id, vocabulary)
    self.decoding.check_num_ids(self.model.vocabulary_size - len(forbidden))
    most = self.decoding.max_samples
    if self.decoding.is_search and self.num_samples > most:
      raise UserError(
        f"num_samples is {self.num_samples}, but a search finds at most as many"
        f" completions of a prompt as it has beams, {most}; give no more"
      )
    if not len(self.prompts) or not len(self.rows):
      raise UserError(
        f"cache {self.prompts.path} has no prompts to complete; check the task"
        " and its split"
      )
    if self.width > self.lengths["inputs"]:
      raise UserError(
        f"inputs length {self.lengths['inputs']} is too short for the cache"
        f" {self.prompts.path}, which has a prompt of {self.width} tokens; set"
        f" TASK_FEATURE_LENGTHS to {self.width} inputs or more, or make a cache"
        " with the shorter length"
      )

  @property
  def width(self) -> int:
    """Tokens of the longest prompt: the width of all batches."""
    return self.prompts.info["longest"]["inputs"]

  @property
  def prompts_per_shard(self) -> int:
    if self.shard_prompts is not None:
      return self.shard_prompts
    unit = max(_MIN_SHARD_PROMPTS, self.batch_size)
    return -(-len(self.rows) // (_SHARDS * unit)) * unit

  @property
  def num_shards(self) -> int:
    return -(-len(self.rows) // self.prompts_per_shard)

  def shard(self, index: int) -> Sequence[int]:
    """Rows of `prompts` whose completions go into shard `index`."""
    size = self.prompts_per_shard
    return self.rows[index * size : (index + 1) * size]

  @functools.cached_property
  def key(self) -> dict[str, Any]:
    """JSON of all that the rows depend on, and their place in shards."""
    chosen = None
    if len(self.rows) < len(self.prompts):
      content = np.asarray(self.rows, "<i8").tobytes()
      chosen = hashlib.sha256(content).hexdigest()
    info, decoding = self.prompts.info, self.decoding.settings()
    del decoding["strategy"]  # its numbers tell it
    key = {
      "source": self.writer,
      "parameters": dict(self.parameters),
      "model": dataclasses.asdict(self.model.config),
      "prompts": {
        **{name: info[name] for name in ("task", "split", "hash")},
        "rows": len(self.rows),
        "chosen": chosen,
      },
      "lengths": dict(self.lengths),
      **decoding,
      "num_samples": self.num_samples,
      **({} if self.decoding.is_search else {"seed": self.seed}),
      "shard_prompts": self.prompts_per_shard,
    }
    return json.loads(json.dumps(key))  # lists for tuples, as it comes back

  def describe(self) -> str:
    """One sentence for the start-up print."""
    info, n = self.prompts.info, self.num_samples
    verb = "found" if self.decoding.is_search else "drawn"
    seed = "" if self.decoding.is_search else f", seed {self.seed}"
    return (
      f"{'a completion' if n == 1 else f'{n:,} completions'} of each of"
      f" {len(self.rows):,} prompts of {info['task']} {info['split']},"
      f" {verb} {self.decoding.describe()}, at"
      f" most {self.lengths['targets']:,} tokens{seed}; written"
      f" {self.prompts_per_shard:,} prompts at a time"
    )


class Result(NamedTuple):
  """What was written, all of it and by this call."""

  path: str
  prompts: int
  completions: int
  tokens: int  # EOS included
  truncated: int  # completions that ended without EOS
  missing: int = 0  # fewer than `num_samples`: too few beams ended
  same_text: int = 0  # other tokens, but the text of a better one of the prompt
  new_completions: int = 0  # by this call; the others were there already
  new_tokens: int = 0
  seconds: float = 0.0  # of this call, once parameters are loaded
  compile_seconds: float = 0.0  # of those

  def describe(self) -> str:
    """The summary line."""
    total = self.completions
    text = (
      f"{total:,} completions of {self.prompts:,} prompts in {self.path}:"
      f" {self.tokens:,} tokens, mean length {self.tokens / total:.1f},"
      f" {self.truncated / total:.1%} cut without EOS"
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
