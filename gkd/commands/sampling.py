"""`gkd sample`: completions of a task's prompts, as a token cache.

Training reads the result like any other cache (TRAIN_CACHE). See
`gkd.data.offline` for what it guarantees.
"""

import datetime
from pathlib import Path

import jax

import gkd
from gkd import partitioning
from gkd.checkpoints.trained import Located
from gkd.commands import configuration
from gkd.commands import outputs
from gkd.commands import parameters
from gkd.commands.datasets import Folders
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Sampling
from gkd.commands.training import check_vocabularies
from gkd.data import offline
from gkd.data.cache import TokenCache
from gkd.data.completions import Completions
from gkd.data.subset import rising

_CHECKPOINT = "INITIAL_CHECKPOINT_PATH"


def sample(folders: Folders) -> str:
  """Samples what the loaded configuration describes; returns the folder."""
  settings = configuration.build(Sampling)
  outputs.check_folder(settings.output, "OUTPUT_DIR")
  found = parameters.locate(settings.checkpoint, _CHECKPOINT)
  cache = open_cache(settings.data, folders)
  check_vocabularies(
    {"student": settings.model}, cache.info["vocabulary"]["size"]
  )
  result = offline.write_completions(
    Path(settings.output).expanduser(),
    plan(settings, cache, found),
    lambda: parameters.load(
      str(found.path), settings.model, _CHECKPOINT, cache
    ),
    provenance(found),
  )
  print(result.words)
  print(f"train on them with --gin.TRAIN_CACHE={result.path}")
  return result.path


def plan(settings: Sampling, cache: TokenCache, found: Located) -> Completions:
  """Who completes which prompts; checked, nothing computed."""
  return Completions(
    model=settings.model,
    parameters={"sha256": found.sha256, "step": found.step},
    prompts=cache,
    lengths=settings.data.lengths,
    rows=rising(settings.data.subset.of(cache, settings.seed)),
    decoding=settings.decoding,
    num_samples=settings.num_samples,
    seed=settings.seed,
    writer=settings.writer,
    batch_size=settings.batch_size,
    shard_prompts=settings.shard_prompts,
    mesh=partitioning.make_mesh(model=settings.model_parallelism),
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
