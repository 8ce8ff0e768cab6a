"""Random T5Gemmas against transformers, live: `make parity`."""

import functools
import types

import jax
import numpy as np
import pytest

from gkd import keys
from gkd import trees
from gkd.checkpoints import source
from gkd.models import registry
from gkd.sampling.generate import generate
from gkd.sampling.params import SamplingParams
from gkd.types import Batch
from gkd.types import Model
from tests import tiny_t5gemma
from tests.checkpoints import tiny_models

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def pair(transformers, tmp_path_factory):
  """Of a case: our arrays, and what transformers opens of their folder."""

  @functools.cache
  def make(case):
    folder = tiny_t5gemma.save(tmp_path_factory.mktemp("hf") / "ours", case)
    theirs, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
      folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    return tiny_t5gemma.arrays(case), theirs.eval()

  return make


def _prompts(torch, ids, mask):
  mask = torch.tensor(mask.astype(int))
  return {"input_ids": torch.tensor(ids), "attention_mask": mask}


def _teacher_forced(torch, theirs, ids, mask, targets):
  fed = np.pad(targets, ((0, 0), (1, 0)), constant_values=2)[:, :-1]
  with torch.no_grad():
    logits = theirs(
      **_prompts(torch, ids, mask), decoder_input_ids=torch.tensor(fed)
    ).logits
  return logits.float().numpy()


@pytest.mark.parametrize("case", tiny_t5gemma.CASES)
def test_logits_and_greedy_answers_equal_transformers(torch, pair, case):
  arrays, theirs = pair(case)
  ours, params = (
    registry.build(tiny_t5gemma.config_of(case)),
    trees.unflatten(arrays),
  )
  ids, mask, targets = tiny_t5gemma.batch()
  want = _teacher_forced(torch, theirs, ids, mask, targets)
  got = jax.jit(ours.logits)(params, ids, targets, input_mask=mask)
  np.testing.assert_allclose(got, want, atol=1e-4 * np.ptp(want))

  vocabulary = types.SimpleNamespace(
    eos_ids=ours.config.eos_ids, pad_id=0, control_ids=()
  )
  samples = generate(
    Model(ours, params),
    Batch(ids, mask, None, None, np.arange(len(ids)), None),
    keys.stream(0, 0, keys.Role.OFFLINE_SAMPLE),
    SamplingParams(temperature=0.0),
    max_length=targets.shape[1],
    vocabulary=vocabulary,
  )
  answers = theirs.generate(
    **_prompts(torch, ids, mask),
    do_sample=False,
    max_new_tokens=targets.shape[1],
    suppress_tokens=[0, 2],
  ).numpy()[:, 1:]
  for row, answer in enumerate(answers):
    length = int(samples.lengths[row])
    np.testing.assert_array_equal(samples.tokens[row, :length], answer[:length])
    assert samples.truncated[row] == (
      not np.isin(answer, ours.config.eos_ids).any()
    )
  assert len(set(samples.lengths.tolist())) > 2


@pytest.mark.parametrize("case", ["balanced", "unbalanced"])
def test_bfloat16_rounds_no_more_than_transformers_does(torch, pair, case):
  arrays, theirs = pair(case)
  ids, mask, targets = tiny_t5gemma.batch()
  exact = _teacher_forced(torch, theirs, ids, mask, targets)
  rounded = registry.build(tiny_t5gemma.config_of(case, dtype="bfloat16"))
  params = trees.unflatten(arrays)
  got = jax.jit(rounded.logits)(params, ids, targets, input_mask=mask)
  half = type(theirs)(theirs.config).to(torch.bfloat16).eval()
  half.load_state_dict(theirs.state_dict())
  want = _teacher_forced(torch, half, ids, mask, targets)
  error, limit = (np.sqrt(np.mean((x - exact) ** 2)) for x in (got, want))
  assert 0 < error <= limit


@pytest.mark.parametrize("case", tiny_t5gemma.CASES)
def test_what_transformers_saves_is_the_same_model_here(pair, tmp_path, case):
  arrays, theirs = pair(case)
  theirs.save_pretrained(tmp_path / "theirs", max_shard_size=20_000)
  opened = source.open_checkpoint(tmp_path / "theirs")
  assert opened.config == tiny_t5gemma.config_of(case)
  tiny_models.assert_same_arrays(opened.leaves, tiny_models.as_leaves(arrays))
  tiny_models.convert(tmp_path / "theirs", tmp_path / "gkd", to="gkd")
  again = source.open_checkpoint(tmp_path / "gkd")
  assert again.config == opened.config
  tiny_models.assert_same_arrays(again.leaves, opened.leaves)
