"""Four virtual CPU devices and one compilation cache for the whole suite.

The cache is shared by the workers of pytest-xdist and by child processes.
"""

from collections.abc import Callable
import fcntl
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile

# A shell starts background jobs with ctrl-C ignored, and so would be ours.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests that train in a child process inherit these settings.
_flags = ["--xla_force_host_platform_device_count=4"]
_cache = pathlib.Path(__file__).parents[1] / ".cache" / "jax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Programs that run once on tiny arrays: to optimize them and to emit fusions by
# MLIR takes two thirds of the time to compile. `make parity` does both.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
  _flags += [
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
  ]
os.environ["XLA_FLAGS"] = " ".join([*_flags, os.environ.get("XLA_FLAGS", "")])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

jax.config.update("jax_default_matmul_precision", "float32")


# Linux gives a process 65,530 mapped regions. A compiled program keeps some
# thirty; the compiler aborts the process when there are no more.
_MAPS = pathlib.Path("/proc/self/maps")
_MANY_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
  """Forgets compiled programs between files when there are very many."""
  yield
  if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > _MANY_MAPS:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Callable[..., pathlib.Path]:
  """`shared_folder(name, make)`: a folder that `make(folder)` fills.

  It is made once for all workers of pytest-xdist; tests only read it.
  """
  base = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    base = base.parent

  def shared(name: str, make: Callable[[pathlib.Path], object]):
    folder, done = base / f"shared_{name}", base / f"shared_{name}.done"
    with (base / f"shared_{name}.lock").open("w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not done.exists():
        folder.mkdir()
        make(folder)
        done.touch()
    return folder

  return shared


@pytest.fixture(scope="session")
def caches(shared_folder):
  """Caches of the tiny sums: 40 rows to train on, with and without targets."""
  from tests import tiny

  folder = shared_folder("caches", tiny.make_caches)
  return {name: tiny.TokenCache(folder / name) for name in tiny.CACHES}


@pytest.fixture(scope="session")
def undisturbed(shared_folder, tmp_path_factory, caches):
  """State and folder of `tiny.make_run` that nothing stopped."""
  from gkd.training import loop
  from tests import tiny

  made = shared_folder(
    "undisturbed", lambda folder: loop.train(tiny.make_run(folder, caches))
  )
  folder = tmp_path_factory.mktemp("undisturbed")
  shutil.copytree(made, folder, dirs_exist_ok=True)
  # A complete run is left as it is; this restores its state.
  return loop.train(tiny.make_run(folder, caches)), folder


@pytest.fixture
def small_disk(tmp_path):
  """`small_disk("64k")`: a folder with a file system of its own."""
  folder = tmp_path / "disk"
  folder.mkdir()

  def run(*command):
    return subprocess.run(command, check=False, capture_output=True).returncode

  def mount(size):
    options = "-t", "tmpfs", "-o", f"size={size}", "tmpfs"
    if os.geteuid() or run("mount", *options, folder):
      pytest.skip("a small disk: only root may mount one")
    return folder

  yield mount
  run("umount", "--lazy", folder)


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
  """Folder of outputs of T5X and transformers, with notes of their origin."""
  return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """Real data, or a skip that is counted and says why."""
  folder = os.environ.get("GKD_DATA_DIR", "")
  if not folder or not pathlib.Path(folder).is_dir():
    pytest.skip("real data: set GKD_DATA_DIR to a folder that holds it")
  return pathlib.Path(folder)


_TEXTS = [f"The answer is {n}. The cat sat on the mat." for n in range(300)]


@pytest.fixture(scope="session")
def spiece_file(tmp_path_factory) -> pathlib.Path:
  """A SentencePiece file of 300 pieces with byte fallback and T5's ids."""
  from gkd.text import sentencepiece_training

  path = tmp_path_factory.mktemp("t5") / "spiece.model"
  sentencepiece_training.train_sentencepiece(_TEXTS, 300, path)
  return path


@pytest.fixture(scope="session")
def madlad_file(tmp_path_factory) -> pathlib.Path:
  """The same with MADLAD-400's ids: unknown 0, <s> 1 (its padding), end 2."""
  import sentencepiece

  path = tmp_path_factory.mktemp("madlad") / "spiece.model"
  with path.open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(_TEXTS),
      model_writer=file,
      vocab_size=300,
      byte_fallback=True,
      minloglevel=2,
    )
  return path


@pytest.fixture(scope="session")
def t5x_checkpoint(golden, tmp_path_factory):
  """`t5x_checkpoint("t5_1_1_tiny", "legacy", 10)`: a folder that T5X wrote.

  Unpacked once and read-only by agreement.
  """
  root = tmp_path_factory.mktemp("t5x")

  def unpacked(model: str, layout: str, step: int) -> pathlib.Path:
    folder = root / model / layout / f"checkpoint_{step}"
    if not folder.exists():
      file = golden / "t5x" / model / f"{layout}_checkpoint_{step}.tar.gz"
      with tarfile.open(file) as tar:
        tar.extractall(folder.parent, filter="data")
    return folder

  return unpacked
