"""A seqio task on disk is the task, and a changed task is another cache."""

import importlib
import multiprocessing
import sys

import pytest

from gkd.data import task_functions
from gkd.data.builder.build_cache import find_or_build
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.evaluation import scores
from gkd.text import chat_formats
from gkd.text.bpe import BPEVocabulary
from gkd.text.data_files import TASK_MODULE
from gkd.text.data_files import DataFiles
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError
from tests.tiny_tokenizers import CHATML
from tests.tiny_tokenizers import bpe_json

seqio = pytest.importorskip("seqio")

LENGTHS = {"inputs": 12, "targets": 8}
TASK = """
import functools
import seqio
import tensorflow as tf
import toy_functions as functions

ROWS = {{
  "train": [
    ("one", "eins"), ("two plus two", "vier"), ("x", "a much longer one")],
  "test": [("drei", "three|3")],
}}


def dataset(split, shuffle_files, seed=None):
  inputs, targets = zip(*ROWS[split])
  return tf.data.Dataset.from_tensor_slices(
    {{"inputs": list(inputs), "targets": list(targets)}})


def prefix(dataset, text):
  return dataset.map(lambda ex: {{**ex, "inputs": text + ex["inputs"]}})


def register(data_dir, vocabulary):
  feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=0), add_eos=True)
  if "toy" in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove("toy")
  seqio.TaskRegistry.add(
    "toy",
    source=seqio.FunctionDataSource(dataset, splits=("train", "test")),
    preprocessors=[
      functools.partial(prefix, text="{prefix}"),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.{eos},
    ],
    output_features={{"inputs": feature, "targets": feature}},
    {post}
    metric_fns=[{metric}],
  )
"""
FUNCTIONS = """
def split(text, example=None, is_target=False):
  return text.split("|") if is_target else text.strip()


def count(targets, predictions):
  return {"count": len(predictions)}


def _make():
  def inner(targets, predictions):
    return {}
  return inner


inner = _make()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """Writes the task's modules and builds caches with them."""
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(task_functions, "_children", {})
  # Code of the same size within a second: compiled code would be taken for it.
  monkeypatch.setattr(sys, "dont_write_bytecode", True)
  monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

  def forget():
    for name in ("toy_task", "toy_functions"):
      sys.modules.pop(name, None)
    importlib.invalidate_caches()

  def make(split="train", functions=FUNCTIONS, **kwargs):
    forget()
    fields = {"prefix": "", "eos": "append_eos", "metric": "functions.count"}
    fields["post"] = "postprocess_fn=functions.split,"
    fields |= {k: kwargs.pop(k) for k in list(kwargs) if k in fields}
    (tmp_path / "toy_task.py").write_text(TASK.format(**fields))
    (tmp_path / "toy_functions.py").write_text(functions)
    options = {
      "cache_dir": tmp_path / "caches",
      "lengths": LENGTHS,
      "task_module": "toy_task",
      "data_dir": None,
      "vocabulary": ByteVocabulary(),
      **kwargs,
    }
    return find_or_build(CacheSpec(task="toy", split=split, **options))

  yield make
  forget()
  if "toy" in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove("toy")


def test_reference_is_postprocessed_and_functions_are_named(toy):
  cache = TokenCache(toy("test"))
  assert cache.read([0])[0].reference == ["three", "3"]
  assert cache.info["postprocess"] == "toy_functions:split"
  assert cache.info["metrics"] == ["toy_functions:count"]
  assert cache.postprocess(" x ") == "x"
  assert cache.metric_fns[0]([1], [1]) == {"count": 1}


def test_second_call_finds_the_cache_without_registering(toy, monkeypatch):
  path = toy()
  monkeypatch.setattr(
    importlib, "import_module", lambda name: pytest.fail(f"imports {name}")
  )
  assert toy() == path


