"""Generated problems: right, disjoint, reproducible, as long as said."""

import itertools
import re

import pytest

from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import SPLITS
from gkd.text.chain_addition import STYLES
from gkd.text.chain_addition import ChainAddition
from gkd.text.chain_addition import parse_answer
from gkd.text.chain_addition import split_of
from gkd.types import UserError
from tests import child

MIXED = ChainAddition(min_terms=2, max_terms=5, digits=3, operators="+-")


def test_the_documented_example():
  problem = ChainAddition(max_terms=4).solve([37, 85, 46, 19])
  assert problem.inputs == "37+85+46+19="
  assert problem.targets == "37+85=122;122+46=168;168+19=187;A187"
  assert problem.answer == "187"


def test_every_step_and_answer_is_right():
  for problem in MIXED.problems("train", 300):
    *steps, answer = problem.targets.split(";")
    # Python's own arithmetic is the reference.
    expected = eval(re.sub(r"\b0+(?=\d)", "", problem.inputs[:-1]))
    assert answer == f"A{expected}"
    assert problem.answer == str(expected) == parse_answer(problem.targets)
    for step in steps:
      left, _, right = step.partition("=")
      assert eval(left) == int(right)


def test_styles_differ_in_steps_only():
  rows = [ChainAddition(style=style).solve([4, 5, -6]) for style in STYLES]
  assert [row.targets for row in rows] == ["4+5=9;9-6=3;A3", "9;3;A3", "A3"]
  assert {row.inputs for row in rows} == {"4+5-6="}


def test_splits_share_no_problem_in_any_order_of_terms():
  tiny = ChainAddition(min_terms=2, max_terms=2, digits=2, operators="+-")
  seen = {}
  for split, seed in itertools.product(SPLITS, (0, 1)):
    for problem in tiny.problems(split, 200, seed):
      terms = sorted(re.findall(r"-?\d+", problem.inputs))
      assert seen.setdefault(tuple(terms), split) == split


def test_held_out_share_is_about_a_tenth():
  splits = [split_of([a, b]) for a in range(100) for b in range(a, 100)]
  assert 0.03 < splits.count("test") / len(splits) < 0.07
  assert 0.03 < splits.count("validation") / len(splits) < 0.07


def test_problems_are_distinct_and_a_prefix_of_more():
  rows = MIXED.problems("validation", 100, seed=3)
  assert len({row.inputs for row in rows}) == 100
  assert MIXED.problems("validation", 40, seed=3) == rows[:40]
  assert MIXED.problems("validation", 40, seed=4) != rows[:40]


def test_same_problems_in_another_process():
  code = """
    from tests.text.test_chain_addition import MIXED
    print([row.inputs for row in MIXED.problems("test", 5)])
  """
  assert child.run(code) == str([p.inputs for p in MIXED.problems("test", 5)])


def test_knobs_bound_terms_digits_and_operators():
  chains = ChainAddition(min_terms=3, max_terms=4, digits=2, min_digits=2)
  problems = chains.problems("train", 200)
  chained = [problem.inputs[:-1].split("+") for problem in problems]
  assert {len(terms) for terms in chained} == {3, 4}
  assert all(10 <= int(term) <= 99 for terms in chained for term in terms)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("operators", ["+", "-", "+-"])
def test_every_problem_is_written_in_the_vocabulary(style, operators):
  chains = ChainAddition(min_terms=2, operators=operators, style=style)
  for problem in chains.problems("train", 100):
    assert set(problem.inputs + problem.targets) <= set(CHARACTERS)


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("1+2=3;A3", "3"),
    ("A-12", "-12"),
    ("1;A007 ", "7"),
    ("1+2=3;3", None),
    ("A", None),
    ("A3;4", None),
    pytest.param("A" + "9" * 5000, None, id="endless"),
    ("", None),
  ],
)
def test_answer_mark_is_required_at_the_end(text, answer):
  assert parse_answer(text) == answer


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ChainAddition(min_terms=1), "terms 1 to 3"),
    (lambda: ChainAddition(min_digits=3), "digits 3 to 2"),
    (lambda: ChainAddition(operators="*"), "operators '\\*'"),
    (lambda: ChainAddition(style="words"), "style 'words'"),
    (lambda: MIXED.problem("dev", 0), "split 'dev'"),
    (
      lambda: ChainAddition(min_terms=2, max_terms=2, digits=1).problems(
        "test", 500
      ),
      "500 different problems",
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(UserError, match=message):
    call()
