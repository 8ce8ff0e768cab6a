"""How BLEU and ROUGE cut texts into words: rouge_score's way and sacreBLEU's.

A tokenizer is chosen by its name: "rouge_score", or one of `names()`.
"""

from collections.abc import Callable
import functools
import importlib.metadata
import re
from typing import Any
from unicodedata import category

from gkd.errors import UserError

ROUGE_SCORE = "rouge_score"
# Two letters of a script without blanks between words: Thai, Lao, Burmese,
# Khmer, kana, Han.
_UNSPACED = re.compile(
  "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{2}"
)

# Tokenizers that cut at blanks and punctuation; "zh" cuts Han besides.
_BLANKS = ("13a", "intl", "none", "zh")


class _Words:
  """A tokenizer of sacreBLEU as rouge_score wants one."""

  def __init__(self, tokenizer: Callable[[str], str]):
    self._tokenizer = tokenizer

  def tokenize(self, text: str) -> list[str]:
    """Tokens in lower case, without punctuation, as rouge_score's own."""
    tokens = self._tokenizer(text.lower()).split()
    return [t for t in tokens if any(category(c)[0] in "LMN" for c in t)]


def names() -> list[str]:
  """Of sacreBLEU's tokenizers."""
  from sacrebleu.metrics import BLEU

  return sorted(BLEU.TOKENIZERS)


@functools.cache
def load(name: str) -> Any:
  """The tokenizer as rouge_score takes it.

  Raises:
    UserError: its package is not installed, or its model not to be had.
  """
  if name == ROUGE_SCORE:
    from rouge_score import tokenizers

    return tokenizers.DefaultTokenizer(use_stemmer=False)
  from sacrebleu.metrics import BLEU

  try:
    return _Words(BLEU(tokenize=name).tokenizer)
  except (ImportError, RuntimeError, OSError) as error:
    reason = " ".join(str(error).split())
    raise UserError(
      f"sacreBLEU's tokenizer {name!r} cannot be used here ({reason}); install"
      " what it lacks, or choose another one, such as char"
    ) from error


def keeps(name: str, text: str) -> bool:
  """Whether a tokenizer leaves words of a text to compare."""
  tokens = load(name).tokenize(text)
  if name in _BLANKS and any(map(_UNSPACED.search, tokens)):
    return False  # a sentence is one word
  letters = [any(map(str.isalpha, part)) for part in (text, *tokens)]
  return any(letters[1:]) if letters[0] else bool(tokens)


def signature(name: str, family: str, num_references: int) -> str:
  """Of "bleu" sacreBLEU's own; of "rouge" one of the same form.

  `num_references` is −1 where rows have different numbers of them.
  """
  if family == "bleu":
    from sacrebleu.metrics import BLEU

    scorer = BLEU(tokenize=name)
    scorer.num_refs = num_references
    return str(scorer.get_signature())
  number = "var" if num_references < 0 else num_references
  version = importlib.metadata.version("rouge-score")
  return f"nrefs:{number}|tok:{name}|stem:no|rouge_score:{version}"
