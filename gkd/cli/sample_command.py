"""`gkd sample`: completions of a task's prompts, as a token cache.

Training reads the result like any other cache (TRAIN_CACHE). See
`gkd.data.completions.write` for what it guarantees.
"""

import datetime

import jax

import gkd
from gkd import files
from gkd.config import configuration
from gkd.config import datasets
from gkd.config import setup
from gkd.config.command_records import SampleConfig
from gkd.config.records import Folders
from gkd.data.completions import write
from gkd.data.completions.spec import Completions
from gkd.data.subset import rising


def sample(folders: Folders) -> str:
  """Samples what the loaded configuration describes; returns the folder."""
  config = configuration.build(SampleConfig)
  files.check_folder(config.output, "OUTPUT_DIR")
  configuration.refuse_idle_flags(config.idle())
  datasets.refuse_several(config.data, folders)
  resolved = setup.resolve(
    {"student": config.student},
    folders,
    config.mesh(),
    train=config.data,
  )
  checkpoint = resolved.checkpoints["student"]
  prompts = resolved.mixture.caches[0]
  completions = Completions(
    model=resolved.models["student"],
    parameters={"sha256": checkpoint.content_sha256, "step": checkpoint.step},
    prompts=prompts,
    lengths=config.data.lengths,
    rows=rising(config.data.subset.of(prompts, config.seed)),
    decoding=config.strategy,
    num_samples=config.num_samples,
    seed=config.seed,
    writer=config.writer,
    batch_size=config.batch_size,
    shard_prompts=config.shard_prompts,
    mesh=resolved.mesh,
  )
  now = datetime.datetime.now(datetime.UTC)
  provenance = {  # what is worth knowing beside what the rows depend on
    "checkpoint": str(checkpoint.path),
    "date": now.isoformat(timespec="seconds"),
    "program": f"gkd {gkd.__version__}, jax {jax.__version__}",
    "config": configuration.operative(),
  }
  result = write.write_completions(
    files.local_path(config.output),
    completions,
    lambda: resolved.params("student"),
    provenance,
  )
  if result is None:
    return config.output
  print(result.describe())
  print(f"train on them with --gin.TRAIN_CACHE={result.path}")
  export = f"gkd cache export {result.path} --output=FILE.jsonl"
  print(f"for a student of another tokenizer take their text: {export}")
  return result.path
