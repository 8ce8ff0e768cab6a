"""Memory of the host that a step frees is kept for the next one."""

import ctypes

# Parameters of `mallopt` (<malloc.h>) and their values.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1


def keep_freed() -> None:
  """Tells glibc to give no memory back to the system, and to have one arena.

  On a CPU a step allocates its arrays anew. glibc maps large ones, and the
  system fills each page with zeros before the step writes it: a seventh of the
  time of an update of T5 small. Threads that have an arena already keep it, so
  this has to be called before JAX starts its own; elsewhere it does nothing.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return  # another C library
  mallopt(_ARENA_MAX, 1)
  mallopt(_MMAP_MAX, 0)
  mallopt(_TRIM_THRESHOLD, -1)  # as an unsigned size, none reaches it
