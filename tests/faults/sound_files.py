"""Small sound checkpoints and caches of all formats, and their readers."""

import contextlib
import hashlib
import io
import json
from pathlib import Path
import shutil
import tarfile

import jax
import numpy as np

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.store import Store
from gkd.cli import main as command
from gkd.data import shards
from gkd.data.cache import TokenCache
from gkd.data.writer import CacheWriter
from gkd.errors import UserError
from gkd.text import chat_formats
from gkd.text import tokenizer_folder
from gkd.text.bpe import BPEVocabulary
from gkd.text.sentencepiece_training import train_sentencepiece
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from tests import tiny
from tests import tiny_tokenizers
from tests.checkpoints import tiny_decoders
from tests.checkpoints import tiny_gguf
from tests.checkpoints import tiny_models

KINDS = (
  *("run", "model", "t5x", "t5x_orbax", "hf", "hf_sharded", "bin", "cache"),
  *("hf_decoder", "gguf"),
)
# Formats in which every byte that matters has a checksum.
CHECKED = ("run", "model", "cache")
_GOLDEN = Path(__file__).parents[1] / "golden" / "t5x" / "t5_1_1_tiny"
_GGUF = "model.gguf"
_TEXT = "weights of 12 apples, é"
_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz+=.,;:!?-"


class Refused(Exception):
  """A mistake in one line, by a command or a function."""


def make(root: Path) -> None:
  """A folder of each kind."""
  root.mkdir(parents=True)
  (root / "made").mkdir()
  texts = [f"{n} apples and {n * n} pears, {n % 7} in a box" for n in range(80)]
  spiece = root / "made" / "spiece.model"
  train_sentencepiece(texts, 300, spiece)
  vocabulary = SentencePieceVocabulary(spiece, 10)
  checkpoint = tiny_models.make(vocab_size=320, vocabulary_size=310)
  for name, size in (("hf", 1 << 30), ("hf_sharded", 40_000)):
    (root / name).mkdir()
    hf_folder.write(
      root / name, checkpoint, vocabulary=vocabulary, shard_bytes=size
    )
  shutil.copytree(root / "hf", root / "bin")
  (root / "bin" / "model.safetensors").rename(
    root / "bin" / "pytorch_model.bin"
  )
  tiny_models.save(root / "model", tiny_models.make(slots=True))
  tiny_models.save(root / "t5x", tiny_models.make(), "t5x")
  with tarfile.open(_GOLDEN / "orbax_checkpoint_10.tar.gz") as tar:
    tar.extractall(root / "made", filter="data")
  (root / "made" / "checkpoint_10").rename(root / "t5x_orbax")
  _make_run(root / "run")
  _make_decoders(root)
  (root / "cache" / "toy").mkdir(parents=True)
  tiny.make_cache(
    root / "cache" / "toy" / "train-0", vocabulary=vocabulary, rows=8
  )
  tiny.make_cache(root / "cache" / "sound" / "train-0", rows=4)
  writer = CacheWriter(root / "cache" / "toy" / "half-0", key="x")
  with writer:
    row = TokenCache(root / "cache" / "toy" / "train-0").read([0])
    shards.write(writer.folder, 0, row)
  for lock in root.rglob(".*.lock"):
    lock.unlink()
  shutil.rmtree(root / "made")


def _make_run(folder: Path) -> None:
  about = {run_folder.IDENTITY: "0" * 64, "first_step": 0}
  with Store(folder / "checkpoints") as store:
    for step in (1, 2):
      made = tiny_models.make(seed=step)
      params = {name: leaf.read() for name, leaf in made.leaves.items()}
      state = {"params": trees.unflatten(params), "step": np.int32(step)}
      store.save(step, jax.tree.map(jax.numpy.asarray, state), about)
  description = native_checkpoint.description(made.config)
  run_folder.write_vocabulary(folder, CharacterVocabulary(_CHARACTERS))
  run_folder.write_description(folder, about | description)


