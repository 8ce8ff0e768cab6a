"""seqio.Evaluator and `gkd evaluate`: identical numbers, or an error."""

import json
import sys
from unittest import mock

import jax
import pytest
import seqio

from gkd.cli import evaluate_command
from gkd.cli import main as command
from gkd.cli import seqio_check
from gkd.config import records
from gkd.data import task_functions
from gkd.data.builder import seqio_source
from gkd.data.builder.build_cache import find_or_build
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.data.writer import write_rows
from gkd.evaluation import job
from gkd.models import t5
from gkd.tasks import evaluator
from gkd.tasks import features
from gkd.tasks import sources
from gkd.text.postprocess import strip
from gkd.types import UserError
from tests.checkpoints.tiny_models import save_params

LENGTHS = {"inputs": 48, "targets": 40}
MODEL = {
  "vocab_size": 400,
  "emb_dim": 16,
  "num_heads": 2,
  "head_dim": 8,
  "mlp_dim": 16,
  "num_encoder_layers": 1,
  "num_decoder_layers": 1,
  "logits_via_embedding": False,
}


def test_more_predictions_than_rows_are_refused(registered):
  with pytest.raises(UserError, match=r"201 predictions for \d+ rows of"):
    evaluator.seqio_metrics("gsm8k", "validation", [[[1]] * 201])


def mean_score(targets, scores):
  return {"score": sum(scores) / len(targets)}


def of_auxiliary_values(targets, predictions, aux_values):
  return {}


def test_metrics_of_scores_are_kept_and_those_of_more_are_refused(pieces):
  rows = [{"inputs": "a", "targets": "b"}, {"inputs": "c", "targets": "d"}]

  def task(*functions):
    source = sources.rows_source(lambda split: rows, ("train",))
    features.add_task(
      *("scored", source, pieces), postprocess=strip, metrics=functions
    )
    return seqio.TaskRegistry.get("scored")

  scored = task(mean_score)
  with mock.patch.object(
    task_functions, "_needs_tensorflow", return_value=False
  ):
    names = seqio_source.function_names(scored, __name__)["metrics"]
  assert names == [f"{__name__}:mean_score"]
  values = evaluator.seqio_metrics(
    *("scored", "train", [[[1], [1]]]), target_scores=[-1.0, -2.0]
  )
  assert values == {"score": -1.5}
  with pytest.raises(UserError, match="than texts, of_auxiliary_values,"):
    seqio_source.function_names(task(of_auxiliary_values), __name__)


