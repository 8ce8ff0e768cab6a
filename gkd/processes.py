"""The processes of a run: who writes, and what all of them agree on.

A run on several machines is one program in several processes, each with devices
of its own. They take the same decisions because these follow from the same
numbers; what a file system or a signal decides is asked of one process or of
all. Process 0 is the writer: files, log lines and trackers are its own.

With one process everything here returns at once, and nothing is compiled. JAX
is imported where there are several: commands that only read files ask, too.

  processes.initialize()            # of the environment, or by flags
  processes.agree("configuration", settings)
  step = processes.from_writer(store.latest_step)
  if processes.is_writer():
    files.write_text(…)
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import hashlib
from importlib import metadata
import importlib.util
import json
import logging
import os
from pathlib import Path
import platform
import socket
import sys
from typing import Any
from typing import TypeVar

import gkd
from gkd import watchdog
from gkd.errors import UserError

T = TypeVar("T")
log = logging.getLogger("gkd")

_CONNECT_SECONDS = 300
# Waits end when the watchdog finds that a process is lost, not by a clock.
_FOREVER_MS = 7 * 24 * 3600 * 1000
# Of other versions the processes would compile other programs.
_LIBRARIES = ("jax", "jaxlib", "numpy")
_FLAGS = ("--coordinator", "--num_processes", "--process_id")


@dataclasses.dataclass
class _Own:
  """What JAX's distributed service says of this process."""

  index: int = 0
  count: int = 1
  client: Any = None
  calls: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )


_own = _Own()


