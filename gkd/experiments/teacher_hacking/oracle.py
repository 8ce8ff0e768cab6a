"""Makes an oracle whose exact distribution is known, and prompts for it.

  python -m gkd.experiments.teacher_hacking.oracle runs/oracle --order=2

The folder holds `model/`, a saved model that every command opens, with its
vocabulary, and `prompts/`, a file of JSON lines for each split, for DATA_FILES.
Prompts are random texts of one length, each of them once.
"""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import random

import jax

from gkd import files
from gkd import keys
from gkd import trees
from gkd.checkpoints import atomic_dir
from gkd.checkpoints.checkpoint import VOCABULARY_KEY
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.models.markov import MarkovConfig
from gkd.models.markov import markov_chain
from gkd.text.characters import CharacterVocabulary


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder", type=Path, help="a new folder")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--characters", default="abcdefghijk")
  parser.add_argument("--order", type=int, default=MarkovConfig.order)
  parser.add_argument("--sharpness", type=float, default=MarkovConfig.sharpness)
  parser.add_argument(
    "--mean_length", type=float, default=MarkovConfig.mean_length
  )
  parser.add_argument("--prompt_length", type=int, default=8)
  parser.add_argument("--train", type=int, default=20_000, help="prompts")
  parser.add_argument("--validation", type=int, default=2_000, help="prompts")
  args = parser.parse_args(arguments)
  vocabulary = CharacterVocabulary(args.characters)
  config = MarkovConfig(
    vocab_size=vocabulary.size,
    order=args.order,
    sharpness=args.sharpness,
    mean_length=args.mean_length,
  )
  with atomic_dir.create(args.folder) as partial:
    write_model(partial / "model", config, vocabulary, args.seed)
    sizes = {"train": args.train, "validation": args.validation}
    texts = prompts(args.characters, args.prompt_length, sizes, args.seed)
    (partial / "prompts").mkdir()
    for split, lines in texts.items():
      text = "".join(json.dumps({"inputs": line}) + "\n" for line in lines)
      files.write_text(partial / "prompts" / f"{split}.jsonl", text)


def write_model(
  folder: Path, config: MarkovConfig, vocabulary: CharacterVocabulary, seed: int
) -> None:
  """Writes the saved model that the seed draws."""
  folder.mkdir()
  key = keys.stream(seed, 0, keys.Role.INIT)
  params = jax.device_get(markov_chain(config).init(key))
  leaves = {
    name: Leaf(array.shape, array.dtype.name, lambda array=array: array)
    for name, array in trees.flatten(params).items()
  }
  spec = run_folder.write_vocabulary(folder, vocabulary)
  about = {"vocabulary": spec, VOCABULARY_KEY: spec["sha256"]}
  about |= native_checkpoint.description(config)
  native_checkpoint.write_model(folder, leaves, about)


def prompts(
  characters: str, length: int, sizes: dict[str, int], seed: int
) -> dict[str, list[str]]:
  """{split: texts}, uniformly at random, no text twice."""
  base = len(characters)
  drawn = random.Random(seed).sample(range(base**length), sum(sizes.values()))
  texts = iter(
    "".join(characters[n // base**place % base] for place in range(length))
    for n in drawn
  )
  return {
    split: [next(texts) for _ in range(size)] for split, size in sizes.items()
  }


if __name__ == "__main__":
  main()