def test_changed_task_or_code_is_another_cache(toy):
  paths = [
    toy(),
    toy(prefix=": "),
    toy(functions=FUNCTIONS.replace('"|"', '","')),
    toy(eos="append_eos_after_trim"),
    toy(lengths={"inputs": 20, "targets": 20}),
    toy("test"),
    toy(lengths={"inputs": 20, "targets": 20}, overlong="refuse"),
    toy(lengths={"inputs": 5, "targets": 20}, overlong="truncate_left"),
  ]
  assert len(set(paths)) == len(paths)
  texts = [TokenCache(path).read([0])[0].prompt for path in paths]
  assert texts == ["one", ": one", "one", "one", "one", "drei", "one", "one"]
  (row,) = TokenCache(paths[-1]).read([1])
  assert row.inputs.tolist() == [*ByteVocabulary().encode(" two"), 1]
  # Back to the first code: the first cache again, as it was.
  assert toy() == paths[0]


def test_functions_that_need_tensorflow_run_in_a_process_that_has_it(toy):
  functions = FUNCTIONS + "\nimport seqio\n\nclass S(seqio.metrics.Scalar): ..."
  functions += """
def scalar(targets, predictions):
  return {"same": S(float(targets[0] == [predictions[0]])),
          "text": seqio.metrics.Text("for TensorBoard")}

def score(targets, scores):
  return {"score": sum(scores)}

def failing(targets, predictions):
  return {"ratio": 1 / 0}
"""
  metric = "functools.partial(functions.scalar), functions.failing,"
  path = toy("test", functions, metric=metric + "functions.score")
  for name in ("toy_functions", "toy_task"):
    sys.modules[name] = None  # this process does not import them
  cache = TokenCache(path)
  assert cache.info["postprocess"] == "seqio:toy_task:toy:postprocess/0/split"
  assert cache.read([0])[0].reference == ["three", "3"]
  assert cache.postprocess(" x ") == "x"
  scalar, failing, score = cache.metric_fns
  assert scalar([["x"]], ["x"]) == {"same": 1}
  with pytest.raises(RuntimeError, match=r"'toy' (?s:.*)ZeroDivisionError"):
    failing([["x"]], ["x"])
  assert score([["x"]] * 2, [-1.0, -2.0]) == {"score": -3}
  assert scores.takes_scores(score)
  for child in multiprocessing.active_children():
    child.kill()
    child.join()
  for _ in range(2):
    with pytest.raises(UserError, match=r"'toy' .*: their process died"):
      scalar([["x"]], ["x"])


OBJECTS = """
import seqio

make = seqio.metrics.PassthroughLegacyMetric.from_metric_fn
OBJECT = make(
  lambda targets, predictions: {"upper": int(targets == predictions)},
  lambda text, **kwargs: text.upper())
OF_FIELDS = make(
  lambda targets, predictions: {"answers": 1},
  lambda text, example, is_target: example["answers"])
OF_SCORES = make(lambda targets, scores: {})
class OF_TOKENS(seqio.metrics.CollectingMetric):
  model_output_type = seqio.metrics.ModelOutputType.PREDICTION
"""


def test_objects_of_seqio_get_targets_and_answers_as_they_are(toy):
  def make(*names, post="None"):
    names = ", ".join(f"functions.{name}" for name in names)
    metric = f"], postprocess_fn={post}, metric_objs=[{names}"
    return toy("test", FUNCTIONS + OBJECTS, metric=metric, post="")

  cache = TokenCache(make("OBJECT", "OF_FIELDS"))
  texts, of_fields = cache.metric_fns
  assert texts(["a", "b"], ["A", "b"]) == {"upper": 1}
  assert texts(["a", "b"], ["A", "c"]) == {"upper": 0}
  with pytest.raises(UserError, match=r"reads the field 'answers' of an exam"):
    of_fields(["a"], ["a"])
  for name in ("OF_SCORES", "OF_TOKENS"):
    with pytest.raises(UserError, match="'toy': metrics of more than texts"):
      make("OBJECT", name)
  with pytest.raises(UserError, match=r"has metric_objs.* a postprocess_fn"):
    make("OBJECT", post="functions.split")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"split": "dev"}, r"no split 'dev'.*\['test', 'train'\]"),
    ({"overlong": "cut"}, "overlong is 'cut'"),
    ({"lengths": {"inputs": 3}}, "lengths are"),
    ({"vocabulary": ByteVocabulary(extra_ids=5)}, "another inputs vocabulary"),
  ],
)
def test_mistakes_say_what_was_expected(toy, change, message):
  with pytest.raises(UserError, match=message):
    toy(**change)


