"""Settings and facts of run.json, one column per arm."""

from gkd.report import fingerprints
from tests.report.example_runs import run


def about(name, **content):
  return run(name, about=content)


def texts(table):
  """Header and rows."""
  return [list(table.header)] + [[c.text for c in row] for row in table.rows]


def test_only_settings_that_differ_are_listed_and_folders_are_not():
  pair = [
    run(name, settings={"seed": 0, "model_dir": name, "x": {"rate": rate}})
    for name, rate in (("a", 0.1), ("b", 0.2))
  ]
  pair[1].about["settings"]["extra"] = [1, 2]
  shared, others = fingerprints.settings(pair)
  assert texts(shared) == [["setting", "a", "b"], ["x.rate", "0.1", "0.2"]]
  assert texts(others) == [["setting", "a", "b"], ["extra", "–", "1, 2"]]
  assert fingerprints.settings(pair[:1]) == (None, None)
  assert fingerprints.settings([run("a"), run("b")]) == (None, None)


def test_seeds_of_an_arm_are_one_column_and_their_folders_no_difference():
  members = [
    run(
      f"seed_{seed}/{arm}",
      settings={"seed": seed, "rate": rate, "start": start},
      path=f"/base/seed_{seed}/{arm}",
      arm=arm,
    )
    for seed in range(2)
    for arm, rate, start in (
      ("seqkd", 0.1, "/base/a"),
      ("gkd", 0.2 + seed, f"/base/seed_{seed}/a"),
    )
  ]
  shared, _ = fingerprints.settings(members)
  assert texts(shared) == [
    ["setting", "seqkd", "gkd"],
    ["rate", "0.1", "0.2 · 1.2"],
    ["start", "/base/a", "/base/*/a"],
  ]


def test_many_arms_are_rows():
  runs = [run(str(n), settings={"rate": n}) for n in range(5)]
  shared, _ = fingerprints.settings(runs)
  assert texts(shared) == [["run", "rate"], *([str(n)] * 2 for n in range(5))]


def test_only_facts_that_differ_are_listed_and_hashes_are_short():
  runs = [
    about("a", card={"rows": 16, "heads": 2}, sha="ab" * 32),
    about("b", card={"rows": 24, "heads": 2}, sha="cd" * 32),
    about("c", settings={"rate": 3}),
  ]
  assert texts(fingerprints.facts(runs)) == [
    ["fact", "a", "b", "c"],
    ["card.heads", "2", "2", "–"],
    ["card.rows", "16", "24", "–"],
    ["sha", "abababababab…", "cdcdcdcdcdcd…", "–"],
  ]
  assert fingerprints.facts(runs[:1]) is None


def test_model_that_wrote_the_training_texts_is_shown_for_runs_that_have_one():
  written = {"checkpoint": "/runs/teacher", "temperature": 1.0, "top_p": None}
  runs = [
    about("seqkd", data={"train": {"written_by": written, "rows": 4}}),
    about("sft", data={"train": {"rows": 4}}),
  ]
  assert texts(fingerprints.written(runs)) == [
    ["fact", "seqkd"],
    ["checkpoint", "/runs/teacher"],
    ["temperature", "1.0"],
    ["top_p", "–"],
  ]
  assert fingerprints.facts(runs) is None
  assert fingerprints.written(runs[1:]) is None


def test_texts_of_a_mixture_are_told_apart():
  of_seeds = {n: {"written_by": {"seed": s}} for n, s in (("a", 1), ("b", 2))}
  table = fingerprints.written([about("seqkd", training_text=of_seeds)])
  assert texts(table) == [
    ["fact", "seqkd"],
    ["training_text.a.seed", "1"],
    ["training_text.b.seed", "2"],
  ]


def test_arms_are_told_apart_by_what_they_are_whatever_their_folders_say():
  def arm(name, divergence, teacher, fraction=0.5):
    settings = {"divergence": {"type": divergence}, "model_dir": name}
    settings |= {"student_fraction": fraction}
    about = {"roles": {"teacher": {"content_sha256": teacher * 32}}}
    return run(name, about={"settings": settings | {"seed": 0}, **about})

  runs = [arm("a", "ForwardKL", "1f"), arm("b", "ReverseKL", "2e")]
  assert fingerprints.contents(runs) == {
    "a": "divergence ForwardKL · teacher 1f1f1f1f1f1f…",
    "b": "divergence ReverseKL · teacher 2e2e2e2e2e2e…",
  }
  assert fingerprints.contents(runs[:1]) == {"a": ""}
  # What tells most of them apart comes first.
  runs += [arm("c", "ReverseKL", "2e", fraction=1.0)]
  runs[0].about["settings"]["student_fraction"] = 0.0
  assert fingerprints.contents(runs)["c"] == (
    "student fraction 1.0 · divergence ReverseKL · teacher 2e2e2e2e2e2e…"
  )