def initialize(
  coordinator: str = "",
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes; call it before anything else of JAX.

  Without arguments the environment says who they are: Cloud TPU, GKE, SLURM or
  Open MPI, as `jax.distributed.initialize` finds them; a single process where
  it says nothing.

  Args:
    coordinator: host:port of process 0, which all can reach.
    num_processes: how many there are.
    process_id: this one's number, from 0.

  Raises:
    UserError: some of the arguments are missing, or nobody answers.
  """
  given = (coordinator or None, num_processes, process_id)
  options = {}
  if any(value is not None for value in given):
    if None in given or not 0 <= process_id < num_processes:
      raise UserError(
        f"{', '.join(_FLAGS)} are {coordinator!r}, {num_processes} and"
        f" {process_id}; give all three: host:port of process 0, how many"
        " processes there are, and the number of this one, from 0"
      )
    names = ("coordinator_address", "num_processes", "process_id")
    options = dict(zip(names, given, strict=True))
    options["cluster_detection_method"] = "deactivate"
  elif _processes_of_environment() == 1:
    return
  _connect(options)


def count() -> int:
  """Number of processes."""
  return _own.count


def index() -> int:
  """Number of this process, from 0."""
  return _own.index


def is_writer() -> bool:
  """Whether this is the process that writes files and logs: the first one."""
  return _own.index == 0


def refuse_unknown() -> None:
  """Refuses processes that know of each other by JAX alone."""
  import jax

  if jax.process_count() != _own.count:
    raise UserError(
      f"this is one of {jax.process_count()} JAX processes that gkd does not"
      " know of; call gkd.processes.initialize(…) in place of"
      " jax.distributed.initialize(…)"
    )


def exchange(name: str, text: str) -> list[str]:
  """The texts of all processes, in their order; returns when all have called.

  Every process calls it in the same order for a name, from its main thread.
  """
  if _own.count == 1:
    return [text]
  call = _own.calls[name]
  _own.calls[name] += 1
  folder, key = f"gkd/{name}/{call}", f"{_own.index:06d}"
  _own.client.key_value_set(f"{folder}/{key}", text)
  _own.client.wait_at_barrier(folder, _FOREVER_MS)
  found = dict(_own.client.key_value_dir_get(f"{folder}/"))
  if call:  # which all have read, as they are here
    _own.client.key_value_delete(f"gkd/{name}/{call - 1}/{key}")
  return [found[key] for key in sorted(found)]


def barrier(name: str) -> None:
  """Returns when all processes have called it."""
  exchange(name, "")


def from_writer(function: Callable[[], T]) -> T:
  """The value of a function, JSON, that only the writer calls."""
  if _own.count == 1:
    return function()
  text = json.dumps(function() if is_writer() else None)
  return json.loads(exchange("writer", text)[0])


def agree(name: str, value: Any) -> None:
  """Compares JSON between the processes.

  Raises:
    UserError: in all of them, if one has another value; it is named.
  """
  if _own.count == 1:
    return
  text = json.dumps(value, sort_keys=True)
  digests = exchange(name, hashlib.sha256(text.encode()).hexdigest())
  usual = collections.Counter(digests).most_common(1)[0][0]
  others = [i for i, digest in enumerate(digests) if digest != usual]
  if not others:
    return
  texts = exchange(name, text)
  like = digests.index(usual)
  before, now = json.loads(texts[like]), json.loads(texts[others[0]])
  many = "es" * (len(others) > 1)
  raise UserError(
    f"process{many} {', '.join(map(str, others))} of {_own.count} differ"
    f"{'s' * (not many)} from process {like} in its {name}:"
    f" {next(_differences(before, now))}; start all processes with the same"
    " program, command and data"
  )


def largest(number: int) -> Any:
  """The largest of the processes' numbers, as an array still under way.

  It is computed by the devices, behind what was launched before: whoever reads
  it one step later does not wait for the other processes.
  """
  if _own.count == 1:
    return number
  return _maximum()(_one_per_device(number))


def replicate(tree: Any) -> Any:
  """Arrays of which every process holds the whole; still under way.

  `jax.device_get` takes no others. Host arrays have to be the same everywhere.
  """
  if _own.count == 1:
    return tree
  import jax

  def one(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
      return leaf
    return _replicating(leaf.sharding.mesh)(leaf)

  return jax.tree.map(one, tree)


def leave(code: int) -> None:
  """Ends the part of this process in the run, with its exit code.

  All leave together where all were done or stopped. A process that failed
  alone has told the others by `watchdog.fail` and does not wait for them.
  """
  if _own.count == 1:
    return
  dog = watchdog.of_process
  if dog.has_failed:
    sys.stdout.flush()
    sys.stderr.flush()
    dog.end(code)
  barrier("end")
  dog.stop()
  import jax

  jax.distributed.shutdown()


def _connect(options: dict[str, Any]) -> None:
  """Joins the service, and has the watchdog look after the others."""
  import jax
  from jax._src import distributed  # its client is nowhere else

  # Its handler of SIGTERM would take the place of ours.
  jax.config.update("jax_enable_preemption_service", False)
  watchdog.of_process.await_others(_CONNECT_SECONDS)
  try:
    jax.distributed.initialize(
      initialization_timeout=_CONNECT_SECONDS, **options
    )
  except (RuntimeError, ValueError) as error:
    where = options.get("coordinator_address", "the environment's coordinator")
    raise UserError(
      f"cannot join the other processes by {where}"
      f" ({str(error).splitlines()[0]}); check that process 0 runs and that"
      " its port can be reached"
    ) from error
  state = distributed.global_state
  _own.index, _own.count = state.process_id, state.num_processes
  _own.client = state.client
  if _own.count == 1:
    return
  if not is_writer():
    log.setLevel(logging.ERROR)
  watchdog.of_process.join(
    _own.index, _own.count, state.client, state.coordinator_address
  )
  hosts = exchange("hosts", socket.gethostname())
  log.info(
    "processes: %d on %d machines, the writer on %s",
    *(_own.count, len(set(hosts)), hosts[0]),
  )
  agree("program", _program())


def _program() -> dict[str, str]:
  """Versions, and the hash of the sources of this program."""
  content = hashlib.sha256()
  root = Path(__file__).parent
  for file in sorted(root.rglob("*.py")):
    content.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
  libraries = {name: metadata.version(name) for name in _LIBRARIES}
  return {
    "version": gkd.__version__,
    "sources": content.hexdigest(),
    "python": platform.python_version(),
    **libraries,
  }


def _processes_of_environment() -> int:
  """How many processes a cluster's environment names; 1 without one."""
  from jax._src import clusters

  for environment in clusters.ClusterEnv._cluster_types:
    # Of a pod that is not of an indexed Job JAX asks in vain, or fails.
    is_pod = environment.__name__ == "K8sCluster"
    if is_pod and "JOB_COMPLETION_INDEX" not in os.environ:
      continue
    if is_pod and importlib.util.find_spec("kubernetes") is None:
      raise UserError(
        "this pod belongs to an indexed Job, but how many there are is not"
        " known without the package kubernetes; pip install 'jax[k8s]', or give"
        " --coordinator, --num_processes and --process_id"
      )
    if not environment.opt_in_only_method and environment.is_env_present():
      return environment.get_process_count()
  return 1


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
  """Where two JSON values differ, in words."""
  if isinstance(before, dict) and isinstance(now, dict):
    for key in sorted(before.keys() | now.keys()):
      if before.get(key) != now.get(key):
        yield from _differences(before.get(key), now.get(key), f"{path}.{key}")
    return
  yield f"{path[1:] or 'it'} is {now!r:.80} and not {before!r:.80}"


@functools.cache
def _maximum() -> Callable:
  import jax

  return jax.jit(lambda x: x.max(), out_shardings=_layouts()[1])


@functools.cache
def _layouts() -> tuple[Any, Any]:
  """One number for each device, and one for all."""
  import jax
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec

  mesh = jax.sharding.Mesh(jax.devices(), ("all",))
  specs = PartitionSpec("all"), PartitionSpec()
  return tuple(NamedSharding(mesh, spec) for spec in specs)


@functools.lru_cache(maxsize=8)
def _one_per_device(number: int) -> Any:
  import jax
  import numpy as np

  return jax.make_array_from_callback(
    (jax.device_count(),),
    _layouts()[0],
    lambda _: np.full(1, number, np.int32),
  )


@functools.cache
def _replicating(mesh: Any) -> Callable:
  import jax
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec

  layout = NamedSharding(mesh, PartitionSpec())
  return jax.jit(lambda x: x, out_shardings=layout)
