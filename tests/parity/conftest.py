"""PyTorch, transformers, and models that both sides have."""

import runpy
import types

import pytest


@pytest.fixture(scope="session")
def torch():
  return pytest.importorskip("torch", reason="parity needs torch: make parity")


@pytest.fixture(scope="session")
def transformers(torch):
  return pytest.importorskip(
    "transformers", reason="parity needs transformers: make parity"
  )


@pytest.fixture(scope="session")
def reference(golden, transformers):
  """The functions of golden/transformers/make.py."""
  path = golden / "transformers" / "make.py"
  return types.SimpleNamespace(**runpy.run_path(str(path)))
