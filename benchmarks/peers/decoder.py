"""One on-policy step of a decoder in `gkd` and in trainers of TRL, in turns.

The same weights (SmolLM2-135M-Instruct, and as the student its layers
KEEP_LAYERS), the same batch of prompts, divergence, AdamW, clipping, float32,
threads and processors. First all take two steps on fixed targets, whose losses
and gradient norms are compared; then they take turns at on-policy steps.

Usage, where torch, transformers and trl are installed too:
  python -m benchmarks.peers.decoder SmolLM2-135M-Instruct.Q4_1.gguf \
    --threads=1 --rounds=6 --output=trl.json
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import pickle
import platform
import tempfile
from typing import Any

import numpy as np

from benchmarks.peers import turns
from gkd import collate
from gkd.checkpoints import conversion
from gkd.checkpoints import source
from gkd.data.cache import Row
from gkd.experiments.real import prepare
from gkd.models import kept_layers
from gkd.text import chat_formats
from gkd.text import tokenizer_folder
from gkd.types import Batch

LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
KEEP_LAYERS = "range(0,10),range(20,30)"
PEERS = {
  "gkd": ("decoder_gkd",),
  "trl_gkd": ("decoder_trl", "trl_gkd"),
  "trl_distillation": ("decoder_trl", "trl_distillation"),
}
_VERSIONS = ("jax", "torch", "transformers", "trl", "accelerate")


def main() -> None:
  """Compares, times, prints and writes the results."""
  args = parser().parse_args()
  processors = sorted(os.sched_getaffinity(0))[: args.threads]
  os.sched_setaffinity(0, processors)
  with tempfile.TemporaryDirectory() as folder:
    write_models(args.model, Path(folder))
    batch = make_batch(Path(folder), args)
    Path(folder, "work.pickle").write_bytes(pickle.dumps((vars(args), batch)))
    peers = {
      name: turns.Peer(f"benchmarks.peers.{module}", folder, *rest)
      for name, (module, *rest) in PEERS.items()
      if name in args.peers
    }
    fixed, warm_up, rounds = (
      [turns.take(peers, turn) for _ in range(count)]
      for turn, count in (
        ("fixed", 2),
        ("on_policy", 1),
        ("on_policy", args.rounds),
      )
    )
    for peer in peers.values():
      peer.end()
  result = {
    **vars(args),
    "prompt_tokens": int(batch.input_mask.sum()),
    "hardware": f"{platform.processor() or platform.machine()}",
    "versions": {n: importlib.metadata.version(n) for n in _VERSIONS},
    "python": platform.python_version(),
    "fixed_targets": fixed,
    "warm_up": warm_up,
    "summary": turns.summary(rounds),
    "rounds_measured": rounds,
  }
  text = json.dumps(result, indent=2) + "\n"
  Path(args.output).write_text(text, encoding="utf-8")
  print(json.dumps(result["summary"], indent=2))


def parser() -> argparse.ArgumentParser:
  flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  flags.add_argument("model", help="a GGUF file or a Hugging Face folder")
  for name, value in (
    ("batch_size", 8),
    ("input_length", 96),
    ("target_length", 24),
    ("threads", 1),
    ("rounds", 6),
  ):
    flags.add_argument(f"--{name}", type=int, default=value)
  flags.add_argument("--beta", type=float, default=0.0, help="0: forward KL")
  flags.add_argument(
    "--gradient_checkpointing",
    action="store_true",
    help="as is TRL's default, which samples without a cache then",
  )
  flags.add_argument(
    "--peers", nargs="+", choices=PEERS, default=list(PEERS), help="with gkd"
  )
  flags.add_argument("--output", default="trl.json")
  return flags


def write_models(model: str, folder: Path) -> None:
  """Teacher and student as Hugging Face folders."""
  planned = conversion.plan(model, to="hf")
  conversion.write(planned, folder / "teacher")
  whole = source.open_checkpoint(folder / "teacher")
  config, leaves = kept_layers.pick(
    whole.config, whole.leaves, kept_layers.KeepLayers(KEEP_LAYERS)
  )
  part = dataclasses.replace(whole, config=config, leaves=leaves)
  conversion.write(
    dataclasses.replace(planned, checkpoint=part), folder / "student"
  )


def make_batch(folder: Path, args: argparse.Namespace) -> Batch:
  """Chats of unequal length, the first fills its row; fixed targets as well."""
  vocabulary = tokenizer_folder.load(folder / "teacher")
  frame = chat_formats.find(vocabulary)
  text = vocabulary.encode(" ".join(prepare.prompts()["train"]))
  before, after = vocabulary.encode_batch([frame.before, frame.after])
  rows = []
  for i in range(args.batch_size):
    size = args.input_length - len(before) - len(after) - 2 * i
    start = i * (args.input_length + args.target_length)
    end = start + size
    prompt = [*before, *text[start:end], *after]
    targets = text[end : end + args.target_length - i]
    rows.append(Row(np.array(prompt), np.array(targets), "", ""))
  lengths = {"inputs": args.input_length, "targets": args.target_length}
  return collate.collate(rows, range(len(rows)), lengths)


def ids(batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
  """Prompts and fixed targets, without padding."""
  return tuple(
    [row[keep].tolist() for row, keep in zip(array, mask, strict=True)]
    for array, mask in (
      (batch.inputs, batch.input_mask),
      (batch.targets, batch.weights > 0),
    )
  )


def read(folder: str) -> tuple[dict[str, Any], Batch]:
  """The settings and the batch that both work on."""
  return pickle.loads(Path(folder, "work.pickle").read_bytes())


if __name__ == "__main__":
  main()
