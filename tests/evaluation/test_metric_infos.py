"""Names of values before anything runs.

That an evaluation reports these is seen where one runs, in test_loop.py.
"""

from gkd.evaluation.metric_infos import metric_infos
from gkd.sampling.params import SamplingParams
from tests.tiny import make_cache
from tests.tiny import make_evaluation

KLS = [
  f"{direction}_kl{unit}"
  for direction in ("forward", "reverse")
  for unit in ("", "_per_token")
]


def test_names_say_task_split_teacher_and_decoding(tmp_path):
  cache = make_cache(tmp_path / "cache", rows=8, split="validation")

  def names(teacher, **fields):
    evaluation = make_evaluation(cache, **fields)
    return set(metric_infos(evaluation, teacher=teacher))

  own = ["accuracy", "length", "truncation_rate"]
  assert names(False) == {f"eval/sums/{name}" for name in own}
  by_teacher = [f"teacher_{name}" for name in own]
  assert names(True) == {f"eval/sums/{n}" for n in own + by_teacher + KLS}
  assert names(True, sequence_kl=False, score_teacher=False) == names(False)
  several = names(
    False,
    decoding=SamplingParams(temperature=0.5),
    num_samples=3,
    label="t0.5",
    name_split=True,
  )
  found = [f"{name}_t0.5" for name in own]
  assert several >= {f"eval/sums-validation/{name}" for name in found}
