"""Which of the three formats a folder has, or in one line why none.

  detect("flan_t5_small/checkpoint_1198000")  # "t5x"

Nothing but names of files and JSON is looked at here; no checkpoint is opened.
"""

from collections.abc import Iterable
import os
from pathlib import Path
import re

from gkd.checkpoints import store
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.types import UserError

_EXPECTED = (
  "expected a run or saved model of gkd, a T5X checkpoint (checkpoint_N/) or a"
  " Hugging Face folder (config.json with model.safetensors)"
)
# Weights that are not safetensors: transformers' option that reads them.
_OTHER_WEIGHTS = {
  **dict.fromkeys((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"), ""),
  ".h5": ", from_tf=True",
  ".msgpack": ", from_flax=True",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_T5X_NAME = re.compile(r"checkpoint_(\d+)")
# What T5X and Orbax call a checkpoint that is still being written.
_T5X_HALF_WRITTEN = re.compile(r"checkpoint_\d+\.(tmp|orbax-checkpoint-tmp)")


def detect(path: str | os.PathLike) -> Format:
  """The format of a folder.

  Args:
    path: a folder; "~" is expanded. Of T5X one checkpoint or a folder of them.

  Raises:
    UserError: nothing there, or none of the three; says what it is instead.
  """
  folder = existing_folder(path)
  names = {entry.name for entry in folder.iterdir()}
  if _T5X_HALF_WRITTEN.match(folder.name):
    return "t5x"  # which says what is wrong with it
  if not names:
    raise UserError(f"{folder} is empty; {_EXPECTED}")
  has_tensors = any(name.endswith(".safetensors") for name in names)
  if has_tensors and "config.json" in names:
    return "hf"  # whatever else lies there
  ours = {native_checkpoint.METADATA_FILE, run_folder.DESCRIPTION_FILE}
  if names & ours or (folder / "checkpoints").is_dir():
    return "gkd"
  if (folder / "state" / "_METADATA").is_file():
    keys = native_arrays.tree_metadata(folder)["tree_metadata"].values()
    tops = {leaf["key_metadata"][0]["key"] for leaf in keys}
    return "t5x" if "target" in tops else "gkd"
  if names & {store.METADATA_FILE, "sha256.json"}:
    return "gkd"
  if _looks_like_t5x(folder, names):
    return "t5x"
  if has_tensors or "config.json" in names:
    return "hf"
  raise UserError(_refusal(folder, names))


def steps_within(folder: Path) -> dict[int, Path]:
  """{step: checkpoint} of a run's folder, ours or T5X's; {} of any other.

  Of ours the steps are those of the run, as its folders are numbered; one of
  these folders is its own only checkpoint.
  """
  if folder.parent.name == "checkpoints" and folder.name.isdecimal():
    return {int(folder.name): folder}
  ours = [f for f in folder.glob("checkpoints/*") if f.name.isdecimal()]
  if ours:
    return {int(f.name): f for f in ours}
  named = [
    (_T5X_NAME.fullmatch(f.name), f) for f in folder.glob("checkpoint_*")
  ]
  return {int(match.group(1)): f for match, f in named if match}


def existing_folder(path: str | os.PathLike) -> Path:
  """The absolute path of a folder, or in one line why there is none."""
  text = os.fspath(path)
  if re.match(r"\w+://", text):
    raise UserError(
      f"{text} is not on this machine; download it first:"
      f" {_download(text)}, then give that folder"
    )
  folder = Path(text).expanduser().absolute()
  if folder.is_dir():
    return folder
  index = folder.with_name(folder.name + ".index")
  for file in (folder, index):
    if file.is_file():
      raise UserError(_refusal(file, {file.name}))
  if _HUB_NAME.fullmatch(text) and not folder.parent.is_dir():
    raise UserError(
      f"there is no folder {text}; if it is a model of the Hugging Face hub,"
      f" download it first: hf download {text} --local-dir"
      f" {text.rpartition('/')[2]}, then give that folder"
    )
  raise UserError(f"there is no folder {folder}; {_EXPECTED}")


def _download(url: str) -> str:
  scheme, _, rest = url.partition("://")
  if scheme == "gs":
    return f"gsutil -m cp -r {url.rstrip('/')} ."
  if "huggingface.co/" in rest or scheme == "hf":
    model = "/".join(rest.removeprefix("huggingface.co/").split("/")[:2])
    return f"hf download {model} --local-dir {model.rpartition('/')[2]}"
  return f"copy it to ./{rest.rstrip('/').rpartition('/')[2] or 'checkpoint'}"


def _looks_like_t5x(folder: Path, names: set[str]) -> bool:
  return (
    any(n.startswith("target.") or _T5X_NAME.match(n) for n in names)
    or bool({"checkpoint", "_METADATA"} & names)
    or (folder / "state" / "checkpoint").is_file()
  )


def _refusal(path: Path, names: set[str]) -> str:
  """Why a file, or a folder with these names in it, is no checkpoint."""
  refuse_other_weights(path.parent if path.is_file() else path, names)
  if any(name.endswith(".index") for name in names):
    return (
      f"{path} is of a Mesh TensorFlow checkpoint (.index), which gkd does not"
      " read; T5X's checkpoint of the same model is at"
      " gs://t5-data/pretrained_models/t5x/"
    )
  if path.is_file():
    return f"{path} is a file; give its folder: {_EXPECTED}"
  some = ", ".join(sorted(names)[:3])
  return f"{path} (with {some}, …) is no checkpoint that gkd reads; {_EXPECTED}"


def refuse_other_weights(folder: Path, names: Iterable[str]) -> None:
  """Raises a UserError if any of the names is one of a pickle or the like."""
  for name in sorted(names):
    suffix = Path(name.removesuffix(".index.json")).suffix
    if suffix not in _OTHER_WEIGHTS:
      continue
    source, option = f"'{folder}'", _OTHER_WEIGHTS[suffix]
    made = f"save_pretrained('{folder}-safetensors')"
    raise UserError(
      f"{folder / name} is not a safetensors file and can hold code that runs"
      " when it is read, so gkd does not open it; convert it where you trust it"
      f" and have transformers{' 4' if option else ''} and torch: python -c"
      ' "from transformers import'
      " AutoModelForSeq2SeqLM as M, AutoTokenizer as T;"
      f" M.from_pretrained({source}{option}).{made};"
      f' T.from_pretrained({source}).{made}"'
    )
