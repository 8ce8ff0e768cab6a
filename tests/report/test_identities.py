"""What run.json says of models and data, side by side."""

from gkd.report import identities
from gkd.report.runs import Run


def _run(name, identity):
  return Run(name, name, {}, {}, "", {}, [], identity=identity)


def _cells(table):
  return [[cell.text for cell in row] for row in table.rows]


def test_only_facts_that_differ_are_listed_and_hashes_are_short():
  runs = [
    _run("a", {"model": {"emb_dim": 16, "heads": 2}, "sha": "ab" * 32}),
    _run("b", {"model": {"emb_dim": 24, "heads": 2}, "sha": "cd" * 32}),
    _run("c", {}),
  ]
  table = identities.differences(runs)
  assert table.header == ["fact", "a", "b", "c"]
  assert _cells(table) == [
    ["model.emb_dim", "16", "24", "–"],
    ["model.heads", "2", "2", "–"],
    ["sha", "abababababab…", "cdcdcdcdcdcd…", "–"],
  ]
  assert identities.differences(runs[:1]) is None


def test_seeds_of_an_arm_are_one_column():
  runs = [_run(f"seed_{n}/sft", {"seed": n, "width": 8}) for n in range(2)]
  runs.append(_run("seed_0/seqkd", {"seed": 0, "width": 8}))
  table = identities.differences(runs)
  assert _cells(table) == [["seed", "0 · 1", "0"]]


def test_who_wrote_the_training_texts_is_shown_for_the_runs_that_say():
  written = {"checkpoint": "/runs/teacher", "temperature": 1.0, "top_p": None}
  runs = [
    _run("seqkd", {"data": {"train": {"written_by": written, "rows": 4}}}),
    _run("sft", {"data": {"train": {"rows": 4}}}),
  ]
  table = identities.written(runs)
  assert table.header == ["fact", "SeqKD"]
  assert _cells(table) == [
    ["checkpoint", "/runs/teacher"],
    ["temperature", "1.0"],
    ["top_p", "–"],
  ]
  assert identities.differences(runs) is None
  assert identities.written(runs[1:]) is None


def test_texts_of_a_mixture_are_told_apart():
  identity = {
    "training_text": {
      name: {"written_by": {"seed": seed}}
      for name, seed in (("a", 1), ("b", 2))
    }
  }
  table = identities.written([_run("seqkd", identity)])
  assert _cells(table) == [
    ["training_text.a.seed", "1"],
    ["training_text.b.seed", "2"],
  ]
