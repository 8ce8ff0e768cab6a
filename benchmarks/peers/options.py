"""What is the same for every implementation of the timed step."""

import argparse

SIZES = ("tiny", "small", "base", "large")
ROWS = 32128


def parser(description: str) -> argparse.ArgumentParser:
  """Sizes of models and batch, divergence, precision, rounds, result file."""
  made = argparse.ArgumentParser(description=description.partition("\n")[0])
  made.add_argument("--student", choices=SIZES, default="small")
  made.add_argument("--teacher", choices=SIZES, default="base")
  for name, value in (
    ("batch_size", 32),
    ("input_length", 512),
    ("target_length", 128),
    ("rounds", 10),
  ):
    made.add_argument(f"--{name}", type=int, default=value)
  made.add_argument("--beta", type=float, default=0.5, help="of JSD(beta)")
  made.add_argument("--dropout", type=float, default=0.1, help="the student's")
  made.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  made.add_argument("--output", default="step.json")
  return made
