"""Which format a folder or a file has, or in one line why none.

  detect("flan_t5_small/checkpoint_1198000")  # "t5x"

Nothing but names of files and JSON is looked at here; no checkpoint is opened.
"""

import os
from pathlib import Path
import re

from gkd import files
from gkd import gguf_file
from gkd.checkpoints import checksums
from gkd.checkpoints import store
from gkd.checkpoints import zarr_arrays
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.types import UserError

_EXPECTED = (
  "expected a run or saved model of gkd, a T5X checkpoint (checkpoint_N/), a"
  " Hugging Face folder (config.json with model.safetensors) or a GGUF file"
)
# Weights that are not safetensors: transformers' option that reads them.
_OTHER_WEIGHTS = {
  **dict.fromkeys((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"), ""),
  ".h5": ", from_tf=True",
  ".msgpack": ", from_flax=True",
}
# Files beside which weights are parts of a model, with what makes one of them.
_PARTS = (
  (
    re.compile(r"adapter_config\.json"),
    "PEFT adapters, which are no model; merge them into theirs",
    'python -c "from peft import AutoPeftModelForSeq2SeqLM as M;'
    " M.from_pretrained('{0}').merge_and_unload()"
    ".save_pretrained('{0}-merged')\"",
  ),
  (
    re.compile(r"zero_to_fp32\.py|.*_states\.pt"),
    "shards of DeepSpeed; join them with its script",
    "python zero_to_fp32.py {0} {0}-joined --safe_serialization, beside"
    " config.json and the tokenizer",
  ),
  (
    re.compile(r".*\.distcp"),
    "shards of FSDP; join them",
    "accelerate merge-weights {0} {0}-joined, beside config.json and the"
    " tokenizer",
  ),
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
T5X_STEP = re.compile(r"checkpoint_(\d+)")
# What T5X and Orbax call a checkpoint that is still being written.
HALF_WRITTEN = re.compile(
  r"(checkpoint_\d+|state)\.tmp-|.*\.orbax-checkpoint-tmp"
)


def detect(path: str | os.PathLike) -> Format:
  """The format of a folder, or of a GGUF file.

  Args:
    path: a folder; "~" is expanded. Of T5X one checkpoint or a folder of them.

  Raises:
    UserError: nothing there, or none of the four; says what it is instead.
  """
  folder = existing_path(path)
  if folder.is_file():
    return "gguf"
  for part in (folder, folder.parent):
    if HALF_WRITTEN.match(part.name):
      raise UserError(
        f"{part} is a half-written checkpoint, as its name says; give one that"
        " is whole"
      )
  names = {entry.name for entry in folder.iterdir()}
  if not names:
    raise UserError(f"{folder} is empty; {_EXPECTED}")
  has_tensors = any(".safetensors" in name for name in names)
  if "adapter_config.json" in names and "config.json" not in names:
    refuse_other_weights(folder, names)
  if has_tensors and "config.json" in names:
    return "hf"  # whatever else lies there
  ours = {native_checkpoint.METADATA_FILE, run_folder.DESCRIPTION_FILE}
  if names & ours or (folder / "checkpoints").is_dir():
    return "gkd"
  state = folder / native_arrays.STATE
  if (state / zarr_arrays.INDEX_FILE).is_file():
    arrays, _ = zarr_arrays.tree_index(state)
    is_t5x = any(name.startswith("target/") for name in arrays)
    return "t5x" if is_t5x else "gkd"
  if names & {store.METADATA_FILE, checksums.HASHES_FILE}:
    return "gkd"
  is_mesh_tensorflow = any(name.endswith(".index") for name in names)
  if not is_mesh_tensorflow and (
    any(n.startswith("target.") or T5X_STEP.match(n) for n in names)
    or names & {"checkpoint", zarr_arrays.INDEX_FILE}
    or (state / "checkpoint").is_file()
  ):
    return "t5x"
  if has_tensors or "config.json" in names:
    return "hf"
  refuse_other_weights(folder, names)
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
  return {
    int(match[1]): f
    for f in folder.glob("checkpoint_*")
    if (match := T5X_STEP.fullmatch(f.name))
  }


def existing_path(path: str | os.PathLike) -> Path:
  """The absolute path of a folder or GGUF file, or in one line why not."""
  text = os.fspath(path)
  if re.match(r"\w+://", text):
    raise UserError(
      f"{text} is not on this machine; download it first:"
      f" {_download(text)}, then give that folder"
    )
  folder = files.local_path(text).absolute()
  is_gguf = folder.suffix == gguf_file.SUFFIX and folder.is_file()
  if folder.is_dir() or is_gguf:
    return folder
  index = folder.with_name(folder.name + ".index")
  for file in (folder, index):
    if file.is_file():
      refuse_other_weights(file.parent, {file.name})
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


def _refusal(path: Path, names: set[str]) -> str:
  """Why a file, or a folder with these names in it, is no checkpoint."""
  if any(name.endswith(".index") for name in names):
    return (
      f"{path} is of a Mesh TensorFlow checkpoint (.index), which gkd does not"
      " read; T5X's checkpoint of the same model is at"
      " gs://t5-data/pretrained_models/t5x/, and T5X's convert_tf_checkpoint.py"
      " converts others"
    )
  if path.is_file():
    return f"{path} is a file; give its folder: {_EXPECTED}"
  if models := sorted(n for n in names if n.endswith(gguf_file.SUFFIX)):
    return f"{path} holds a GGUF file; give the file: {path / models[0]}"
  if saved := [n for n in names if re.fullmatch(r"checkpoint-\d+", n)]:
    newest = max(saved, key=lambda name: int(name.rpartition("-")[2]))
    return (
      f"{path} holds checkpoints of a trainer; give one of them, as the newest,"
      f" {path / newest}"
    )
  some = ", ".join(sorted(names)[:3])
  return f"{path} (with {some}, …) is no checkpoint that gkd reads; {_EXPECTED}"


def refuse_other_weights(
  folder: Path, names: set[str], opener: str = "AutoModelForSeq2SeqLM"
) -> None:
  """Raises a UserError if any of the names is one of a pickle or the like.

  Args:
    folder: with files of these names.
    names: see above.
    opener: transformers' class that opens the model.
  """
  for pattern, what, command in _PARTS:
    if any(map(pattern.fullmatch, names)):
      raise UserError(
        f"{folder} holds {what}: {command.format(folder)}; give the new folder"
      )
  for name in sorted(names):
    suffix = Path(name.removesuffix(".index.json")).suffix
    if suffix not in _OTHER_WEIGHTS:
      continue
    option = _OTHER_WEIGHTS[suffix]
    save = f"save_pretrained('{folder}-safetensors')"
    raise UserError(
      f"{folder / name} is not a safetensors file and can hold code that runs"
      " when it is read, so gkd does not open it; convert it where you trust it"
      f" and have transformers{' 4' if option else ''} and torch: python -c"
      f' "from transformers import {opener} as M, AutoTokenizer as T;'
      f" M.from_pretrained('{folder}'{option}).{save};"
      f" T.from_pretrained('{folder}').{save}\""
    )
