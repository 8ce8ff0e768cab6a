"""Which charts there are, and in which order."""

from gkd.report import curves
from gkd.report.runs import Run


def _run(name, names, steps=(10, 20), is_evaluation=False):
  metrics = {
    name: (list(steps), [float(step) + 1 for step in steps]) for name in names
  }
  return Run(name, name, metrics, {}, "", {}, [], is_evaluation=is_evaluation)


def _titles(runs):
  return {
    section: [chart.title for chart in charts]
    for section, charts in curves.from_runs(runs).items()
  }


def test_sections_come_in_reading_order_whatever_the_runs_report():
  names = [
    "memory/peak_bytes",
    "time/update_seconds",
    "train/odd",
    "train/lambda",
    "train/loss",
    "eval/toy/accuracy",
    "eval/toy/accuracy_ci_low",
    "eval/toy/accuracy_ci_high",
    "eval/toy/teacher_accuracy",
    "eval/toy/forward_kl",
    "eval/toy/forward_kl_per_token",
    "eval/toy/length",
    "train/learning_rate",
  ]
  assert list(_titles([_run("a", names)]).items()) == [
    ("Evaluation", ["Accuracy", "Forward KL"]),
    ("Training", ["Training loss"]),
    ("Student-generated data", ["λ as realised", "Evaluation: length"]),
    ("Optimizer", ["Learning rate"]),
    ("Time and memory", ["Where the time went", "Peak memory"]),
    ("More", ["Forward KL per token", "Train/odd"]),
  ]


def test_each_task_and_split_has_a_section():
  names = [
    f"eval/{task}/{metric}"
    for task in ("svamp", "gsm8k-test", "gsm8k-validation")
    for metric in ("accuracy", "length")
  ]
  assert _titles([_run("a", names)]) == {
    "Evaluation: gsm8k-test": ["Accuracy"],
    "Evaluation: gsm8k-validation": ["Accuracy"],
    "Evaluation: svamp": ["Accuracy"],
    "More": [
      "Evaluation: gsm8k-test length",
      "Evaluation: gsm8k-validation length",
      "Evaluation: svamp length",
    ],
  }


def test_charts_of_a_page_have_names_of_their_own():
  names = ["eval/toy/accuracy", "train/loss", "time/update_seconds"]
  runs = [_run("a", names), _run("b", names[:1], [0], is_evaluation=True)]
  slugs = [c.slug for found in curves.from_runs(runs).values() for c in found]
  assert "eval_toy_accuracy_end" in slugs
  assert len(set(slugs)) == len(slugs)


def test_legend_has_the_arms_that_have_curves_in_their_colours():
  runs = [
    _run("seed_0/seqkd", ["train/loss"]),
    _run("scores", ["eval/toy/accuracy"], [0], is_evaluation=True),
    _run("seed_0/gkd_mixed", ["train/loss"]),
    _run("seed_1/seqkd", ["train/loss"]),
  ]
  assert [(s.name, s.colour) for s in curves.legend(runs)] == [
    ("SeqKD", 0),
    ("Mixed GKD", 2),
  ]
