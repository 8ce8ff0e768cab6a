"""Prompts as turns: the text of a template, what is put around, what is cut."""

import collections
import types

import jinja2
import pytest

from gkd.data.builder import tokenise
from gkd.errors import UserError
from gkd.text import chat_formats
from gkd.text.bpe import BPEVocabulary
from gkd.text.characters import ByteVocabulary
from tests.tiny_tokenizers import CHATML
from tests.tiny_tokenizers import bpe_json

# What matters of the templates of these models.
LLAMA = (
  "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
  "{{ 'Cutting Knowledge Date: December 2023\\n' }}"
  "{{ 'Today Date: ' + '26 Jul 2024' + '\\n\\n' }}{{ '<|eot_id|>' }}"
  "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] +"
  " '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
  "{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
  "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] +"
  " '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
TEMPLATES = {
  "chatml": CHATML,
  "qwen": CHATML.replace("\n", "\\n").replace("a cat", "Qwen. You help."),
  "qwen3": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' +"
  " m.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
  "{% if enable_thinking is defined and enable_thinking is false %}"
  "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
  "llama3": LLAMA,
  "gemma": GEMMA,
}
SPECIAL = ("<bos>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<end_of_turn>")


@pytest.fixture
def vocabulary():
  content = bpe_json(special=SPECIAL)
  return BPEVocabulary(content, [317, 319, 320], chat_template=CHATML)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", ["Hi", " two\nlines \n"])
def test_a_prompt_gets_the_text_of_the_template(name, text):
  template = TEMPLATES[name]
  rendered = jinja2.Template(template).render(
    messages=[{"role": "user", "content": text}],
    add_generation_prompt=True,
    bos_token="<bos>",
  )
  chat, system = chat_formats.recognise(template)
  frame = chat.frame(system)
  if frame.strips:
    text = text.strip()
  start = "<bos>" * frame.begins
  assert start + frame.before + text + frame.after == rendered


@pytest.mark.parametrize("name", ["qwen", "qwen3"])
def test_without_thinking_the_answer_follows_an_empty_thought(name):
  vocabulary = BPEVocabulary(
    bpe_json(special=SPECIAL), [317], chat_template=TEMPLATES[name]
  )
  frame = chat_formats.find(vocabulary, "chatml_no_thinking")
  thinking = chat_formats.find(vocabulary)
  rendered = jinja2.Template(TEMPLATES["qwen3"]).render(
    messages=[], enable_thinking=False
  )
  assert frame.before == thinking.before
  assert frame.after == "<|im_end|>\n" + rendered


def test_a_system_text_without_a_turn_begins_that_of_the_user():
  frame = chat_formats.recognise(GEMMA)[0].frame("Be brief.")
  assert frame.before == "<start_of_turn>user\nBe brief.\n\n"


@pytest.mark.parametrize(
  ("template", "eos_ids", "name", "expected"),
  [
    (CHATML, [317], "", "chatml"),
    (CHATML, [316], "", None),  # a base model
    (CHATML, [317], "none", None),
    (None, [317], "", None),
    (None, [317], "chatml", "chatml"),
    (CHATML, [317], "chatml_no_thinking", "chatml_no_thinking"),
    (CHATML, [317, 319], "llama3", "llama3"),
    ("[INST] {{ content }}", [317], "none", None),
    ("[INST] {{ content }}", [317], "", "none of chatml, llama3, gemma; give"),
    (
      CHATML,
      [317],
      "gemma",
      "turns with '<end_of_turn>', the model texts with",
    ),
    (None, [317], "alpaca", "CHAT_FORMAT is 'alpaca'; expected 'chatml'"),
  ],
)
def test_the_format_is_the_templates_or_the_users(
  template, eos_ids, name, expected
):
  content = bpe_json(special=SPECIAL)
  vocabulary = BPEVocabulary(content, eos_ids, chat_template=template)
  if expected and " " in expected:
    with pytest.raises(UserError, match=expected):
      chat_formats.find(vocabulary, name)
  else:
    frame = chat_formats.find(vocabulary, name)
    assert (frame and frame.name) == expected


def test_prompts_of_t5_end_and_those_of_others_do_not(vocabulary):
  assert chat_formats.encode_prompts(ByteVocabulary(), ["a"], None) == [
    [100, 1]
  ]
  assert chat_formats.encode_prompts(
    ByteVocabulary(), ["a"], None, add_eos=False
  ) == [[100]]
  ids = vocabulary.encode("a")
  assert chat_formats.encode_prompts(vocabulary, ["a"], None) == [ids]
  frame = chat_formats.find(vocabulary)
  (framed,) = chat_formats.encode_prompts(vocabulary, ["a"], frame)
  whole = frame.before + "a" + frame.after
  assert framed == vocabulary.encode(whole)
  assert vocabulary.decode_prompt(framed) == whole
  assert chat_formats.decode_prompt(vocabulary, framed, frame) == "a"
  # Gemma and Llama 3 begin with BOS, with a frame and without.
  begun = types.SimpleNamespace(
    prompt_start=(316,),
    ends_prompts=False,
    eos_ids=(320,),
    encode_batch=vocabulary.encode_batch,
    decode_prompt=vocabulary.decode_prompt,
  )
  gemma = chat_formats.recognise(GEMMA)[0].frame()
  for frame in (None, gemma):
    (ids,) = chat_formats.encode_prompts(begun, ["a"], frame)
    assert ids.count(316) == 1
    assert ids[0] == 316
    assert chat_formats.decode_prompt(begun, ids, frame) == "a"
  chatml = chat_formats.find(vocabulary)
  (ids,) = chat_formats.encode_prompts(begun, ["a"], chatml)
  assert ids == framed


@pytest.mark.parametrize("cut_left", [False, True])
@pytest.mark.parametrize("framed", [True, False])
def test_an_overlong_prompt_loses_one_end_of_its_text(
  vocabulary, framed, cut_left
):
  frame = chat_formats.find(vocabulary) if framed else None
  text = "the cat sat on the mat"
  (whole,) = chat_formats.encode_prompts(vocabulary, [text], frame)
  recipe = tokenise.Recipe(
    folder="",
    lengths={"inputs": len(whole) - 3, "targets": 8},
    vocabulary=vocabulary,
    postprocess=None,
    add_eos={"inputs": True, "targets": True},
    frame=frame,
    cut_left=cut_left,
  )
  examples = [{"inputs": text, "targets": "sat"}]
  counts, notes = collections.Counter(), {}
  job = tokenise.Job(0, 0, examples)
  (row,) = tokenise.rows(recipe, job, counts, notes)
  shown = chat_formats.decode_prompt(vocabulary, row.inputs.tolist(), frame)
  assert len(row.inputs) == len(whole) - 3
  left = slice(3, None) if cut_left else slice(None, -3)
  assert shown == vocabulary.decode(vocabulary.encode(text)[left])
  assert row.inputs[-1] == whole[-1 if framed or cut_left else -4]
  assert row.prompt == text
  assert row.targets.tolist() == [*vocabulary.encode("sat"), 317]
  assert counts["truncated_inputs"] == 1
  assert not counts["lossy_inputs"]


def test_a_prompt_cut_on_the_left_keeps_its_bos_and_its_eos():
  class Begun(ByteVocabulary):
    prompt_start = (255,)

  cut = tokenise.Recipe(
    folder="",
    lengths={"inputs": 5, "targets": 3},
    vocabulary=Begun(),
    postprocess=None,
    add_eos={"inputs": True, "targets": True},
    cut_left=True,
  )
  job = tokenise.Job(0, 0, [{"inputs": "abcdefg", "targets": "abcdefg"}])
  (row,) = tokenise.rows(cut, job, collections.Counter(), {})
  assert row.inputs.tolist() == [255, *ByteVocabulary().encode("efg"), 1]
  assert row.targets.tolist() == [*ByteVocabulary().encode("ab"), 1]
