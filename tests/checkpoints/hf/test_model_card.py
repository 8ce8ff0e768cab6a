"""The model card: what is known, what is not, nothing else."""

import json
from pathlib import Path

import pytest

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import hf_t5_config
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


def page_of(step=None, fields=None, config=None, **metadata):
  made = Checkpoint(
    path=Path("somewhere"),
    format="gkd",
    layout="checkpoint of a gkd run (orbax)",
    config=config or T5Config.from_size("T5_1_1_SMALL"),
    leaves={},
    step=step,
    metadata=metadata,
  )
  return model_card.text(made, fields or {}, hf_t5_config.TASK)


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
    # No evaluations: passed over.
    *([1], 7, None, {"eval/sums/accuracy": 1.0}),
    {"step": None, "eval/sums/accuracy": 2.0},
  ]
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 60'  # a kill
  (tmp_path / "metrics.jsonl").write_text(text)
  return str(tmp_path)


def test_a_run_is_told_with_its_last_scores(run_dir):
  fields = {"license": "apache-2.0", "teacher_license": "mit"}
  page = page_of(500, fields, run={"card": FACTS}, run_dir=run_dir)
  assert page.startswith('---\nlicense: "apache-2.0"\nlibrary_name: transform')
  for part in (
    "pipeline_tag: text2text-generation",
    "- distillation",
    "| Teacher | runs/teacher, T5 1.1 large |",
    "| Parameters of the teacher | 783,150,080 |",
    r"| Objective | reverse KL \| KL(q ‖ p) |",
    "after step 400, not at step 500 of this checkpoint",
    "| sums/accuracy | 61.5 |  |",
    "| Teacher | mit |",
    "| Data | unknown: not given when it was exported |",
  ):
    assert part in page


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
  page = page_of(step, run={"card": FACTS, **run}, run_dir=run_dir)
  assert sentence in page
  assert f"| sums/accuracy | {row} |" in page
  assert "empty" not in page
  assert not page.startswith("---\nlicense")


def test_what_is_unknown_is_said_to_be():
  page = page_of()
  assert "- distillation" not in page
  assert "| Teacher | unknown |" in page
  assert "Scores: unknown; no evaluation was found" in page
  assert "How the model was trained: unknown to the converter" in page


def test_a_licence_that_is_known_is_told_unless_another_is_given():
  known = {"license": "mit", "run": {"card": {"teacher_license": "gemma"}}}
  assert "| This model | mit |\n| Teacher | gemma |" in page_of(**known)
  page = page_of(fields={"license": "apache-2.0"}, **known)
  assert '\nlicense: "apache-2.0"\n' in page
  assert "| This model | apache-2.0 |" in page


def test_a_run_without_a_teacher_has_none_that_is_unknown():
  page = page_of(
    run={"card": FACTS | {"teacher": "", "teacher_parameters": None}}
  )
  assert "Steps | 400" in page
  assert "eacher" not in page


def test_a_deeper_decoder_is_generated_from_without_a_cache():
  for depth in (1, 3):
    config = T5Config.from_size(
      tiny_models.SIZE, num_encoder_layers=2, num_decoder_layers=depth
    )
    assert ("use_cache=False" in page_of(config=config)) == (depth == 3)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_has_to_be_told_of_an_untied_umt5(per_layer, tied):
  config = T5Config.from_size(
    tiny_models.SIZE, bias_per_layer=per_layer, logits_via_embedding=tied
  )
  line = "model.config.tie_word_embeddings = False"
  assert (line in page_of(config=config)) == (per_layer and not tied)


def test_an_export_writes_it_before_the_arrays(tmp_path, monkeypatch):
  """What is wrong with a card does not cost the hours that they take."""

  def fail(*_):
    raise RuntimeError("no card")

  monkeypatch.setattr(model_card, "text", fail)
  with pytest.raises(RuntimeError, match="no card"):
    hf_folder.write(tmp_path, tiny_models.make())
  assert list(tmp_path.iterdir()) == []
