"""Four virtual CPU devices and one compilation cache for the whole suite.

The cache is shared by the workers of pytest-xdist and by child processes.
"""

import gc
import os
import pathlib
import signal

# A shell starts background jobs with ctrl-C ignored, and so would be ours.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests that train in a child process inherit these settings.
_flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _flags:
  os.environ["XLA_FLAGS"] = (
    f"{_flags} --xla_force_host_platform_device_count=4".strip()
  )
_cache = pathlib.Path(__file__).parents[1] / ".cache" / "jax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Programs that run once on tiny arrays: XLA's optimization passes cost a third
# of the suite. `make parity` runs with them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
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