def test_a_task_that_the_module_does_not_register_is_refused(rows_dir, pieces):
  message = "task 'nothing' is not registered by gkd.tasks.translation"
  with pytest.raises(UserError, match=message):
    evaluator.register("nothing", "gkd.tasks.translation", rows_dir, pieces)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A model of random numbers with the ids of `pieces`."""
  model = t5.encoder_decoder(t5.T5Config.from_size(MODEL))
  path = tmp_path_factory.mktemp("models") / "model"
  save_params(path, jax.jit(model.init)(jax.random.key(0)), {"step": 0})
  return path


@pytest.fixture
def prepare(saved, rows_dir, pieces, tmp_path):
  """Makes the cache of a task; returns it and the arguments to evaluate it."""

  def prepare(task, module, split="validation"):
    spec = CacheSpec(
      task=task,
      split=split,
      cache_dir=tmp_path,
      lengths=LENGTHS,
      task_module=f"gkd.tasks.{module}",
      data_dir=str(rows_dir),
      vocabulary=pieces,
    )
    return TokenCache(find_or_build(spec)), [
      "evaluate",
      "--gin_file=runs/evaluate.gin",
      f"--gin_file=tasks/{task}.gin",
      f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}",
      f"--gin.VOCABULARY={pieces.path}",
      f"--gin.STUDENT_MODEL={MODEL}",
      f"--gin.INITIAL_CHECKPOINT_PATH={saved}",
      f"--gin.MODEL_DIR={tmp_path / 'scores'}",
      "--gin.EVAL_BOOTSTRAP=20",
      "--gin.EVAL_BATCH_SIZE=16",
      f"--data_dir={rows_dir}",
      f"--cache_dir={tmp_path}",
      "--through_seqio",
    ]

  return prepare


def _partly_right(monkeypatch, cache):
  """Every other row is answered by its target, the rest by the model."""
  original = job.generate

  def half_right(model, batch, *args, **kwargs):
    samples = jax.device_get(original(model, batch, *args, **kwargs))
    tokens, lengths = samples.tokens.copy(), samples.lengths.copy()
    for place, row in enumerate(batch.rows.tolist()):
      if row % 2 == 0:
        ids = cache.read([row])[0].targets
        tokens[place] = 0
        tokens[place, : len(ids)] = ids
        lengths[place] = len(ids)
    return samples.replace(tokens=tokens, lengths=lengths)

  monkeypatch.setattr(job, "generate", half_right)


@pytest.mark.parametrize(
  ("task", "split", "module", "metrics"),
  [
    (
      *("gsm8k_4shot", "validation", "arithmetic"),
      ["accuracy", "accuracy_with_calculator"],
    ),
    ("tatoeba_ende", "validation", "translation", ["bleu"]),
    (
      *("scitldr", "validation", "summarization"),
      ["rouge1", "rouge2", "rougeL"],
    ),
    ("bbh", "test", "benchmarks", ["exact_match"]),
  ],
)
def test_the_command_compares_with_seqio(
  task, split, module, metrics, prepare, tmp_path, monkeypatch, capsys
):
  cache, arguments = prepare(task, module, split)
  _partly_right(monkeypatch, cache)
  more = ["--gin.EVAL_TEMPERATURES=(0.0, 1.0)", "--gin.EVAL_SAMPLES=2"]
  assert command.main([*arguments, *more, "--gin.EVAL_BEAM_SIZE=2"]) == 0
  values = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  out = capsys.readouterr().out
  for name in metrics:
    for label in ("", "_t1", "_beam2"):
      full = f"eval/{task}/{name}{label}"
      assert 0 < values[full] < 100
      assert f"seqio.Evaluator gives the same {full}: {values[full]!r}" in out
  assert out.count("seqio.Evaluator") == 3 * len(metrics)


def test_a_cache_of_other_references_is_found_out(
  prepare, tmp_path, monkeypatch, capsys
):
  cache, arguments = prepare("tatoeba_ende", "translation")
  rows = cache.read(range(len(cache)))
  rows[0] = rows[0]._replace(reference=["Etwas ganz anderes."])
  info = {**cache.info, "vocabulary": cache.vocabulary}
  for name in ("files", "shards", "hash"):
    del info[name]
  path = write_rows(tmp_path / "altered", rows, info)
  _partly_right(monkeypatch, TokenCache(path))
  assert command.main([*arguments, f"--gin.EVAL_CACHE={path}"]) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert "seqio.Evaluator gives eval/tatoeba_ende/bleu = " in error
  assert "was not made of the rows or functions that the task has" in error
  # What was computed is not lost.
  assert (tmp_path / "scores" / "metrics.json").exists()


def test_what_seqio_needs_is_found_before_any_work(
  prepare, monkeypatch, capsys
):
  monkeypatch.setattr(evaluate_command, "evaluate_once", None)
  cache, arguments = prepare("tatoeba_ende", "translation")

  def error(*more):
    assert command.main([*arguments, *more]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]

  own = f"--gin.EVAL_CACHE={cache.path}"
  assert "TASK_MODULE is empty" in error(own, "--gin.TASK_MODULE=")
  wrong = "--gin.TASK_MODULE=gkd.tasks.summarization"
  seqio.TaskRegistry.remove("tatoeba_ende")
  assert "task 'tatoeba_ende' is not registered by gkd.ta" in error(own, wrong)
  cache.with_target = range(1, len(cache))
  data = records.DataConfig(task="a", split="b", module="c", lengths=LENGTHS)
  with pytest.raises(
    UserError, match=r"no target, the first is row 0 .*; seqio scores each"
  ):
    seqio_check.register([(data, cache)], None)
  monkeypatch.setitem(sys.modules, "gkd.tasks.evaluator", None)
  message = r"--through_seqio needs seqio and TensorFlow \(import of"
  with pytest.raises(UserError, match=message):
    seqio_check.register([(data, cache)], None)
