"""Error texts of gin in the words of somebody who only wrote a config."""

from collections.abc import Iterable
import difflib
import importlib
import inspect
import re


def plain(message: str) -> str:
  """Gin's message without its places in our own import lines."""
  message = " ".join(message.split("\n  In call to")[0].split())
  for noise in (" In bindings string line", " No values supplied by Gin"):
    message = message.split(noise)[0]
  message = message.rstrip(". ")
  found = re.match(
    r"Couldn't resolve selector \S+; <module '([\w.]+)'.* has no attribute"
    r" (\w+)",
    message,
  )
  if found is None:
    return message
  module, name = found.groups()
  classes = {
    key
    for key, value in vars(importlib.import_module(module)).items()
    if inspect.isclass(value) and value.__module__ == module
  }
  return f"{module} has no {name!r}, did you mean {nearest(name, classes)}?"


def nearest(name: str, known: Iterable[str]) -> str:
  """The names that were probably meant."""
  names = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
  return " or ".join(names or sorted(known)[:12]) or "another file"
