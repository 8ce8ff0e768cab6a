"""Makes decoders.npz and t5gemma.npz with PyTorch and transformers.

  PYTHONPATH=. python tests/golden/make_decoders.py   # in the checkout

NumPy draws weights under transformers' names (`tiny_decoders`), so that none
are stored: the test makes the same folder and reads it as gkd does. Kept of
each case are greedy answers and the logits before each of their tokens, of
`tiny_t5gemma` the logits of targets; row by row without any padding. Made with
transformers 5.24.0 and torch 2.13.0.
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers

from tests import tiny_t5gemma
from tests.checkpoints import tiny_decoders

LENGTHS = (11, 5, 1)  # of the prompts; 11 is beyond Gemma's window of 4
NUM_TOKENS = 8


def main():
  kept = {"prompts": np.random.RandomState(3).randint(4, 40, (3, LENGTHS[0]))}
  for case in tiny_decoders.GOLDEN:
    with tempfile.TemporaryDirectory() as folder:
      path = tiny_decoders.make_golden(pathlib.Path(folder, "saved"), case)
      model = transformers.AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", dtype="float32"
      ).eval()
    answers = np.full((3, NUM_TOKENS), -1)
    logits = np.zeros((3, NUM_TOKENS, 40), np.float32)
    for row, length in enumerate(LENGTHS):
      prompt = torch.tensor(kept["prompts"][row, :length][None])
      out = model.generate(
        prompt,
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        suppress_tokens=[1, 3],  # start and padding, which gkd never draws
        output_logits=True,
        return_dict_in_generate=True,
      )
      answer = out.sequences[0, length:].numpy()
      answers[row, : len(answer)] = answer
      logits[row, : len(answer)] = torch.cat(out.logits).numpy()
    kept |= {f"{case}/answers": answers, f"{case}/logits": logits}
    top = np.sort(np.delete(logits, [1, 3], axis=-1)[answers >= 0])
    print(case, answers.tolist(), f"{np.min(top[:, -1] - top[:, -2]):.1e}")
  np.savez_compressed(pathlib.Path(__file__).with_name("decoders.npz"), **kept)


def t5gemma():
  with tempfile.TemporaryDirectory() as folder:
    path = tiny_t5gemma.save(pathlib.Path(folder, "saved"), "unbalanced")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
      path, attn_implementation="eager"
    ).eval()
  logits = []
  for ids, mask, target in zip(*tiny_t5gemma.batch(4), strict=True):
    fed = torch.tensor([[2, *target[:-1]]])
    with torch.no_grad():
      out = model(torch.tensor(ids[mask][None]), decoder_input_ids=fed)
    logits.append(out.logits[0].numpy())
  file = pathlib.Path(__file__).with_name("t5gemma.npz")
  np.savez_compressed(file, logits=np.stack(logits))


if __name__ == "__main__":
  main()
  t5gemma()
