"""The model card: what is known, what is not, nothing else."""

import dataclasses
import json
from pathlib import Path

import pytest

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import model_card
from gkd.models.t5 import T5Config
from tests.checkpoints import tiny_models

FACTS = {
  "teacher": "runs/teacher, T5 1.1 large",
  "teacher_parameters": 783150080,
  "objective": "reverse KL | KL(q ‖ p)",
  "steps": 400,
  "seed": 0,
}


def checkpoint(step=None, **about):
  return Checkpoint(
    path=Path("somewhere"),
    format="gkd",
    layout="checkpoint of a gkd run (orbax)",
    config=T5Config(vocab_size=32128, vocabulary_size=32100),
    leaves={},
    step=step,
    metadata=about,
  )


@pytest.fixture
def run_dir(tmp_path):
  lines = [
    {"step": 100, "train/loss": 1.0},
    {
      "step": 200,
      "eval/sums/accuracy": 40.0,
      "eval/sums/accuracy_ci_low": 35.0,
      "eval/sums/accuracy_ci_high": 45.25,
      "eval/sums/empty": None,
    },
    {"step": 400, "eval/sums/accuracy": 61.5},
    {"step": 500, "train/loss": 0.5},
  ]
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 60'  # a kill
  (tmp_path / "metrics.jsonl").write_text(text)
  return str(tmp_path)


def test_a_run_is_told_with_its_last_scores(run_dir):
  page = model_card.text(
    checkpoint(500, run={"card": FACTS}, run_dir=run_dir),
    {"license": "apache-2.0", "teacher_license": "mit"},
  )
  assert page.startswith('---\nlicense: "apache-2.0"\nlibrary_name: transform')
  assert "- distillation" in page
  assert "| Teacher | runs/teacher, T5 1.1 large |" in page
  assert "| Parameters of the teacher | 783,150,080 |" in page
  assert r"| Objective | reverse KL \| KL(q ‖ p) |" in page
  assert "after step 400, not at step 500 of this checkpoint" in page
  assert "| sums/accuracy | 61.5 |  |" in page
  assert "| Teacher | mit |" in page
  assert "| Data | unknown: not given when it was exported |" in page


@pytest.mark.parametrize(
  ("run", "step", "sentence", "row"),
  [
    ({}, 200, "Evaluated after step 200; bootstrap", "40 | 35 to 45.25"),
    # Steps before the run are counted.
    ({"initial_step": 1000}, 1200, "after step 1,200; ", "40 | 35 to 45.25"),
    (
      {"first_step": 1000},
      200,
      "step 1,400, not at step 200 of this",
      "61.5 | ",
    ),
  ],
)
def test_scores_of_its_own_step_are_preferred(
  run_dir, run, step, sentence, row
):
  run = {"card": FACTS, **run}
  page = model_card.text(checkpoint(step, run=run, run_dir=run_dir), {})
  assert sentence in page
  assert f"| sums/accuracy | {row} |" in page
  assert "empty" not in page
  assert not page.startswith("---\nlicense")


def test_lines_that_are_no_evaluation_are_passed_over(run_dir):
  with (Path(run_dir) / "metrics.jsonl").open("a") as file:
    file.write('0}\n[1]\n7\nnull\n{"eval/sums/accuracy": 1.0}\n')
    file.write('{"step": null, "eval/sums/accuracy": 2.0}\n')
  page = model_card.text(
    checkpoint(None, run={"card": FACTS}, run_dir=run_dir), {}
  )
  assert "| sums/accuracy | 61.5 |  |" in page


def test_what_is_unknown_is_said_to_be():
  page = model_card.text(checkpoint(), {})
  assert "- distillation" not in page
  assert "| Teacher | unknown |" in page
  assert "Scores: unknown; no evaluation was found" in page
  assert "How the model was trained: unknown to the converter" in page


@pytest.mark.parametrize(
  ("bias_per_layer", "logits_via_embedding", "told"),
  [(True, False, True), (True, True, False), (False, False, False)],
)
def test_transformers_has_to_be_told_of_an_untied_umt5(
  bias_per_layer, logits_via_embedding, told
):
  config = T5Config(
    vocab_size=64,
    bias_per_layer=bias_per_layer,
    logits_via_embedding=logits_via_embedding,
  )
  page = model_card.text(dataclasses.replace(checkpoint(), config=config), {})
  line = "model.config.tie_word_embeddings = False"
  assert (line in page) == told
  assert "pipeline_tag: text2text-generation" in page


def test_an_export_writes_it_before_the_arrays(tmp_path, monkeypatch):
  """What is wrong with a card does not cost the hours that they take."""

  def fail(*_):
    raise RuntimeError("no card")

  monkeypatch.setattr(model_card, "text", fail)
  with pytest.raises(RuntimeError, match="no card"):
    hf_folder.write(tmp_path, tiny_models.make())
  assert list(tmp_path.iterdir()) == []
