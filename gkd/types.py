"""Records that every layer shares: a batch of sequences and a language model.

Letters used in shapes throughout the project:
  B batch rows        I input (prompt) length   T target length
  V vocabulary width  D model width             H attention heads
  K size of a head    F width of the MLP        L layers

`Vocabulary.pad_id`, `Vocabulary.eos_ids` and `LanguageModel.start_id` pad, end
and start a sequence. Masks and weights mark the real tokens, never an id: a
filler may be any id, here it is 0.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import enum
import functools
from typing import Any
from typing import Literal
from typing import NamedTuple

import flax.struct
import jax

# Part of this module's names.
from gkd.errors import UserError as UserError

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key`
Params = Mapping[str, Any]  # nested dict of arrays, T5X names
Cache = Any  # pytree that `LanguageModel.decode` threads through
Axes = tuple[str | None, ...]  # logical axis names of one parameter
Memory = Literal["device", "pinned_host"]
# (logical axis, mesh axis, axes or None), the first that fits holds.
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]


class Source(enum.IntEnum):
  """Who wrote the targets of a batch row."""

  DATASET = 0
  STUDENT = 1
  TEACHER = 2


class Pair(NamedTuple):
  """Segments or positions of a packed batch: one array per side."""

  inputs: Array  # [B, I] int32
  targets: Array  # [B, T] int32


@flax.struct.dataclass
class Batch:
  """One global batch, right-padded.

  Attributes:
    inputs: [B, I] int32 prompt ids, EOS included.
    input_mask: [B, I] bool, True on prompt ids. A filler row has one True.
    targets: [B, T] int32 target ids, EOS included.
    weights: [B, T] float32; 1 where a target counts (EOS included), 0 on
      padding and on rows that have no target.
    rows: [B] int32 global row ids; a row's random draws depend on these, and
      for an id that occurs again on which one it is, not on its place in the
      batch. -1 marks a filler row of a last batch.
    source: [B] int32, a `Source`.
    segments: optional `Pair` of segment ids (1, 2, …; 0 = padding) of a packed
      batch.
    positions: optional `Pair` of positions within each segment.
    advantages: optional [B] or [B, T] float32, what a policy gradient weighs
      the log-probabilities of the targets by.
    log_probs: optional [B, T] float32, of each sampled target under what it was
      drawn from, 0 for others.
    staleness: optional [B] int32, of a row that the student wrote: the updates
      between the parameters that drew it and those that learn from it.
    teacher_inputs: optional [B, I'] int32, what a `privileged` model reads in
      place of the inputs.
    teacher_input_mask: its mask, [B, I'] bool.
    teacher: optional [B] int32, which of several teachers scores the row.
  """

  inputs: Array
  input_mask: Array
  targets: Array
  weights: Array
  rows: Array
  source: Array
  segments: Pair | None = None
  positions: Pair | None = None
  advantages: Array | None = None
  log_probs: Array | None = None
  staleness: Array | None = None
  teacher_inputs: Array | None = None
  teacher_input_mask: Array | None = None
  teacher: Array | None = None


def unchanged(params: Params) -> Params:
  return params


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A model as a record of pure functions; losses and samplers see only this.

  Attributes:
    config: the family's own frozen, hashable configuration.
    vocabulary_size: number of real ids; logits may be wider (padded rows).
    start_id: the decoder's first input.
    init: `init(key) -> params`; stacks of layers where the model loops over
      them, see `layer_stack`.
    shapes: `shapes() -> params` as `jax.ShapeDtypeStruct`s, of a family that
      has them in a table; None to trace `init`, which takes seconds where there
      are many layers.
    hidden: `hidden(params, inputs [B,I], targets [B,T], *, input_mask=None,
      segments=None, positions=None, dropout_key=None) -> [B,T,D]`, aligned with
      targets: state t predicts `targets[:, t]`. Dropout is off without a key.
      `input_mask` [B,I] is True on prompt ids; without one the family follows
      its own convention (T5: all ids but the padding).
    head: `head(params, hidden [...,D]) -> [...,V]` raw float32 logits.
    prefill: `prefill(params, inputs [B,I], max_length, *, input_mask=None) ->
      (cache, logits [B,V])`, the logits of the first target. Arrays of the
      cache have B as their leading axis and mix no rows, so that rows may be
      picked, repeated and reordered; scalars hold for all rows.
    decode: `decode(params, cache, tokens [B]) -> (cache, logits [B,V])`, feeds
      the tokens just chosen and returns the logits of the next ones. What of
      the cache does not depend on the tokens is handed on as it is.
    axes: `axes(params) -> tree` of logical axis names, one `Axes` per array.
    gathered: `gathered(params) -> params` for many calls of `head` or `decode`,
      whose results are the same: of the type that layers compute in, and no
      longer split over devices that have rows of their own. Without stacks of
      layers, so that `decode` needs them unstacked before.
    rules: how parameters are split over a mesh; None for those of
      `logical_axes.DEFAULT`.
    gathers_to_sample: whether a sampler calls `gathered` before its loop.
    sampling_dtype: what a sampler rounds the weights of its products to; None
      for the type in which the model computes.
    privileged: whether it reads the `teacher_inputs` of a batch that has them.
    memory: where its parameters lie between programs: "device", or the host's
      "pinned_host", whence `on_device` moves them.
  """

  config: Any
  vocabulary_size: int
  start_id: int
  init: Callable[[Key], Params]
  hidden: Callable[..., Array]
  head: Callable[[Params, Array], Array]
  prefill: Callable[..., tuple[Cache, Array]]
  decode: Callable[[Params, Cache, Array], tuple[Cache, Array]]
  axes: Callable[[Params], Any]
  shapes: Callable[[], Params] | None = None
  gathered: Callable[[Params], Params] = unchanged
  rules: Rules | None = None
  gathers_to_sample: bool = True
  sampling_dtype: str | None = None
  privileged: bool = False
  memory: Memory = "device"

  def prompts(self, batch: Batch) -> tuple[Array, Array]:
    """What the model reads of a batch, [B, I], and where it is one, [B, I]."""
    if not self.privileged or batch.teacher_inputs is None:
      return batch.inputs, batch.input_mask
    assert batch.segments is None, "rows of a packed batch have one prompt"
    return batch.teacher_inputs, batch.teacher_input_mask

  def hidden_of(
    self, params: Params, batch: Batch, *, dropout_key: Key | None = None
  ) -> Array:
    """`hidden` [B, T, D] of a batch, with its mask, segments and positions."""
    inputs, input_mask = self.prompts(batch)
    return self.hidden(
      params,
      inputs,
      batch.targets,
      input_mask=input_mask,
      segments=batch.segments,
      positions=batch.positions,
      dropout_key=dropout_key,
    )

  def head_of(self, params: Params, batch: Batch) -> Callable[[Array], Array]:
    """`head` for the hidden states of a batch and many calls."""
    del batch  # all rows have the same head
    return functools.partial(self.head, self.gathered(params))

  def logits(self, params: Params, inputs: Array, targets: Array, **kwargs):
    """Raw float32 logits [B, T, V], aligned with targets."""
    return self.head(params, self.hidden(params, inputs, targets, **kwargs))

  def on_device(self, params: Params) -> Params:
    """The parameters in the memory of the devices, inside jit.

    To be called before a loop that uses them, which else copies them each time.
    """
    if self.memory == "device":
      return params
    return jax.device_put(params, jax.memory.Space.Device)

  @property
  def abstract_params(self) -> Params:
    """Shapes and types of the parameters."""
    return _abstract_params(self)


@functools.lru_cache(maxsize=64)
def _abstract_params(model: LanguageModel) -> Params:
  if model.shapes is not None:
    return model.shapes()
  return jax.eval_shape(lambda: model.init(jax.random.key(0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A language model with parameters: what a role of a run is.

  Attributes:
    lm: its functions.
    params: nested dict of arrays; of a student also a function that makes them,
      as a run that is resumed does not need them.
    vocabulary: that of its checkpoint; None where it is not known.
    path: where the parameters come from; "" if they were made in the program.
    content_sha256: of the parameters, `checkpoint.content_sha256`; "" where it
      is not known.
  """

  lm: LanguageModel
  params: Params | Callable[[], Params]
  vocabulary: Any = None
  path: str = ""
  content_sha256: str = ""

  @property
  def config(self) -> Any:
    """The configuration of the family."""
    return self.lm.config
