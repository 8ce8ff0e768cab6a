"""One of two processes that share a mesh: two_processes.py INDEX PORT CACHE.

Prints the rows that it read and the batch that all processes then hold.
"""

import functools
import json
import sys

import jax
from jax.experimental import multihost_utils

from gkd import partitioning
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader


def main(index: int, port: str, path: str) -> None:
  jax.distributed.initialize(f"localhost:{port}", 2, index)
  lengths = {"inputs": 5, "targets": 4}
  loader = Loader(TokenCache(path), batch_size=8, lengths=lengths, seed=3)
  asked = []

  def read(step, places):
    asked.append(list(places))
    return loader.batch(step, places)

  found = []
  for model in (1, 2):
    sharding = partitioning.batch_sharding(partitioning.make_mesh(model=model))
    batch = partitioning.place_rows(functools.partial(read, 2), 8, sharding)
    whole = multihost_utils.process_allgather(batch, tiled=True)
    found.append({"rows": whole.rows.tolist(), "inputs": whole.inputs.tolist()})
  print(json.dumps({"asked": asked, "found": found}))


if __name__ == "__main__":
  main(int(sys.argv[1]), *sys.argv[2:])
