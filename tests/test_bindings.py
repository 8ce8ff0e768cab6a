"""Bindings are read as gin writes them."""

from gkd import bindings


def test_config_values_may_span_lines_and_hold_marks():
  text = """
from gkd import training  # an import
include "runs/base.gin"

# TRAIN_STEPS = 5
TRAIN_STEPS = 1000  # a note
MODEL_DIR = "runs/#1 = a"
LENGTHS = {"inputs": 24,
    "targets": 40}
training.loop.Run.teacher = \\
    @t5.encoder_decoder()
student/t5.T5Config.emb_dim = 40
"""
  assert bindings.parse(text) == {
    "TRAIN_STEPS": "1000",
    "MODEL_DIR": '"runs/#1 = a"',
    "LENGTHS": '{"inputs": 24, "targets": 40}',
    "training.loop.Run.teacher": "@t5.encoder_decoder()",
    "student/t5.T5Config.emb_dim": "40",
  }