def test_rows_of_own_files_may_have_a_task(tmp_path):
  lines = ["q,a,kind", "1+1,2,sums", "2*2,4,products", "3*3,9,products"]
  (tmp_path / "test.csv").write_text("\n".join(lines))
  own = DataFiles(
    files={"test": "test.csv"},
    fields={"inputs": "q", "targets": "a", "task": "kind"},
    metrics=["exact_match_over_tasks"],
  )
  spec = CacheSpec(
    task="own",
    split="test",
    vocabulary=ByteVocabulary(),
    lengths=LENGTHS,
    cache_dir=tmp_path / "caches",
    data_dir=tmp_path,
    task_module=TASK_MODULE,
    data_files=own,
  )
  cache = TokenCache(find_or_build(spec))
  references = [row.reference for row in cache.read(range(3))]
  assert references[1] == {"task": "products", "answer": "4"}
  answers = [cache.postprocess(text) for text in (" 2", "4", "8")]
  assert cache.metric_fns[0](references, answers) == {"exact_match": 75}


def test_prompts_of_a_chat_are_framed_and_have_no_eos(tmp_path):
  (tmp_path / "train.csv").write_text("inputs,targets\nthe cat,sat\n")
  vocabulary = BPEVocabulary(bpe_json(), [318, 316], chat_template=CHATML)
  frame = chat_formats.find(vocabulary)
  options = {
    "task": "cats",
    "split": "train",
    "vocabulary": vocabulary,
    "cache_dir": tmp_path / "caches",
    "data_dir": tmp_path,
    "task_module": TASK_MODULE,
    "data_files": DataFiles(files={"train": "train.csv"}),
  }
  caches = []
  for used in (frame, None):
    spec = CacheSpec(
      lengths={"inputs": 90, "targets": 9}, frame=used, **options
    )
    path = find_or_build(spec)
    assert find_or_build(spec) == path
    (row,) = TokenCache(path).read([0])
    (ids,) = chat_formats.encode_prompts(vocabulary, ["the cat"], used)
    assert row.inputs.tolist() == ids
    assert row.targets.tolist() == [*vocabulary.encode("sat"), 318]
    assert row.prompt == "the cat"
    caches.append(TokenCache(path))
  assert caches[0].path != caches[1].path
  assert caches[0].vocabulary.spec() == vocabulary.spec()
  spec = CacheSpec(lengths={"inputs": 9, "targets": 9}, frame=frame, **options)
  with pytest.raises(UserError, match=r"chatml format takes \d+ of 9 inputs"):
    find_or_build(spec)


def test_rows_of_files_name_their_teacher(tmp_path):
  text = "inputs,targets,who\na cat,sat,left\na dog,ran,right\na cow,ate,\n"
  (tmp_path / "train.csv").write_text(text)
  fields = {"inputs": "inputs", "targets": "targets", "teacher": "who"}
  spec = CacheSpec(
    task="pets",
    split="train",
    vocabulary=ByteVocabulary(),
    cache_dir=tmp_path / "caches",
    data_dir=tmp_path,
    task_module=TASK_MODULE,
    data_files=DataFiles(files={"train": "train.csv"}, fields=fields),
    lengths={"inputs": 9, "targets": 9},
  )
  cache = TokenCache(find_or_build(spec))
  for read in (cache.read, cache.tokens):
    assert [row.teacher for row in read(range(3))] == ["left", "right", ""]
  assert cache.info["teachers"] == ["", "left", "right"]
