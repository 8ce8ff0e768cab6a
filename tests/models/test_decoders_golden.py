"""Decoder-only models against outputs of transformers (golden/decoders.npz)."""

import jax
import numpy as np
import pytest

from gkd import partitioning
from gkd.checkpoints import source
from gkd.models import decoder_only
from tests.checkpoints import tiny_decoders


@pytest.mark.parametrize("case", tiny_decoders.GOLDEN)
def test_logits_and_greedy_answers_equal_transformers(case, golden, tmp_path):
  with np.load(golden / "decoders.npz") as file:
    prompts, *want = (
      file[name] for name in ("prompts", f"{case}/answers", f"{case}/logits")
    )
  answers, logits = want
  folder = tiny_decoders.make_golden(tmp_path / "saved", case)
  checkpoint = source.open_checkpoint(folder)
  model = decoder_only.decoder_only(checkpoint.config)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  params = source.load_params(checkpoint, model, mesh)
  # Padded here, each row for itself there.
  mask = np.arange(prompts.shape[1]) < np.array([[11], [5], [1]])
  got = np.array(
    jax.jit(model.logits)(
      params, prompts, np.maximum(answers, 0), input_mask=mask
    )
  )
  real = answers >= 0
  np.testing.assert_allclose(
    got[real], logits[real], rtol=0, atol=1e-5 * np.ptp(logits)
  )
  # Each token is the best one after those before it: so greedy decoding goes.
  got[..., [1, 3]] = -np.inf  # start and padding
  np.testing.assert_array_equal(got.argmax(axis=-1)[real], answers[real])
