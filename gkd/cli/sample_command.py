"""`gkd sample`: completions of a task's prompts, as a token cache.

Training reads the result like any other cache (TRAIN_CACHE). See
`gkd.data.completions.write` for what it guarantees.
"""

import dataclasses
import datetime
from pathlib import Path
from typing import Literal

import jax

import gkd
from gkd import partitioning
from gkd.checkpoints.trained import Located
from gkd.cli import outputs
from gkd.config import checks
from gkd.config import configuration
from gkd.config import decoding
from gkd.config import evaluations
from gkd.config import model_spec
from gkd.config import parameters
from gkd.config import records
from gkd.config.datasets import Folders
from gkd.config.datasets import open_cache
from gkd.data.cache import TokenCache
from gkd.data.completions import write
from gkd.data.completions.spec import Completions
from gkd.data.subset import rising
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import Strategy
from gkd.types import UserError

_CHECKPOINT = "INITIAL_CHECKPOINT_PATH"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """What `configs/runs/sample.gin` describes.

  Attributes:
    output: folder of the token cache that is written.
    model: who writes.
    checkpoint: its parameters.
    data: where the prompts are.
    decoding: temperature, top-k, top-p.
    num_samples: completions of each prompt.
    beam_size: of a search that finds them instead; 0 draws.
    beam_alpha: exponent of its length penalty.
    batch_size: prompts at once.
    seed: of the draws.
    writer: what the model is to those who train on its completions.
    shard_prompts: prompts whose completions are written at a time, which is
      what a kill may lose; None for a 256th of them, at least 256.
    model_parallelism: devices that share one copy of the parameters.
  """

  output: str
  model: model_spec.Model
  checkpoint: str
  data: records.Data
  decoding: SamplingParams
  num_samples: int = 1
  beam_size: int = 0
  beam_alpha: float = 0.6
  batch_size: int = 32
  seed: int = 0
  writer: Literal["teacher", "student"] = "teacher"
  shard_prompts: int | None = None
  model_parallelism: int = 1

  def __post_init__(self):
    if not self.output:
      raise UserError("OUTPUT_DIR is empty; give the folder to write")
    checks.at_least_one("NUM_SAMPLES", self.num_samples)
    checks.at_least_one("BATCH_SIZE", self.batch_size)
    checks.at_least_one("MODEL_PARALLELISM", self.model_parallelism)
    if self.shard_prompts is not None:
      checks.at_least_one("SHARD_PROMPTS", self.shard_prompts)
    checks.seed(self.seed)
    _ = self.way  # what cannot be is refused now

  @property
  def way(self) -> Strategy:
    """How completions come about."""
    return decoding.sampled(
      self.decoding, self.beam_size, self.beam_alpha, self.num_samples
    )


def sample(folders: Folders) -> str:
  """Samples what the loaded configuration describes; returns the folder."""
  asked = configuration.build(Sampling)
  outputs.check_folder(asked.output, "OUTPUT_DIR")
  evaluations.refuse_idle_names(asked.data, None)
  decoding.refuse_idle_flags(asked.way)
  found = parameters.locate(asked.checkpoint, _CHECKPOINT, folders.cache_dir)
  data = parameters.with_tokenizer(asked.data, {_CHECKPOINT: found})
  cache = open_cache(data, folders)
  size = cache.info["vocabulary"]["size"]
  if not isinstance(asked.model, model_spec.OfCheckpoint):
    model_spec.check_vocabularies({"student": asked.model}, size)
  parameters.check_tokenizer(found, _CHECKPOINT, cache.vocabulary)
  model = model_spec.of(asked.model, found, "STUDENT_MODEL", size)
  model_spec.check_vocabularies({"student": model}, size)
  asked = dataclasses.replace(asked, model=model, data=data)
  result = write.write_completions(
    Path(asked.output).expanduser(),
    plan(asked, cache, found),
    lambda: parameters.load(str(found.path), asked.model, _CHECKPOINT),
    provenance(found),
  )
  print(result.words)
  print(f"train on them with --gin.TRAIN_CACHE={result.path}")
  return result.path


def plan(asked: Sampling, cache: TokenCache, found: Located) -> Completions:
  """Who completes which prompts; checked, nothing computed."""
  return Completions(
    model=asked.model,
    parameters={"sha256": found.sha256, "step": found.step},
    prompts=cache,
    lengths=asked.data.lengths,
    rows=rising(asked.data.subset.of(cache, asked.seed)),
    decoding=asked.way,
    num_samples=asked.num_samples,
    seed=asked.seed,
    writer=asked.writer,
    batch_size=asked.batch_size,
    shard_prompts=asked.shard_prompts,
    mesh=partitioning.make_mesh(model=asked.model_parallelism),
  )


def provenance(found: Located) -> dict[str, str]:
  """What is worth knowing of the rows beside what they depend on."""
  now = datetime.datetime.now(datetime.UTC)
  return {
    "checkpoint": str(found.path),
    "date": now.isoformat(timespec="seconds"),
    "program": f"gkd {gkd.__version__}, jax {jax.__version__}",
    "config": configuration.operative(),
  }
