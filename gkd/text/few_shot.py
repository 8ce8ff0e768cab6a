"""Prompts of a few solved examples and a question (Brown et al. 2020)."""

from collections.abc import Iterable


def prompt(
  examples: Iterable[tuple[str, str]], question: str, instruction: str = ""
) -> str:
  r"""The examples as "Q: …" and "A: …" and the question, its answer left open.

  Example:
    >>> prompt([("1 + 1?", "2")], "1 + 2?")
    'Q: 1 + 1?\nA: 2\n\nQ: 1 + 2?\nA:'
  """
  solved = [f"Q: {q}\nA: {a}" for q, a in examples]
  parts = [*filter(None, [instruction]), *solved, f"Q: {question}\nA:"]
  return "\n\n".join(parts)
