"""Tokens made in batches are those of seqio, for each kind of vocabulary."""

import collections

import numpy as np
import pytest
import seqio
import tensorflow as tf

from gkd.data.builder import build_cache
from gkd.data.builder import seqio_source
from gkd.data.builder import tokenise
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache_info import lossy
from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text.vocabulary import ByteVocabulary
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.types import UserError

LENGTHS = {"inputs": 12, "targets": 8}
ROWS = [
  ("say: I see.", "Ich verstehe.", ["Ich verstehe.", "Aha."]),
  ("  two  blanks ", "zwei\tLücken\n", []),
  ("<extra_id_0> stands for <extra_id_7>", "<extra_id_99> x", ["ä", ""]),
  ("日本 🍐 ½", "ﬁ é é", ["é"]),
  ("no target ⁇", "", []),
  ("", "no input", []),
  ("long " * 40, "länger " * 40, []),
]
KINDS = ("sentencepiece", "bytes", "characters")


def test_a_row_that_cannot_be_converted_is_named_by_its_number(tmp_path):
  (tmp_path / "cache").mkdir()
  rows = [{"inputs": b"a", "targets": b"b"}] * 40
  rows[25] = {"inputs": b"a", "targets": b"\xff"}
  end = {"inputs": True, "targets": True}
  recipe = tokenise.Recipe(str(tmp_path), LENGTHS, ByteVocabulary(), None, end)
  message = r"row 125 .* cannot be converted \(UnicodeDecodeError: "
  with pytest.raises(UserError, match=message):
    tokenise.write(recipe, tokenise.Job(0, 100, rows))


@pytest.fixture(scope="module")
def vocabularies(spiece_file):
  return {
    "sentencepiece": SentencePieceVocabulary(spiece_file, 100),
    "bytes": ByteVocabulary(extra_ids=3),
    "characters": CharacterVocabulary("abcdefghijklmnop äé"),
  }


def _lower(dataset):
  return dataset.map(
    lambda ex: {**ex, "inputs": tf.strings.lower(ex["inputs"])}
  )


def register(vocabulary, preprocess=None):
  """The task "parity"."""
  names = ("inputs", "targets", "references")
  rows = [dict(zip(names, row, strict=True)) for row in ROWS]
  features.add_task(
    "parity",
    sources.rows_source(lambda split: rows, ("train",), with_references=True),
    vocabulary,
    preprocess=preprocess,
    postprocess=postprocess.references,
    metrics=[metrics.exact_match],
  )
  return seqio.TaskRegistry.get("parity")


def changed(task, **changes):
  """A task like this one with other arguments."""
  names = ("source", "output_features", "preprocessors")
  arguments = {name: getattr(task, name) for name in names}
  return seqio.Task("changed", **arguments | changes)


@pytest.fixture(autouse=True)
def _unregistered():
  yield
  if "parity" in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove("parity")


def read(task, vocabulary):
  spec = CacheSpec(
    task="parity",
    split="train",
    lengths=LENGTHS,
    vocabulary=vocabulary,
    cache_dir="",
  )
  return seqio_source.read(task, spec)


def converted(task, vocabulary):
  """Rows through `read` and a worker's code; whether texts were read."""
  examples = read(task, vocabulary)
  references = "gkd.text.postprocess:references"
  recipe = tokenise.Recipe(
    "", LENGTHS, vocabulary, references, examples.add_eos
  )
  counts = collections.Counter()
  job = tokenise.Job(0, 0, list(examples.rows))
  rows = list(tokenise.rows(recipe, job, counts, {}))
  return rows, counts, examples.add_eos is not None


def by_seqio(task):
  """(tokens cut with their EOS kept, example untrimmed) of each row."""
  dataset = task.source.get_dataset("train", shuffle=False)
  if len(task.preprocessors) > 2:
    dataset = _lower(dataset)
  cut = seqio.preprocessors.append_eos_after_trim(
    seqio.preprocessors.tokenize(dataset, task.output_features),
    output_features=task.output_features,
    sequence_length=LENGTHS,
  )
  whole = task.get_dataset(None, "train", shuffle=False)
  return list(
    zip(cut.as_numpy_iterator(), whole.as_numpy_iterator(), strict=True)
  )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preprocess", [None, _lower])
