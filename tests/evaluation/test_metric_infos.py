"""What the values of an evaluation are, before anything runs.

That an evaluation reports these is seen where one runs, in test_loop.py.
"""

import json

from gkd.data.cache import TokenCache
from gkd.evaluation import metric_infos
from gkd.sampling.params import SamplingParams
from gkd.text import metrics
from tests.tiny import make_evaluation

KLS = [
  f"{direction}_kl{unit}"
  for direction in ("forward", "reverse")
  for unit in ("", "_per_token")
]
SHARES = [
  f"{share}_on_{writer}_text"
  for writer in ("teacher", "own")
  for share in ("agreement", "acceptance")
]


def test_names_and_fields_say_task_split_role_and_decoding(caches):
  def infos(*roles, **fields):
    evaluation = make_evaluation(caches["validation"], **fields)
    return metric_infos.metric_infos([evaluation], ["student", *roles])

  own = ["accuracy", "length", "truncation_rate"]
  alone = {f"eval/sums/{name}" for name in own}
  by_teacher = [f"teacher_{name}" for name in own]
  assert set(infos()) == alone
  compared = [*KLS, *SHARES, "length_ratio"]
  names = {f"eval/sums/{n}" for n in own + by_teacher + compared}
  assert set(infos("teacher")) == names
  without = infos("teacher", sequence_kl=False, score_teacher=False)
  assert set(without) == alone
  several = infos(
    "teacher",
    decoding=SamplingParams(temperature=0.5),
    num_samples=3,
    label="t0.5",
    name_split=True,
  )
  found = [f"{name}_t0.5" for name in own]
  assert set(several) >= {f"eval/sums-validation/{name}" for name in found}
  drawn = {"strategy": "sampling", "temperature": 0.5, "top_k": 0, "top_p": 1.0}
  teacher = vars(several["eval/sums-validation/teacher_accuracy_t0.5"])
  assert teacher == {
    "metric": "accuracy",
    "task": "sums",
    "split": "validation",
    "decoding": drawn | {"num_samples": 3},
    "label": "t0.5",
    "unit": "%",
    "direction": "max",
    "role": "teacher",
    "compared_with": "",
    "signature": "",
  }
  kl = several["eval/sums-validation/reverse_kl_per_token"]
  assert (kl.unit, kl.direction) == ("nats per token", "min")
  assert (kl.role, kl.compared_with, kl.label) == ("student", "teacher", "")
  assert kl.decoding["temperature"] == 1.0
  agreement = several["eval/sums-validation/agreement_on_own_text"]
  assert (agreement.unit, agreement.direction) == ("share of tokens", "max")
  assert (agreement.role, agreement.compared_with) == ("student", "teacher")
  only_forward = infos("teacher", distances=("forward_kl",))
  assert set(SHARES[:2]) == {
    name.rpartition("/")[2] for name in only_forward if "_on_" in name
  }
  assert "eval/sums/length_ratio" not in only_forward


def test_the_file_keeps_what_other_evaluations_wrote(caches, tmp_path):
  path = tmp_path / metric_infos.FILE_NAME
  path.write_text(json.dumps({"eval/other/bleu": {"metric": "bleu"}}))
  evaluation = make_evaluation(caches["validation"])
  infos = metric_infos.metric_infos([evaluation], ["student"])
  metric_infos.write(tmp_path, infos)
  written = json.loads(path.read_text())
  assert written["eval/other/bleu"] == {"metric": "bleu"}
  assert written["eval/sums/length"]["unit"] == "tokens"
  assert len(written) == 4


def test_the_signature_of_a_metric_is_kept(caches, tmp_path):
  cache = TokenCache(caches["validation"].path)
  vars(cache)["metric_fns"] = [metrics.bleu_zh, *cache.metric_fns]
  infos = metric_infos.metric_infos([make_evaluation(cache)], ["student"])
  metric_infos.write(tmp_path, infos)
  written = json.loads((tmp_path / metric_infos.FILE_NAME).read_text())
  signature = written["eval/sums/bleu_zh"]["signature"]
  assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|")
  assert "signature" not in written["eval/sums/accuracy"]


def exact_number(targets, predictions):
  hits = [
    float(p) == float(t) for t, p in zip(targets, predictions, strict=True)
  ]
  return {"hits": 100.0 * sum(hits) / len(hits)}


def test_a_metric_that_refuses_empty_answers_is_not_described(caches, caplog):
  cache = TokenCache(caches["validation"].path)
  vars(cache)["metric_fns"] = [exact_number, *cache.metric_fns]
  infos = metric_infos.metric_infos([make_evaluation(cache)], ["student"])
  names = ("accuracy", "length", "truncation_rate")
  assert set(infos) == {f"eval/sums/{name}" for name in names}
  assert (
    "metric exact_number: refuses empty answers (ValueError(" in caplog.text
  )
