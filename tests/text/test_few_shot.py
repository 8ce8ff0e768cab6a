"""The form of prompts with examples."""

from gkd.text import few_shot


def test_examples_stand_before_a_question_whose_answer_is_open():
  examples = [("1 + 1?", "2"), ("2 + 2?", "4")]
  assert few_shot.prompt(examples, "1 + 2?", "Add.") == (
    "Add.\n\nQ: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA: 4\n\nQ: 1 + 2?\nA:"
  )
  assert few_shot.prompt([], "1 + 2?") == "Q: 1 + 2?\nA:"
