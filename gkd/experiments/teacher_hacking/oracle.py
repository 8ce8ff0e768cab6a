"""Makes an oracle, which stands for the truth, and prompts for it.

  python -m gkd.experiments.teacher_hacking.oracle runs/oracle
  python -m gkd.experiments.teacher_hacking.oracle runs/oracle --family=markov

It is a T5 with random weights, a function of prompt and answer that smaller
models learn in part only, or a Markov chain, whose exact distribution is known.
The folder holds `model/`, a saved model that every command opens, with its
vocabulary, and `prompts/`, a file of JSON lines for each split, for DATA_FILES.
Prompts are random texts of one length, each of them once.
"""

import argparse
from collections.abc import Sequence
import json
import math
from pathlib import Path
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np

from gkd import files
from gkd import keys
from gkd import trees
from gkd.checkpoints import atomic_dir
from gkd.checkpoints.checkpoint import VOCABULARY_KEY
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.errors import check_number
from gkd.models.markov import MarkovConfig
from gkd.models.markov import markov_chain
from gkd.models.t5 import T5Config
from gkd.models.t5 import encoder_decoder
from gkd.text.characters import CharacterVocabulary
from gkd.types import Key
from gkd.types import Params
from gkd.types import UserError

_T5 = {
  "emb_dim": 64,
  "num_heads": 2,
  "head_dim": 32,
  "mlp_dim": 128,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "mlp_activations": ("gelu", "linear"),
}
_BIAS = 4.0  # the deviation of the other coordinates is 1
_MOST_LOGITS = 1e8
# The oracle answers those of `train`, which teacher and student learn from
# before they are distilled on others.
_PROMPTS = {"train": 4_000, "distillation": 800, "validation": 1_000}


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder", type=Path, help="a new folder")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--characters", default="abcdefghijk")
  parser.add_argument("--family", choices=("t5", "markov"), default="t5")
  parser.add_argument(
    "--sharpness", type=float, default=4.0, help="deviation of the logits"
  )
  parser.add_argument("--order", type=int, default=1, help="of a chain")
  parser.add_argument(
    "--mean_length",
    type=float,
    default=60.0,
    help="of answers that are not cut",
  )
  parser.add_argument("--prompt_length", type=int, default=8)
  for split, size in _PROMPTS.items():
    parser.add_argument(f"--{split}", type=int, default=size, help="prompts")
  args = parser.parse_args(arguments)
  sizes = {split: getattr(args, split) for split in _PROMPTS}
  vocabulary = CharacterVocabulary(args.characters)
  # The tables of a chain, as many logits as V^(order + 2), have to fit.
  largest = round(math.log(_MOST_LOGITS, vocabulary.size)) - 2
  positive = (*sizes, "prompt_length", "order", "sharpness")
  ends = dict.fromkeys(positive, (0, math.inf))
  ends |= {"mean_length": (1, math.inf), "seed": (-1, 2**31)}
  ends["order"] = (0, largest + 1)
  for name, (low, high) in ends.items():
    check_number(
      f"--{name}",
      getattr(args, name),
      lambda x, low=low, high=high: low < x < high,
      f"a number above {low}" + f" and below {high}" * (high < math.inf),
    )
  texts = prompts(args.characters, args.prompt_length, sizes, args.seed)
  key = keys.stream(args.seed, 0, keys.Role.INIT)
  if args.family == "markov":
    config = MarkovConfig(
      vocab_size=vocabulary.size,
      order=args.order,
      sharpness=args.sharpness,
      mean_length=args.mean_length,
    )
    params = markov_chain(config).init(key)
  else:
    config = T5Config(vocab_size=vocabulary.size, **_T5)
    params = random_t5(config, key, args.sharpness, args.mean_length)
  with atomic_dir.create(args.folder) as partial:
    write_model(partial / "model", config, params, vocabulary)
    (partial / "prompts").mkdir()
    for split, lines in texts.items():
      text = "".join(json.dumps({"inputs": line}) + "\n" for line in lines)
      files.write_text(partial / "prompts" / f"{split}.jsonl", text)


def random_t5(
  config: T5Config, key: Key, sharpness: float, mean_length: float
) -> Params:
  """Random weights whose logits have the standard deviation `sharpness`.

  Padding and the unknown token get no probability, the end about the same
  logit everywhere. A head has no bias, so the first coordinate is made one: it
  is equal in all embeddings and no layer adds to it.
  """
  init, text = jax.random.split(key)
  model = encoder_decoder(config)
  flat = trees.flatten(model.init(init))
  embedding = flat["token_embedder/embedding"]
  flat["token_embedder/embedding"] = embedding.at[:, 0].set(_BIAS)
  for name in flat:
    if name.endswith(("out/kernel", "wo/kernel")):
      flat[name] = flat[name].at[:, 0].set(0.0)
  ends, unused = list(config.eos_ids), list(MarkovConfig.unused_ids)
  others = np.setdiff1d(np.arange(config.vocab_size), ends + unused)
  x, y = jax.random.choice(text, others, (2, 256, 8))
  hidden = model.hidden(trees.unflatten(flat), x, y)
  head = flat["decoder/logits_dense/kernel"].at[0].set(0.0)
  head = head.at[:, ends + unused].set(0.0)
  head *= sharpness / jnp.mean(jnp.std((hidden @ head)[..., others], axis=-1))
  total = jnp.mean(jax.nn.logsumexp((hidden @ head)[..., others], axis=-1))
  bias = jnp.mean(hidden[..., 0])
  end = total - math.log(mean_length - 1)
  head = head.at[0, ends].set(end / bias).at[0, unused].set(-20.0 / bias)
  flat["decoder/logits_dense/kernel"] = head
  return trees.unflatten(flat)


def write_model(
  folder: Path,
  config: T5Config | MarkovConfig,
  params: Params,
  vocabulary: CharacterVocabulary,
) -> None:
  """Writes a saved model that every command opens."""
  folder.mkdir()
  leaves = {
    name: Leaf(array.shape, array.dtype.name, lambda array=array: array)
    for name, array in trees.flatten(jax.device_get(params)).items()
  }
  spec = run_folder.write_vocabulary(folder, vocabulary)
  about = {"vocabulary": spec, VOCABULARY_KEY: spec["sha256"]}
  about |= native_checkpoint.description(config)
  native_checkpoint.write_model(folder, leaves, about)


def prompts(
  characters: str, length: int, sizes: dict[str, int], seed: int
) -> dict[str, list[str]]:
  """{split: texts}, uniformly at random, no text twice."""
  base, num = len(characters), sum(sizes.values())
  if not num <= base**length <= sys.maxsize:
    raise UserError(
      f"--prompt_length is {length}; expected one at which {base} --characters"
      f" make {num:,} to {sys.maxsize:,} prompts"
    )
  drawn = random.Random(seed).sample(range(base**length), num)
  texts = iter(
    "".join(characters[n // base**place % base] for place in range(length))
    for n in drawn
  )
  return {
    split: [next(texts) for _ in range(size)] for split, size in sizes.items()
  }


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(str(error))
