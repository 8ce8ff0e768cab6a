"""The table on the terminal, line by line."""

from gkd.cli import score_table
from gkd.evaluation.evaluation import Evaluation
from gkd.metric_fields import MetricInfo
from gkd.sampling.params import SamplingParams


def _evaluation(name="sums", split="test", temperature=0.0, **kwargs):
  lengths = {"inputs": 4, "targets": 4}
  decoding = SamplingParams(temperature=temperature)
  rows = range(1319)  # whatever has a length
  return Evaluation(name, split, rows, lengths, decoding, 8, **kwargs)


def _with_ends(**values):
  numbers = {}
  for name, (value, low, high) in values.items():
    numbers |= {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}
  return {f"eval/sums/{name}": value for name, value in numbers.items()}


def _info(metric, **fields):
  return MetricInfo(metric=metric, task="", split="", decoding={}, **fields)


def _infos(*metrics):
  """Of metrics that a teacher has as well, and of the divergence."""
  infos = {"forward_kl": _info("forward_kl", compared_with="teacher")}
  for metric in metrics:
    infos[metric] = _info(metric)
    infos[f"teacher_{metric}"] = _info(metric, role="teacher")
  return {f"eval/sums/{name}": info for name, info in infos.items()}


def test_metrics_are_told_apart_by_what_they_are_and_not_by_their_names():
  own = ("match_teacher_style", "lower_ci_low", "skl_kl")
  values = _with_ends(forward_kl=(3.0, 2.0, 4.0), skl_kl=(1.0, 0.0, 2.0))
  values |= {"eval/sums/match_teacher_style": 5.0, "eval/sums/lower": 6.0}
  values |= {"eval/sums/lower_ci_low": 7.0}
  lines = score_table.table([_evaluation()], values, _infos(*own))
  names = [line.split()[0] for line in lines.splitlines()[2:]]
  assert names == ["skl_kl", "match_teacher_style", "lower", "lower_ci_low"] + [
    "forward_kl"
  ]


def test_the_teacher_stands_beside_the_model():
  values = _with_ends(
    forward_kl=(12345.6, 0.91, 1234.5),  # to the end of the table
    accuracy=(54.25, 50.0, 58.51),
    length=(31.4159, 30.0, 33.0),
    teacher_accuracy=(92.4, 90.7, 94.0),
    teacher_length=(30.0, 30.0, 30.0),
  )
  infos = _infos("accuracy", "length")
  infos["eval/sums/accuracy"] = _info("accuracy", unit="%")
  assert score_table.table([_evaluation()], values, infos).splitlines() == [
    "sums, test: 1,319 prompts, greedily",
    "                  value   95 % interval   teacher   95 % interval",
    "  accuracy (%)    54.25     50 to 58.51      92.4      90.7 to 94",
    "  length          31.42        30 to 33        30        30 to 30",
    "  forward_kl     12,346   0.91 to 1,234",
  ]


def test_without_teacher_and_intervals_only_values_are_left():
  values = {"eval/sums/accuracy": 3.0, "eval/sums/truncation_rate": 0.01234}
  assert score_table.table([_evaluation()], values, {}).splitlines() == [
    "sums, test: 1,319 prompts, greedily",
    "                      value",
    "  accuracy                3",
    "  truncation_rate   0.01234",
  ]


def test_every_split_has_a_block_and_every_way_of_decoding_a_name():
  evaluations = [
    _evaluation(name_split=True),
    _evaluation(name_split=True, temperature=0.5, num_samples=4, label="t0.5"),
    _evaluation(split="validation", name_split=True, num_examples=10),
  ]
  values = {
    "eval/sums-test/accuracy": 1.0,
    "eval/sums-test/accuracy_t0.5": 2.0,
    "eval/sums-validation/accuracy": 3.0,
  }
  assert score_table.table(evaluations, values, {}).splitlines() == [
    "sums, test: 1,319 prompts",
    "  greedily",
    "  …_t0.5: at temperature 0.5, 4 answers each",
    "                  value",
    "  accuracy            1",
    "  accuracy_t0.5       2",
    "",
    "sums, validation: 10 prompts, greedily",
    "             value",
    "  accuracy       3",
  ]


def test_a_number_that_is_not_finite_is_shown():
  values = _with_ends(forward_kl=(float("inf"), float("nan"), float("nan")))
  lines = score_table.table([_evaluation()], values, {}).splitlines()
  assert lines[-1].split() == ["forward_kl", "inf", "nan", "to", "nan"]
