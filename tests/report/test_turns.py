"""Tables of rises above the lowest value."""

import dataclasses

import pytest

from gkd.report import tables
from gkd.report import turns
from tests.report.example_runs import kl
from tests.report.example_runs import run

NEAR, FAR = kl(), kl("truth", compared_with="oracle")


def row(name, near, far, count=1):
  """The cells of an arm, of which each run has the same curves."""
  runs = [run(f"{n}", {NEAR: near, FAR: far}, arm=name) for n in range(count)]
  (table,) = turns.run_tables(runs)
  assert len(table.numeric) == len(table.header)
  return [cell.text for cell in table.rows[-1]]


def test_a_turn_is_told_from_the_lowest_value_to_the_end():
  near, far = [9.0, 2.0, 1.5], [3.0, 2.0, 2.5]
  words = "away from the oracle and closer to the teacher, in 2 of 2 seeds"
  numbers = ["2.00", "1", "2.50", "25.0", "-25.0"]
  assert row("kd", near, far, count=2) == ["kd", *numbers, words]


@pytest.mark.parametrize(
  ("near", "far", "words"),
  [
    ([1.0, 1.5], [2.0, 2.5], "away from the oracle and from the teacher"),
    ([2.0, 1.0], [2.0, 2.1], "away from the oracle and closer to the teacher"),
    ([0.0, 1.0], [0.0, 1.0], "away from the oracle and from the teacher"),
    ([2.0, 1.0], [2.0, 2.09], "no rise: ends within 5 % of its lowest"),
  ],
)
def test_words_tell_hacking_from_moving_away_and_from_noise(near, far, words):
  assert row("kd", near, far)[-1] == words


def test_words_count_the_seeds_that_come_closer_apart_from_those_that_rise():
  far = {FAR: [2.0, 3.0]}
  runs = [run(f"{n}", {NEAR: [2.0, 1.0 + n], **far}, arm="kd") for n in (0, 2)]
  (table,) = turns.run_tables(runs)
  words = "away from the oracle in 2 of 2 seeds, and closer to the teacher in 1"
  assert table.rows[-1][-1].text == f"{words} of these"


def test_only_steps_with_both_distances_count_and_seeds_are_averaged():
  nan = float("nan")
  first = {NEAR: {1: 4.0, 5: 2.0, 9: 1.0}, FAR: {1: 2.0, 5: nan, 9: 3.0}}
  second = {NEAR: {1: 4.0, 9: 2.0}, FAR: {1: 3.0, 9: 2.0}}
  runs = [run("0", first, arm="kd"), run("1", second, arm="kd")]
  (table,) = turns.run_tables([*runs, run("one", {NEAR: [1.0], FAR: [1.0]})])
  (cells,) = [[cell.text for cell in row] for row in table.rows]
  assert cells[:2] == ["kd", "2.00"]
  assert cells[2] == "5 ± 6"
  assert cells[-1].endswith("in 1 of 2 seeds")


def test_arms_of_several_teachers_share_a_table():
  of_others = {kl("other"): [2.0, 1.0], FAR: [1.0, 2.0]}
  runs = [run("a", {NEAR: [2.0, 1.0], FAR: [1.0, 2.0]}), run("b", of_others)]
  (table,) = turns.run_tables(runs)
  assert [row[0].text for row in table.rows] == ["a", "b"]


def test_the_teachers_own_distance_stands_first():
  own = dataclasses.replace(FAR, role="teacher")
  (table,) = turns.run_tables([run("a", {NEAR: [2, 1], FAR: [3, 4], own: [2]})])
  assert [row[0].text for row in table.rows] == ["Teacher, same examples", "a"]
  assert table.rows[0][3].text == "2.00"


def test_the_teachers_spread_is_over_seeds_and_not_over_arms():
  own = dataclasses.replace(FAR, role="teacher")
  runs = [
    run(
      f"{arm}{seed}",
      {NEAR: [2, 1], FAR: [3, 4], own: [seed]},
      arm=arm,
      settings={"seed": seed},
    )
    for arm in "abc"
    for seed in (1.0, 3.0)
  ]
  (table,) = turns.run_tables(runs)
  assert table.rows[0][3].text == "2.00 ± 1.41"
  (_, (_, scores)) = tables.run_tables(runs)
  assert scores.rows[0][1].text == "2.00 ± 1.41"


def test_one_distance_alone_has_no_table():
  assert turns.run_tables([run("a", {NEAR: [1.0, 2.0]})]) == []