def test_tokens_texts_and_references_are_those_of_seqio(
  vocabularies, kind, preprocess
):
  vocabulary = vocabularies[kind]
  task = register(vocabulary, preprocess)
  rows, counts, as_texts = converted(task, vocabulary)
  assert as_texts
  expected = by_seqio(task)
  assert len(rows) == len(expected) == counts["rows"] == len(ROWS)
  for row, (cut, whole) in zip(rows, expected, strict=True):
    np.testing.assert_array_equal(row.inputs, cut["inputs"])
    assert row.inputs.dtype == row.targets.dtype == np.int32
    assert row.prompt == whole["inputs_pretokenized"].decode()
    target = whole["targets_pretokenized"].decode()
    if len(whole["targets"]) == 1:  # an EOS alone is no target
      assert row.targets.size == 0
      assert row.reference is None
      continue
    np.testing.assert_array_equal(row.targets, cut["targets"])
    reference = task.postprocess_fn(target, example=whole, is_target=True)
    assert row.reference == reference
  for name in LENGTHS:
    lengths = [len(whole[name]) for _, whole in expected]
    cuts = sum(length > LENGTHS[name] for length in lengths)
    assert counts[f"truncated_{name}"] == cuts > 0
  assert counts["prompts_alone"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_do_not_come_back_are_counted_and_one_is_shown(
  vocabularies, kind
):
  vocabulary = vocabularies[kind]
  counts, notes = collections.Counter(), {}
  rows = [dict(zip(("inputs", "targets"), row, strict=False)) for row in ROWS]
  end = dict.fromkeys(LENGTHS, True)
  recipe = tokenise.Recipe("", LENGTHS, vocabulary, None, end)
  list(tokenise.rows(recipe, tokenise.Job(0, 70, rows), counts, notes))
  for index, name in enumerate(("inputs", "targets")):
    encoded = [(row[index], vocabulary.encode(row[index])) for row in ROWS]
    lost = [
      (text, ids)
      for text, ids in encoded
      if vocabulary.decode(ids).strip() != text.strip()
    ]
    assert counts[f"lossy_{name}"] == len(lost)
    unknown = sum(ids.count(vocabulary.unk_id) for _, ids in lost)
    assert counts[f"unknown_{name}"] == unknown
    assert (f"lossy_{name}" in notes) == bool(lost) == (kind != "bytes")
  if kind == "sentencepiece":
    assert notes["lossy_targets"] == (
      "row 71 (counted from 0), where 'zwei\\tLücken' comes back as"
      " 'zwei Lücken'"
    )
  facts = build_cache.token_facts(counts, notes)
  lengths = sorted(len(vocabulary.encode(row[0])) + 1 for row in ROWS)
  percentiles = facts["token_lengths"]["inputs"]
  assert list(percentiles.values()) == [lengths[3], *[lengths[-1]] * 3]
  if kind == "characters":
    info = facts | {"rows": 7, "prompts_alone": counts["prompts_alone"]}
    count = counts["lossy_targets"]
    line = lossy(info)[1]
    assert line.startswith(f"{count} of 7 targets hold what the vocabulary")
    assert line.endswith(
      f"at most {100 * (1 - count / 6):.1f} % of the targets"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_seqio_give_the_same_rows(vocabularies, kind, monkeypatch):
  """What is not recognised takes the slow way to the same place."""
  vocabulary = vocabularies[kind]
  task = register(vocabulary, _lower)
  fast, counts, _ = converted(task, vocabulary)
  monkeypatch.setattr(seqio_source, "_before_tokenising", lambda *args: None)
  slow, again, as_texts = converted(task, vocabulary)
  assert not as_texts
  assert again == counts
  for left, right in zip(fast, slow, strict=True):
    np.testing.assert_array_equal(left.inputs, right.inputs)
    np.testing.assert_array_equal(left.targets, right.targets)
    assert left[2:] == right[2:]


def test_rows_without_eos_get_none(vocabularies):
  vocabulary = vocabularies["bytes"]
  twin = features.seqio_vocabulary(vocabulary)
  task = changed(
    register(vocabulary),
    output_features={
      "inputs": seqio.Feature(twin, add_eos=False),
      "targets": seqio.Feature(twin, add_eos=True),
    },
  )
  rows, _, as_texts = converted(task, vocabulary)
  assert as_texts
  assert rows[0].inputs.tolist() == vocabulary.encode("say: I see.")[:12]
  assert rows[0].targets[-1] == vocabulary.eos_ids[0]


def test_only_what_is_known_is_tokenised_here(vocabularies):
  prep = seqio.preprocessors

  def with_lengths(dataset, sequence_length):
    assert sequence_length == LENGTHS
    return dataset

  task = register(vocabularies["bytes"])
  for steps, is_known in (
    ([prep.tokenize, prep.append_eos], True),
    ([prep.tokenize, seqio.CacheDatasetPlaceholder(), prep.append_eos], True),
    ([with_lengths, prep.tokenize, prep.append_eos], True),
    ([prep.tokenize, prep.append_eos_after_trim], True),
    ([prep.tokenize, prep.append_eos, _lower], False),
    ([prep.tokenize], False),
    ([prep.tokenize_and_append_eos], False),
  ):
    other = changed(task, preprocessors=steps)
    before = seqio_source._before_tokenising(other, vocabularies["bytes"])
    expected = steps[: steps.index(prep.tokenize)] if is_known else None
    assert before == expected, steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_known_by_its_content(vocabularies, kind):
  ours = vocabularies[kind]
  twin = features.seqio_vocabulary(ours)
  assert seqio_source._gives_the_ids_of(twin, ours)
  for other in vocabularies.values():
    same = seqio_source._gives_the_ids_of(twin, other)
    assert same == (other is ours)
  if kind == "sentencepiece":
    for change in (
      {"extra_ids": 99},
      {"extra_ids": 100, "reverse_extra_ids": False},
      {"extra_ids": 100, "use_fast_tokenizer": True},
    ):
      theirs = seqio.SentencePieceVocabulary(str(ours.path), **change)
      assert not seqio_source._gives_the_ids_of(theirs, ours)


def test_examples_of_any_shape_come_as_seqio_gives_them():
  """Numbers and lists of any length beside the texts, in more than a batch."""
  size = seqio_source._ROWS_AT_ONCE + 3
  dataset = tf.data.Dataset.range(size).map(
    lambda n: {
      "inputs": tf.strings.as_string(n),
      "targets": "t",
      "number": n,
      "many": tf.repeat(["x"], n % 3),
      "pair": [n, n + 1],
    }
  )
  spec = dataset.element_spec
  assert seqio_source._has_texts(spec)
  examples = list(seqio_source._in_batches(dataset))
  assert len(examples) == size
  for left, right in zip(examples, dataset.as_numpy_iterator(), strict=True):
    assert left.keys() == right.keys()
    for name, value in right.items():
      np.testing.assert_array_equal(left[name], value)
      assert type(left[name]) is type(value)
  nested = {**spec, "inner": {"a": spec["many"]}}
  assert not seqio_source._has_texts(nested)
  assert not seqio_source._has_texts({"inputs": spec["inputs"]})
  assert not seqio_source._has_texts({**spec, "inputs": spec["many"]})
