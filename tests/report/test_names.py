"""Runs are called as the table calls them; seeds of an arm share a name."""

import pytest

from gkd.report import names


@pytest.mark.parametrize(
  ("name", "path", "arm", "seed"),
  [
    ("seqkd", "/a/seqkd", "SeqKD", ""),
    ("seed_12/seqkd", "/a/seed_12/seqkd", "SeqKD", "12"),
    ("student", "/a/student", "Student after SFT (start)", ""),
    ("lr_1/seed3/mine", "/a/lr_1/seed3/mine", "lr_1/mine", "3"),
    ("seed_0", "/a/gkd_mixed/seed_0", "Mixed GKD", "0"),
    ("seed_1/sft/eval", "/a/seed_1/sft/eval", "Student after SFT/eval", "1"),
    ("seedling", "/a/seedling", "seedling", ""),
  ],
)
def test_arm_is_the_name_without_its_seed(name, path, arm, seed):
  assert names.arm(name, path) == arm
  assert names.seed(name) == seed


def test_divergence_reads_as_words():
  assert names.divergence("ForwardKL") == "forward KL"
  assert names.divergence("GeneralizedJSD") == "generalized JSD"
  assert names.divergence("TotalVariation") == "total variation"
