"""What is the same for every implementation of the timed step."""

import argparse

SIZES = ("tiny", "small", "base", "large")
ROWS = 32128


def parser(description: str) -> argparse.ArgumentParser:
  """Sizes of models and batch, divergence, precision, rounds, result file."""
  flags = argparse.ArgumentParser(description=description.partition("\n")[0])
  flags.add_argument("--student", choices=SIZES, default="small")
  flags.add_argument("--teacher", choices=SIZES, default="base")
  for name, value in (
    ("batch_size", 32),
    ("input_length", 512),
    ("target_length", 128),
    ("rounds", 10),
  ):
    flags.add_argument(f"--{name}", type=int, default=value)
  flags.add_argument("--beta", type=float, default=0.5, help="of JSD(beta)")
  flags.add_argument("--dropout", type=float, default=0.1, help="the student's")
  flags.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  flags.add_argument("--output", default="step.json")
  return flags
