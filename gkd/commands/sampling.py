"""`gkd sample`: completions of a task's prompts, as a token cache.

Training reads the result like any other cache (TRAIN_CACHE). Rows of the same
prompt follow one another; completion k of prompt n depends only on the seed, n
and k.
"""

from collections.abc import Iterator
import functools
from pathlib import Path

import jax
import numpy as np
import tqdm

from gkd import keys
from gkd.commands import configuration
from gkd.commands import parameters
from gkd.commands.datasets import Folders
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Sampling
from gkd.commands.training import check_vocabularies
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.sampling.sampler import sample as draw
from gkd.types import Params


def sample(folders: Folders) -> str:
  """Samples what the loaded configuration describes; returns the folder."""
  settings = configuration.build(Sampling)
  cache = open_cache(settings.data, folders)
  check_vocabularies(
    {"student": settings.model}, cache.info["vocabulary"]["size"]
  )
  params = parameters.load(
    settings.checkpoint, settings.model, "INITIAL_CHECKPOINT_PATH", cache
  )
  info = {
    "task": cache.info["task"],
    "split": cache.info["split"],
    "lengths": dict(settings.data.lengths),
    "vocabulary": cache.vocabulary,
    "postprocess": cache.info["postprocess"],
    "metrics": cache.info["metrics"],
    "written_by": {
      "checkpoint": settings.checkpoint,
      "decoding": settings.decoding.words,
      "num_samples": settings.num_samples,
      "seed": settings.seed,
      "prompts": cache.info["hash"],
    },
  }
  output = Path(settings.output).expanduser()
  path = write_rows(output, completions(settings, params, cache), info)
  print(f"{len(TokenCache(path)):,} completions in {path}")
  print(f"train on them with --gin.TRAIN_CACHE={path}")
  return path


def completions(
  settings: Sampling, params: Params, cache: TokenCache
) -> Iterator[Row]:
  """Rows of prompt and completion; the reference stays the task's own."""
  loader = Loader(
    cache,
    batch_size=settings.batch_size,
    lengths=settings.data.lengths,
    seed=settings.seed,
    limit=settings.data.limit,
  )
  generate = jax.jit(
    functools.partial(
      draw, settings.model, max_length=settings.data.lengths["targets"]
    )
  )
  progress = tqdm.tqdm(total=loader.num_rows, desc="sample", unit=" prompts")
  for batch, rows in loader.ordered():
    drawn = []
    for k in range(settings.num_samples):
      key = keys.stream(settings.seed, k, keys.Role.OFFLINE_SAMPLE)
      samples = generate(
        params, batch.inputs, batch.rows, key, settings.decoding
      )
      drawn.append(jax.device_get((samples.tokens, samples.lengths)))
    for place, row in enumerate(rows):
      for tokens, lengths in drawn:
        kept = np.asarray(tokens[place, : lengths[place]], np.int32)
        yield row._replace(targets=kept)
    progress.update(len(rows))
  progress.close()
