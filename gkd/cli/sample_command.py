"""`gkd sample`: completions of a task's prompts, as a token cache.

Training reads the result like any other cache (TRAIN_CACHE). See
`gkd.data.completions.write` for what it guarantees.
"""

import dataclasses
import datetime
from pathlib import Path

import jax

import gkd
from gkd import files
from gkd import partitioning
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.config import configuration
from gkd.config import model_spec
from gkd.config import parameters
from gkd.config.command_records import SampleConfig
from gkd.config.datasets import open_cache
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.data.completions import write
from gkd.data.completions.spec import Completions
from gkd.data.subset import rising

_CHECKPOINT = "INITIAL_CHECKPOINT_PATH"


def sample(folders: Folders) -> str:
  """Samples what the loaded configuration describes; returns the folder."""
  asked = configuration.build(SampleConfig)
  files.check_folder(asked.output, "OUTPUT_DIR")
  configuration.refuse_idle_flags(asked.idle())
  found = parameters.locate(asked.checkpoint, _CHECKPOINT)
  data = parameters.with_tokenizer(asked.data, {_CHECKPOINT: found})
  cache = open_cache(data, folders)
  size = cache.info["vocabulary"]["size"]
  if not isinstance(asked.model, model_spec.OfCheckpoint):
    model_spec.check_vocabularies({"student": asked.model}, size)
  parameters.check_tokenizer(found, _CHECKPOINT, cache.vocabulary)
  model = model_spec.built(asked.model, found, "STUDENT_MODEL", size)
  model_spec.check_vocabularies({"student": model}, size)
  asked = dataclasses.replace(asked, model=model, data=data)
  completions = plan(asked, cache, found)
  result = write.write_completions(
    Path(asked.output).expanduser(),
    completions,
    lambda: parameters.load(found, asked.model, _CHECKPOINT, completions.mesh),
    provenance(found),
  )
  print(result.describe())
  print(f"train on them with --gin.TRAIN_CACHE={result.path}")
  return result.path


def plan(
  asked: SampleConfig, cache: TokenCache, found: Checkpoint
) -> Completions:
  """Who completes which prompts; checked, nothing computed."""
  return Completions(
    model=asked.model,
    parameters={"sha256": found.content_sha256, "step": found.step},
    prompts=cache,
    lengths=asked.data.lengths,
    rows=rising(asked.data.subset.of(cache, asked.seed)),
    decoding=asked.strategy,
    num_samples=asked.num_samples,
    seed=asked.seed,
    writer=asked.writer,
    batch_size=asked.batch_size,
    shard_prompts=asked.shard_prompts,
    mesh=partitioning.make_mesh(model=asked.model_parallelism),
  )


def provenance(found: Checkpoint) -> dict[str, str]:
  """What is worth knowing of the rows beside what they depend on."""
  now = datetime.datetime.now(datetime.UTC)
  return {
    "checkpoint": str(found.path),
    "date": now.isoformat(timespec="seconds"),
    "program": f"gkd {gkd.__version__}, jax {jax.__version__}",
    "config": configuration.operative(),
  }
