"""A model comes back bit for bit, with what is said of it, or not at all."""

import hashlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.checkpoints import models
from gkd.types import UserError
from tests.checkpoints.test_store import assert_same
from tests.checkpoints.test_store import flip_a_bit
from tests.checkpoints.test_store import make_state


def test_params_and_metadata_come_back(tmp_path):
  params = make_state(4).params
  metadata = {"model": {"emb_dim": 16}, "step": 7, "vocabulary": "äß"}
  path = tmp_path / "models" / "teacher"
  models.save_params(path, params, metadata)
  loaded, described = models.load_params(path)
  assert_same(loaded, params)
  content = described.pop("content_sha256")
  assert content == expected_sha256(params)
  assert described == metadata
  assert models.load_metadata(path) == metadata | {"content_sha256": content}
  assert_same(
    models.load_params(path, jax.eval_shape(lambda: params))[0], params
  )
  # Saving again replaces it and leaves nothing behind.
  models.save_params(path, make_state(5).params, {"step": 8})
  loaded, described = models.load_params(path)
  assert_same(loaded, make_state(5).params)
  assert described.pop("content_sha256") != content
  assert described == {"step": 8}
  assert [f.name for f in path.parent.iterdir()] == ["teacher"]


def expected_sha256(params) -> str:
  """As the docstring of `ContentHash` says, written down a second time."""
  named = {}

  def walk(tree, prefix):
    for key, value in tree.items():
      if isinstance(value, dict):
        walk(value, f"{prefix}{key}/")
      else:
        named[f"{prefix}{key}"] = np.asarray(value)

  walk(params, "")
  digest = hashlib.sha256()
  for name in sorted(named):
    array = named[name]
    head = json.dumps([name, list(array.shape), str(array.dtype)]) + "\n"
    digest.update(head.encode() + array.tobytes())
  return digest.hexdigest()


def test_a_description_that_is_no_json_is_one_line(tmp_path):
  models.save_params(tmp_path / "a", {"x": jnp.zeros(1)}, {})
  for text in ("{", "[]", "\udcff"):
    file = tmp_path / "a" / "metadata.json"
    file.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(UserError, match=r"metadata\.json is not (a )?JSON"):
      models.load_metadata(tmp_path / "a")


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"model": 5}, "has model 5; expected an object"),
    ({"assumed": 5}, "has assumed 5; expected a list"),
    ({"hf": [5]}, r"has hf \[5\]; expected an object"),
    ({"run": 5}, "has run 5; expected an object"),
    ({"step": "x"}, "has step 'x'; expected a whole number"),
    ({"step": 1.5}, "has step 1.5; expected a whole number"),
  ],
)
def test_a_description_of_other_types_is_one_line(tmp_path, changes, told):
  models.save_params(tmp_path / "a", {"x": jnp.zeros(1)}, changes)
  with pytest.raises(UserError, match=f"metadata.json {told}; damaged check"):
    models.load_metadata(tmp_path / "a")


def test_checkpoint_can_be_moved(tmp_path):
  params = make_state(4).params
  models.save_params(tmp_path / "a", params, {})
  shutil.move(tmp_path / "a", tmp_path / "b")
  assert_same(models.load_params(tmp_path / "b")[0], params)


def test_params_errors_say_what_to_do(tmp_path):
  with pytest.raises(UserError, match=r"no checkpoint at .*does not exist"):
    models.load_params(tmp_path / "nothing")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "thesis.tex").write_text("x")
  with pytest.raises(UserError, match="is not a model checkpoint of gkd"):
    models.load_params(tmp_path / "other")
  with pytest.raises(UserError, match="exists and is not a checkpoint"):
    models.save_params(tmp_path / "other", {"x": jnp.zeros(1)}, {})
  assert (tmp_path / "other" / "thesis.tex").exists()
  models.save_params(tmp_path / "a", make_state().params, {})
  flip_a_bit(tmp_path / "a")
  with pytest.raises(UserError, match="damaged checkpoint"):
    models.load_params(tmp_path / "a")


def test_a_kill_while_one_is_replaced_leaves_the_old_or_the_new(
  tmp_path, monkeypatch
):
  """At every rename and removal; the next save goes on from what is there."""
  path = tmp_path / "teacher"
  states = [make_state(seed).params for seed in (4, 5, 6)]
  for number in range(1, 5):
    models.save_params(path, states[0], {"step": 0})
    with monkeypatch.context() as patched:
      kill_at(patched, number)
      killed = False
      try:
        models.save_params(path, states[1], {"step": 1})
      except Killed:
        killed = True
    assert killed == (number < 4)
    kept = path if path.exists() else tmp_path / ".teacher.before"
    loaded, about = models.load_params(kept)
    assert_same(loaded, states[about["step"]])
    models.save_params(path, states[2], {"step": 2})
    assert_same(models.load_params(path)[0], states[2])
    assert [f.name for f in tmp_path.iterdir()] == ["teacher"]


class Killed(BaseException):
  """Stands for kill -9 at a call of the system."""


def kill_at(patched, number):
  """Dies before the n-th rename or removal of what is to be replaced."""
  calls = []

  def dying(original):
    def replaced(path, *args, **kwargs):
      name = os.path.basename(path)
      if name in ("teacher", ".teacher.before", ".teacher.partial") and (
        os.path.exists(path)
      ):
        calls.append(name)
        if len(calls) >= number:
          raise Killed
      return original(path, *args, **kwargs)

    return replaced

  patched.setattr(models.os, "rename", dying(os.rename))
  patched.setattr(models.shutil, "rmtree", dying(shutil.rmtree))
