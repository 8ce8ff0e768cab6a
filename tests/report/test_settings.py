"""Differences of configurations, one column per arm."""

from gkd.report import runs
from gkd.report import settings


def _run(name, path="", **config):
  return runs.Run(name, path or name, {}, config, "", {}, [])


def test_only_settings_that_differ_are_listed():
  pair = [
    _run("a", LEARNING_RATE="0.1", SEED="0", MODEL_DIR='"a"'),
    _run("b", LEARNING_RATE="0.2", SEED="0", MODEL_DIR='"b"', EXTRA="1"),
  ]
  table = settings.main_table(pair)
  assert [[cell.text for cell in row] for row in table.rows] == [
    ["LEARNING_RATE", "0.1", "0.2"],
  ]
  table = settings.other_table(pair)
  assert [[cell.text for cell in row] for row in table.rows] == [
    ["EXTRA", "–", "1"],
  ]
  assert settings.main_table([_run("a", SEED="0")]) is None
  assert settings.other_table([_run("a", SEED="0")]) is None


def test_reference_to_a_macro_is_no_difference_but_another_macro_is():
  first = _run("a", **{"x.Rate.value": "%RATE"}, MODEL="%SMALL")
  second = _run("b", MODEL="%LARGE")
  assert settings.other_table([first, second]) is None
  (row,) = settings.main_table([first, second]).rows
  assert [cell.text for cell in row] == ["MODEL", "%SMALL", "%LARGE"]


def test_seeds_of_an_arm_are_one_column_and_their_folders_no_difference():
  members = [
    _run(
      f"seed_{seed}/{arm}",
      f"/base/seed_{seed}/{arm}",
      RANDOM_SEED=str(seed),
      RATE=rate,
      TRAIN_CACHE=f"'/base/seed_{seed}/text'",
      START=start,
    )
    for seed in range(2)
    for arm, rate, start in (
      ("seqkd", "0.1", "'/base/a'"),
      ("gkd_mixed", str(0.2 + seed), f"'/base/seed_{seed}/a'"),
    )
  ]
  table = settings.main_table(members)
  assert table.header == ["setting", "SeqKD", "Mixed GKD"]
  assert [[cell.text for cell in row] for row in table.rows] == [
    ["RATE", "0.1", "0.2 · 1.2"],
    ["START", "a", "seed_*/a"],
  ]
