"""Which checkpoint is meant, in the three ways to say it."""

import hashlib
import json

import jax
import numpy as np
import pytest

from gkd.checkpoints import models
from gkd.checkpoints import store
from gkd.checkpoints import trained
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError

PARAMS = {"a": np.arange(3, dtype=np.float32)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with the checkpoints 2 and 4, beside parameters saved alone."""
  folder = tmp_path_factory.mktemp("runs")
  saves = store.Store(folder / "run" / "checkpoints")
  for step in (2, 4):
    saves.save(step, {"params": {"a": PARAMS["a"] + step}, "step": step})
  saves.wait()
  models.save_params(folder / "alone", PARAMS, {"step": 7})
  return folder / "run"


def test_a_run_means_its_newest_checkpoint(run):
  four = run / "checkpoints" / "00000004"
  assert trained.locate(run) == trained.locate(four)
  assert trained.locate(run)[:2] == (four, 4)
  two = trained.locate(run / "checkpoints" / "00000002")
  assert two.step == 2
  alone = trained.locate(run.parent / "alone")
  assert alone.step == 7
  assert len({two.sha256, trained.locate(run).sha256, alone.sha256}) == 3


def test_what_is_located_is_what_is_loaded(run):
  like = {"a": jax.ShapeDtypeStruct((3,), np.float32)}
  for path, expected in ((run, 4), (run.parent / "alone", 0)):
    params, _ = trained.load_trained(path, like)
    again, _ = trained.load_trained(trained.locate(path).path, like)
    assert params["a"].tolist() == again["a"].tolist()
    assert params["a"].tolist() == (PARAMS["a"] + expected).tolist()


def test_the_hash_is_that_of_the_files(run):
  """A copy has the same one; it covers every file that the list names."""
  path = run / "checkpoints" / "00000002"
  listed = json.loads((path / "sha256.json").read_text())
  for name, digest in listed.items():
    content = (path / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
  expected = hashlib.sha256((path / "sha256.json").read_bytes()).hexdigest()
  assert trained.locate(path).sha256 == expected


@pytest.mark.parametrize(
  "text", ['{"contents": {', "[]", "\udcff", '{"model": 5}']
)
def test_a_damaged_description_is_one_line(tmp_path, text):
  (tmp_path / "run.json").write_text(text, "utf-8", "surrogateescape")
  with pytest.raises(
    UserError, match=r"run\.json (is not (a )?JSON|has model 5).*: restore it"
  ) as error:
    trained.describe_run(tmp_path)
  assert "\n" not in str(error.value)


def test_a_saved_model_is_known_by_its_parameters(run, tmp_path):
  """Saved anew with another description it is still the same model."""
  models.save_params(tmp_path / "anew", PARAMS, {"step": 8, "note": "later"})
  models.save_params(tmp_path / "other", {"a": PARAMS["a"] + 1}, {"step": 7})
  alone = trained.locate(run.parent / "alone").sha256
  assert trained.locate(tmp_path / "anew").sha256 == alone
  assert trained.locate(tmp_path / "other").sha256 != alone


def test_nothing_there_is_one_line(run, tmp_path):
  with pytest.raises(UserError, match=r"no checkpoint at .*/nowhere"):
    trained.locate(tmp_path / "nowhere")
  with pytest.raises(UserError, match="no finished checkpoint at"):
    trained.locate(tmp_path)
  (tmp_path / "new" / "checkpoints").mkdir(parents=True)
  with pytest.raises(UserError, match="has no finished checkpoint yet"):
    trained.locate(tmp_path / "new")


def test_a_vocabulary_that_was_kept_is_found_again(tmp_path):
  """Also by a run that goes on, which writes it a second time."""
  vocabulary = ByteVocabulary(7)
  for _ in range(2):
    spec = trained.write_vocabulary(tmp_path / "run", vocabulary)
    assert spec["sha256"] == vocabulary.sha256
    found = tokenizer_folder.load(tmp_path / "run")
    assert found.spec() == vocabulary.spec()
    assert found.size == 3 + 256 + 7