def _make_decoders(root: Path) -> None:
  """A folder with a chat template, and a GGUF file of the same kind."""
  content = tiny_tokenizers.bpe_json()
  vocabulary = BPEVocabulary(
    content, [318, 316], chat_template=tiny_tokenizers.CHATML
  )
  (root / "gguf").mkdir()
  metadata = tiny_tokenizers.gguf_metadata(content, "smollm")
  table = np.random.RandomState(0).normal(size=(321, 32)).astype(np.float32)
  tensors = tiny_decoders.arrays("qwen3") | {"model.embed_tokens.weight": table}
  file = tiny_gguf.make_file(
    root / "gguf" / _GGUF, "qwen3", tiny_gguf.Q8_0, tensors, **metadata
  )
  (root / "hf_decoder").mkdir()
  checkpoint = source.open_checkpoint(file)
  hf_folder.write(root / "hf_decoder", checkpoint, vocabulary=vocabulary)


def expected(kind: str, values: dict[str, str]) -> set[str]:
  """Digests of sound values: of a run also those of the step before."""
  return set(values[kind].split())


def read(kind: str, folder: Path, scratch: Path) -> str:
  """Digest of what the readers give; of a run's several checkpoints of each.

  Raises:
    Refused: in one line.
  """
  if kind == "cache":
    return _read_cache(folder)
  _refusing(_tokenise, folder / _GGUF if kind == "gguf" else folder)
  digests = [_converted(kind, folder, scratch / "out")]
  if kind == "run" and scratch.name == "sound":
    shutil.rmtree(scratch / "out")
    before = folder / "checkpoints" / "00000001"
    digests.append(_converted(kind, before, scratch / "out"))
  return " ".join(digests)


def _tokenise(path: Path) -> None:
  vocabulary = tokenizer_folder.load(path)
  if vocabulary is not None:
    frame = chat_formats.find(vocabulary)
    chat_formats.encode_prompts(vocabulary, [_TEXT], frame)
    vocabulary.decode(vocabulary.encode(_TEXT))


def _converted(kind: str, folder: Path, out: Path) -> str:
  """sha256 of the parameters, by the command."""
  keeps = kind in ("hf", "hf_sharded", "bin", "hf_decoder", "gguf")
  path = folder / _GGUF if kind == "gguf" else folder
  flags = ["--to=hf", *(() if keeps else ("--tokenizer=none",))]
  _command("convert", str(path), str(out), *flags)
  content = (out / "model.safetensors").read_bytes()
  return hashlib.sha256(content).hexdigest()


def _read_cache(folder: Path) -> str:
  out = _command("cache", "list", f"--cache_dir={folder}")
  if "sums train: complete" not in out:
    raise AssertionError(f"a sound cache is not listed: {out}")
  with contextlib.suppress(Refused):
    _command("cache", "check", f"--cache_dir={folder}")
  digest = hashlib.sha256()

  def rows(path):
    cache = TokenCache(path)
    cache.tokens(range(len(cache)))
    for row in cache.read(range(len(cache))):
      ids = [row.inputs.tolist(), row.targets.tolist()]
      digest.update(json.dumps([ids, row.prompt, row.reference]).encode())
    digest.update(json.dumps(cache.vocabulary.spec()).encode())
    digest.update(cache.prompt_hashes.tobytes())

  _refusing(rows, folder / "toy" / "train-0")
  return digest.hexdigest()


def _refusing(function, *args) -> None:
  try:
    function(*args)
  except UserError as error:
    raise Refused(str(error)) from error


def _command(*arguments: str) -> str:
  """What a command prints; its one line on the standard error is raised."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = command.main(arguments)
  if code == 2:
    lines = err.getvalue().splitlines()
    said = [x.removeprefix("gkd: ") for x in lines if x.startswith("gkd: ")]
    raise Refused("\n".join(said))
  if code:
    raise AssertionError(f"exit code {code}: {err.getvalue()}")
  return out.getvalue()
