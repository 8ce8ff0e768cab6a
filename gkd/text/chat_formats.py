"""Chat formats: what stands around the prompt of a model that answers in turns.

A checkpoint brings a chat template, which is a program and is never run: its
text is searched for the marks of the formats below.

  frame = find(vocabulary)                  # None: prompts stand alone
  ids = encode_prompts(vocabulary, ["Why is the sky blue?"], frame)
"""

from collections.abc import Sequence
import dataclasses
import re
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError

NONE = "none"
# That of Llama 3.1's template; later ones take the day on which they are run.
_LLAMA_DATE = "Today Date: 26 Jul 2024\n\n"


class Frame(NamedTuple):
  """The texts around a prompt.

  Attributes:
    name: of the format.
    before: ends with the header of the user's turn.
    after: begins with the end of that turn, ends with the answer's header.
    strips: whether blanks around the prompt are removed.
    begins: whether the vocabulary's `prompt_start` comes first.
  """

  name: str
  before: str
  after: str
  strips: bool
  begins: bool


@dataclasses.dataclass(frozen=True)
class ChatFormat:
  """How turns are written.

  Attributes:
    header: of a turn, with its {role}.
    turn_end: the token that ends a turn, and so an answer.
    separator: what follows it.
    assistant: the role that answers.
    answer_start: what the answer is given to begin with.
    has_system: whether there is a turn for the system; else its text begins
      that of the user.
  """

  name: str
  header: str
  turn_end: str
  separator: str
  assistant: str = "assistant"
  answer_start: str = ""
  has_system: bool = True
  strips: bool = False
  begins: bool = False

  def frame(self, system: str = "") -> Frame:
    """What stands before and after the prompt of a user."""
    user = self.header.format(role="user")
    if system and self.has_system:
      turn = self.header.format(role="system") + system
      before = turn + self.turn_end + self.separator + user
    else:
      before = user + (system and f"{system}\n\n")
    answer = self.header.format(role=self.assistant)
    after = self.turn_end + self.separator + answer + self.answer_start
    return Frame(self.name, before, after, self.strips, self.begins)


FORMATS = (
  ChatFormat("chatml", "<|im_start|>{role}\n", "<|im_end|>", "\n"),
  ChatFormat(
    "llama3",
    "<|start_header_id|>{role}<|end_header_id|>\n\n",
    "<|eot_id|>",
    "",
    strips=True,
    begins=True,
  ),
  ChatFormat(
    "gemma",
    "<start_of_turn>{role}\n",
    "<end_of_turn>",
    "\n",
    assistant="model",
    has_system=False,
    strips=True,
    begins=True,
  ),
)
_OF_TEMPLATES = ", ".join(chat.name for chat in FORMATS)
# What Qwen3's template writes with enable_thinking=False. By default it leaves
# the model to think first, which is more than most targets have room for.
_NO_THINKING = dataclasses.replace(
  FORMATS[0],
  name="chatml_no_thinking",
  answer_start="<think>\n\n</think>\n\n",
)
_NAMED = {chat.name: chat for chat in (*FORMATS, _NO_THINKING)}


def recognise(template: str) -> tuple[ChatFormat, str] | None:
  """The format of a chat template, and the system text that it puts first."""
  text = template.replace("\\n", "\n")
  for chat in FORMATS:
    if chat.header.format(role=chat.assistant) in text:
      start = re.escape(chat.header.format(role="system"))
      end = re.escape(chat.turn_end)
      if found := re.search(rf"{start}([^{{}}'\"]+){end}", text):
        return chat, found[1]
      if found := re.search(r"Cutting Knowledge Date: \w+ \d+\n", text):
        return chat, found[0] + _LLAMA_DATE
      return chat, ""
  return None


def find(vocabulary: Any, name: str = "") -> Frame | None:
  """The frame of prompts; None where they stand alone.

  Args:
    vocabulary: its `chat_template` is searched, and a turn has to end with one
      of its `eos_ids`.
    name: of a format, "none", or "" for that of the template: none without a
      template, and none for a base model, which does not end turns.
  """
  template = vocabulary.chat_template or ""
  if name == NONE or not (name or template):
    return None
  known = recognise(template)
  chat, system = known or (None, "")
  if name and name not in _NAMED:
    raise UserError(
      f"CHAT_FORMAT is {name!r}; expected {', '.join(map(repr, _NAMED))},"
      f" {NONE!r} or '' for that of the tokenizer"
    )
  if name:
    named = _NAMED[name]
    chat, system = named, system if chat and chat.header == named.header else ""
  if chat is None:
    raise UserError(
      f"the chat template of the vocabulary ({vocabulary.describe()}) is none"
      f" of {_OF_TEMPLATES}; give CHAT_FORMAT, {NONE!r} to leave prompts as"
      " they are"
    )
  ends = [vocabulary.piece(index) for index in vocabulary.eos_ids]
  if chat.turn_end in ends:
    return chat.frame(system)
  if not name:
    return None
  raise UserError(
    f"CHAT_FORMAT {name!r} ends turns with {chat.turn_end!r}, the model texts"
    f" with {', '.join(map(repr, ends))} ({vocabulary.describe()}); give the"
    f" format of this model or {NONE!r}"
  )


def ends_first(
  eos_ids: Sequence[int], template: str | None, turn_end_id: Any
) -> list[int]:
  """The ids that end a text, that of the template's turns first.

  Args:
    eos_ids: in another order: Gemma's answers end with the second of its ids.
    template: chat template, if there is one.
    turn_end_id: gives the id of a token, or None.
  """
  known = recognise(template or "")
  first = turn_end_id(known[0].turn_end) if known else None
  return sorted(eos_ids, key=lambda index: index != first)


def encode_prompts(
  vocabulary: Any,
  texts: Sequence[str],
  frame: Frame | None,
  add_eos: bool = True,
) -> list[list[int]]:
  """Ids of prompts: what begins and what ends them included.

  Args:
    vocabulary: of the model.
    texts: the prompts.
    frame: of a chat, which leaves the answer open.
    add_eos: whether an EOS follows a prompt that stands alone, of vocabularies
      that end prompts: tasks ask for one unless they say otherwise.
  """
  start = vocabulary.prompt_start
  end = vocabulary.eos_ids[:1] if add_eos and vocabulary.ends_prompts else ()
  if frame is not None:
    start, end = (start if frame.begins else ()), ()
    texts = [text.strip() if frame.strips else text for text in texts]
    texts = [frame.before + text + frame.after for text in texts]
  return [[*start, *ids, *end] for ids in vocabulary.encode_batch(texts)]


def decode_prompt(
  vocabulary: Any, ids: Sequence[int], frame: Frame | None
) -> str:
  """The inverse of `encode_prompts` for one prompt."""
  if frame is None and vocabulary.ends_prompts:
    return vocabulary.decode(ids)
  start = vocabulary.decode_prompt(vocabulary.prompt_start)
  text = vocabulary.decode_prompt(ids).removeprefix(start)
  if frame is None:
    return text
  return text.removeprefix(frame.before).removesuffix(frame.after)
