"""Data sheets of accelerators."""

from typing import NamedTuple

_GIB = 2**30


class Chip(NamedTuple):
  """What a data sheet says of one device.

  Attributes:
    flops: multiply-adds of bfloat16 a second, times two.
    memory: bytes; of a TPU what its compiler gives to programs, of a GPU the
      75 % that JAX takes at start-up.
    bandwidth: of the memory, bytes a second.
    network: to other chips over all links, bytes a second and direction.
  """

  flops: float
  memory: float
  bandwidth: float
  network: float


# cloud.google.com/tpu/docs/system-architecture, NVIDIA's data sheets.
CHIPS = {
  "v5e": Chip(197e12, 15.75 * _GIB, 819e9, 100e9),
  "v5p": Chip(459e12, 95.74 * _GIB, 2765e9, 300e9),
  "v6e": Chip(918e12, 31.25 * _GIB, 1640e9, 224e9),
  "h100": Chip(989e12, 0.75 * 79 * _GIB, 3350e9, 450e9),
  "h200": Chip(989e12, 0.75 * 140 * _GIB, 4800e9, 450e9),
}
# As JAX names them. H100s of other memories have other peaks.
_KINDS = {
  **{"TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p"},
  **{"TPU v6 lite": "v6e", "TPU v6e": "v6e"},
  **{"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"},
}


def of_kind(device_kind: str) -> Chip | None:
  """The chip of a `jax.Device.device_kind`; None where it is not known."""
  return CHIPS.get(_KINDS.get(device_kind, ""))
