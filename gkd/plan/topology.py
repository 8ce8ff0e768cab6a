"""Devices that are not here: slices of TPUs, and stand-ins for others.

  chip, devices = topology("v5e:4x4")

libtpu compiles for a TPU without one. For GPUs and CPUs as many virtual CPU
devices stand in: the split of the program is the same, its fusions are not.
"""

import math
import os
import re

import jax

from gkd.chips import CHIPS
from gkd.chips import Chip
from gkd.types import UserError

_TPUS = ("v5e", "v5p", "v6e")
_GPUS_OF_A_HOST = 8


def prepare(name: str) -> None:
  """Sets the environment for a topology, before JAX looks for devices.

  Raises:
    UserError: no such topology.
  """
  kind, sizes = _parsed(name)
  jax.config.update("jax_platforms", "cpu")
  # Programs of devices that are not here cannot be read back.
  jax.config.update("jax_enable_compilation_cache", False)
  if kind not in _TPUS:
    jax.config.update("jax_num_cpu_devices", math.prod(sizes))
    return
  for variable, value in {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": f"v5litepod-{math.prod(sizes)}",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  }.items():
    os.environ.setdefault(variable, value)


def devices(name: str) -> list[jax.Device]:
  """The devices of a topology, after `prepare`.

  Raises:
    UserError: libtpu is not installed, or does not know the slice.
  """
  kind, sizes = _parsed(name)
  if kind not in _TPUS:
    return jax.devices("cpu")
  from jax.experimental import topologies

  # A host has four chips; of a smaller slice, all.
  few = math.prod(sizes) < 4
  bounds = {"chips_per_host_bounds": (*sizes, 1)[:3]} if few else {}
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **bounds
    )
  except Exception as error:
    reason = " ".join(str(error).split())[:200]
    raise UserError(
      f"--topology {name}: libtpu has no such slice, or is missing ({reason});"
      " install it with pip install 'gkd[plan]', or give another slice"
    ) from error
  return list(found.devices)


def chip(name: str) -> Chip | None:
  """What is known of a topology's devices; None of a CPU's."""
  return CHIPS.get(_parsed(name)[0])


def _parsed(name: str) -> tuple[str, tuple[int, ...]]:
  """("v5e", (4, 4)) of "v5e:4x4"."""
  kind, _, sizes = name.partition(":")
  dimensions = {"v5p": 3, "v5e": 2, "v6e": 2}.get(kind, 1)
  if kind not in (*CHIPS, "cpu") or not re.fullmatch(
    "x".join([r"[1-9]\d*"] * dimensions), sizes
  ):
    raise UserError(
      f"--topology {name!r}; expected a slice of TPUs, v5e:4x4, v6e:8x8 or"
      " v5p:2x2x4, or a number of devices of h100, h200 or cpu, h200:8"
    )
  parsed = tuple(map(int, sizes.split("x")))
  if kind in ("h100", "h200") and parsed[0] > _GPUS_OF_A_HOST:
    raise UserError(
      f"--topology {name!r}; expected up to {_GPUS_OF_A_HOST} GPUs, as"
      " one machine has: the network between machines is not known"
    )
  return kind, parsed
