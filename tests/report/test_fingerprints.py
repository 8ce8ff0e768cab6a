"""Settings and facts of run.json, one column per arm."""

from gkd.report import fingerprints
from tests.report.example_runs import run


def about(name, **content):
  return run(name, about=content)


def cells(table):
  return [[cell.text for cell in row] for row in table.rows]


def test_only_settings_that_differ_are_listed_and_folders_are_not():
  pair = [
    run(name, settings={"seed": 0, "model_dir": name, "x": {"rate": rate}})
    for name, rate in (("a", 0.1), ("b", 0.2))
  ]
  pair[1].about["settings"]["extra"] = [1, 2]
  shared, others = fingerprints.settings(pair)
  assert shared.header == ["setting", "a", "b"]
  assert cells(shared) == [["x.rate", "0.1", "0.2"]]
  assert cells(others) == [["extra", "–", "1, 2"]]
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
  assert shared.header == ["setting", "seqkd", "gkd"]
  assert cells(shared) == [
    ["rate", "0.1", "0.2 · 1.2"],
    ["start", "/base/a", "/base/*/a"],
  ]


def test_many_arms_are_rows():
  runs = [run(str(n), settings={"rate": n}) for n in range(5)]
  shared, _ = fingerprints.settings(runs)
  assert shared.header == ["run", "rate"]
  assert cells(shared)[2] == ["2", "2"]


def test_only_facts_that_differ_are_listed_and_hashes_are_short():
  runs = [
    about("a", card={"rows": 16, "heads": 2}, sha="ab" * 32),
    about("b", card={"rows": 24, "heads": 2}, sha="cd" * 32),
    about("c", settings={"rate": 3}),
  ]
  table = fingerprints.facts(runs)
  assert table.header == ["fact", "a", "b", "c"]
  assert cells(table) == [
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
  table = fingerprints.written(runs)
  assert table.header == ["fact", "seqkd"]
  assert cells(table) == [
    ["checkpoint", "/runs/teacher"],
    ["temperature", "1.0"],
    ["top_p", "–"],
  ]
  assert fingerprints.facts(runs) is None
  assert fingerprints.written(runs[1:]) is None


def test_texts_of_a_mixture_are_told_apart():
  texts = {
    name: {"written_by": {"seed": seed}} for name, seed in (("a", 1), ("b", 2))
  }
  table = fingerprints.written([about("seqkd", training_text=texts)])
  assert cells(table) == [
    ["training_text.a.seed", "1"],
    ["training_text.b.seed", "2"],
  ]
