"""`gkd evaluate` from end to end, on a model of random numbers."""

import json

import jax
import pytest

from gkd import locks
from gkd.cli import evaluate_command
from gkd.cli import main as command
from gkd.config import command_records
from gkd.config import configuration
from gkd.text.chain_addition import CHARACTERS
from tests.checkpoints.tiny_models import save_params
from tests.cli.test_main import error_of
from tests.cli.test_main import flags
from tests.cli.test_main import pairs
from tests.cli.test_main import write_cache


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  return {
    "validation": write_cache(folder / "validation", "validation", rows=8),
    "test": write_cache(folder / "test", "test", rows=8),
    "other": write_cache(folder / "other", "test", rows=8, task="other"),
    "train": write_cache(folder / "train", "train", rows=40),
  }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The model of test/evaluate.gin, never trained."""
  names = ("MODEL_DIR", "INITIAL_CHECKPOINT_PATH")
  configuration.load(["test/evaluate.gin"], [f"{name}=x" for name in names])
  model = configuration.build(command_records.EvaluateConfig).student.model
  path = tmp_path_factory.mktemp("models") / "model"
  save_params(path, jax.jit(model.init)(jax.random.key(0)), {"step": 0})
  return path


@pytest.fixture
def arguments(caches, saved, tmp_path):
  return [
    "evaluate",
    "--gin_file=test/evaluate.gin",
    f"--gin.MODEL_DIR={tmp_path / 'scores'}",
    f"--gin.INITIAL_CHECKPOINT_PATH={saved}",
    f"--gin.EVAL_CACHE={caches['validation']}",
    "--gin.EVAL_BATCH_SIZE=8",
    "--gin.EVAL_TEMPERATURES=(0.0,)",
  ]


@pytest.fixture
def against(arguments, saved):
  """The model against itself."""
  teacher = [
    "--gin_file=runs/evaluate_against.gin",
    "--gin.TEACHER_MODEL=%TINY_TEACHER",
    f"--gin.TEACHER_CHECKPOINT_PATH={saved}",
  ]
  return [*arguments[:2], teacher[0], *arguments[2:], *teacher[1:]]


@pytest.fixture
def nothing_computed(monkeypatch):
  """Fails if anything is answered."""
  monkeypatch.setattr(evaluate_command, "evaluate_once", None)


def test_several_tasks_and_splits_with_a_teacher(
  against, caches, tmp_path, capsys
):
  also = f"--gin.EVAL_SPLITS=('{caches['test']}', '{caches['other']}')"
  more = [also, "--gin.EVAL_BOOTSTRAP=50", "--gin.EVAL_EXAMPLES=6"]
  assert command.main([*against, *more]) == 0
  values = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  parts = {name.split("/")[1] for name in values}
  task = "chain_addition_easy"
  assert parts == {f"{task}-validation", f"{task}-test", "other"}
  for part in parts:
    names = {n.split("/")[2] for n in values if n.split("/")[1] == part}
    numbers = ["accuracy", "length", "truncation_rate"]
    numbers += [f"teacher_{name}" for name in numbers]
    for direction in ("forward", "reverse"):
      numbers += [f"{direction}_kl", f"{direction}_kl_per_token"]
    ends = ("", "_ci_low", "_ci_high")
    assert names == {name + end for name in numbers for end in ends}
    # Greedily, the teacher answers as its copy does.
    for name in ("accuracy", "length", "length_ci_low"):
      ours = values[f"eval/{part}/{name}"]
      assert values[f"eval/{part}/teacher_{name}"] == ours
    assert values[f"eval/{part}/forward_kl"] == 0
  files = {path.name for path in (tmp_path / "scores/predictions").iterdir()}
  assert files == {
    f"{task}-validation-00000000.jsonl",
    f"{task}-test-00000000.jsonl",
    "other-test-00000000.jsonl",
  }
  out = capsys.readouterr().out
  assert f"{task}, validation: 6 prompts, greedily" in out
  assert "other, test: 6 prompts, greedily" in out
  assert "teacher   95 % interval" in out


def test_samples_are_voted_on_and_no_intervals_if_not_asked_for(
  arguments, tmp_path
):
  more = ["--gin.EVAL_TEMPERATURES=(1.0,)", "--gin.EVAL_SAMPLES=3"]
  assert command.main([*arguments, *more, "--gin.EVAL_BOOTSTRAP=0"]) == 0
  values = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  assert {name.split("/")[2] for name in values} == {
    "accuracy_t1",
    "majority_accuracy_t1",
    "length_t1",
    "truncation_rate_t1",
  }
  (file,) = (tmp_path / "scores" / "predictions").iterdir()
  records = [json.loads(line) for line in file.read_text().splitlines()]
  assert len(records) == 24
  assert records[9].keys() == {
    *("sample", "row", "prompt", "reference"),
    *("text", "prediction", "length", "truncated"),
  }


def test_a_beam_search_beside_greedy_and_alone(
  against, caches, tmp_path, capsys
):
  given = [*against, "--gin.EVAL_BEAM_SIZE=4", "--gin.EVAL_BOOTSTRAP=20"]
  folder = tmp_path / "scores"
  assert command.main(given) == 0
  out = capsys.readouterr().out
  assert "  greedily\n  …_beam4: by a search with 4 beams, alpha 0.6\n" in out
  both = json.loads((folder / "metrics.json").read_text())
  names = {name.split("/")[2] for name in both if "_ci_" not in name}
  own = {"accuracy", "length", "truncation_rate"}
  own |= {f"{name}_beam4" for name in own}
  kls = {
    f"{d}_kl{unit}"
    for d in ("forward", "reverse")
    for unit in ("", "_per_token")
  }
  assert names == own | {f"teacher_{name}" for name in own} | kls
  # The teacher is the model itself.
  assert (
    both["eval/chain_addition_easy/length_beam4"]
    == (both["eval/chain_addition_easy/teacher_length_beam4"])
  )
  stem = "chain_addition_easy-validation"
  texts = (folder / "predictions" / f"{stem}-beam4-00000000.jsonl").read_text()
  assert (folder / "predictions" / f"{stem}-00000000.jsonl").exists()
  records = [json.loads(line) for line in texts.splitlines()]
  assert [record["row"] for record in records] == list(range(8))
  page = tmp_path / "page.html"
  assert command.main(["report", str(folder), f"--output={page}"]) == 0
  assert "beam size 4" in page.read_text("utf-8")

  assert command.main([*given, "--gin.EVAL_TEMPERATURES=()"]) == 0
  values = json.loads((folder / "metrics.json").read_text())
  expected = {n: v for n, v in both.items() if "_beam4" in n or "_kl" in n}
  assert values == expected
  names = {path.name for path in (folder / "predictions").iterdir()}
  assert names == {f"{stem}-beam4-00000000.jsonl"}


def test_nothing_of_an_earlier_evaluation_stays(
  arguments, caches, tmp_path, monkeypatch
):
  monkeypatch.setattr(evaluate_command, "evaluate_once", lambda *_, **__: {})
  monkeypatch.setattr(evaluate_command.score_table, "table", lambda *_: "")
  folder = tmp_path / "scores"
  written = "chain_addition_easy-validation-00000000.jsonl"
  (folder / "predictions").mkdir(parents=True)
  for name in (written, "chain_addition_easy-test-t1-00000000.jsonl", "notes"):
    (folder / "predictions" / name).write_text("")
  (folder / "metrics.json").write_text('{"eval/x/accuracy": 1.0}')
  assert command.main(arguments) == 0
  assert json.loads((folder / "metrics.json").read_text()) == {}
  names = {path.name for path in (folder / "predictions").iterdir()}
  # The first is replaced by the evaluation itself.
  assert names == {written, "notes"}


def test_answers_depend_on_neither_the_batch_nor_the_number_of_examples(
  arguments, tmp_path
):
  def texts(name, *more):
    folder = tmp_path / name
    sampled = "--gin.EVAL_TEMPERATURES=(1.0,)"
    made = [*arguments, sampled, f"--gin.MODEL_DIR={folder}", *more]
    assert command.main(made) == 0
    (file,) = (folder / "predictions").iterdir()
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]

  whole = texts("whole")
  assert len(whole) == 8
  assert len(set(whole)) > 3
  few = ["--gin.EVAL_BATCH_SIZE=3", "--gin.EVAL_EXAMPLES=5"]
  assert texts("few", *few) == whole[:5]


def test_parameters_may_be_split_over_devices(against, tmp_path):
  """And compute the same, here with student and teacher on two devices."""
  found = []
  for devices in (1, 2):
    flag = f"--gin.MODEL_PARALLELISM={devices}"
    assert command.main([*against, flag]) == 0
    found.append(json.loads((tmp_path / "scores/metrics.json").read_text()))
  assert found[0].keys() == found[1].keys()
  for name, value in found[0].items():
    assert found[1][name] == pytest.approx(value, abs=1e-4), name


def test_teacher_can_be_left_out(against, tmp_path):
  more = ["--gin.EVAL_TEACHER=False", "--gin.EVAL_BOOTSTRAP=0"]
  assert command.main([*against, *more]) == 0
  values = json.loads((tmp_path / "scores" / "metrics.json").read_text())
  assert "eval/chain_addition_easy/forward_kl" in values
  assert not any("teacher" in name for name in values)


# What is added to the arguments, and what the line must say.
MISTAKES = r"""
EVAL_SPLITS=svamp/test
  EVAL_SPLITS is 'svamp/test'; exp
EVAL_SPLITS=('/nowhere',)
  no cache at /nowhere
EVAL_TEACHER=True
  --gin.EVAL_TEACHER has no effect: there is no teacher; leave it out
EVAL_CHUNK_SIZE=8
  --gin.EVAL_CHUNK_SIZE has no effect: there is no teacher
EVAL_BEAM_ALPHA=0.0
  --gin.EVAL_BEAM_ALPHA has no effect: EVAL_BEAM_SIZE is 0, so there is no
EVAL_BEAM_SIZE=1.5
  EVAL_BEAM_SIZE
EVAL_SPLIT=test
  EVAL_SPLIT has no effect: EVAL_CACHE is given and holds its task
TASK_MODULE=x
  TASK_MODULE has no effect: token caches are given, and nothing is
EVAL_CACHE=('a', 'b')
  evaluation is of one task and split at a time; name one in EVAL_TASK
"""


@pytest.mark.parametrize(("values", "message"), pairs(MISTAKES))
def test_mistakes_are_one_line(
  values, message, arguments, capsys, nothing_computed
):
  assert message in error_of([*arguments, *flags(values)], capsys)


def test_a_split_is_not_evaluated_twice(
  arguments, caches, capsys, nothing_computed
):
  also = f"--gin.EVAL_SPLITS=('{caches['validation']}',)"
  line = error_of([*arguments, also], capsys)
  assert "chain_addition_easy/validation has the same name as" in line


def test_caches_of_two_vocabularies(
  arguments, tmp_path, capsys, nothing_computed
):
  path = write_cache(tmp_path / "c", "test", characters=CHARACTERS[::-1])
  # Where VOCABULARY is given, opening the cache finds it.
  none = "--gin.VOCABULARY="
  line = error_of([*arguments, none, f"--gin.EVAL_SPLITS=('{path}',)"], capsys)
  assert "was made with another vocabulary than" in line


def test_an_empty_split(arguments, tmp_path, capsys, nothing_computed):
  path = write_cache(tmp_path / "empty", "test", rows=0)
  line = error_of([*arguments, f"--gin.EVAL_SPLITS=('{path}',)"], capsys)
  assert "split 'test' has no rows; choose another split" in line


def test_predictions_that_cannot_be_written(
  arguments, tmp_path, capsys, nothing_computed
):
  (tmp_path / "scores").mkdir()
  (tmp_path / "scores" / "predictions").write_text("")
  line = error_of(arguments, capsys)
  assert "predictions is a file; give a folder" in line


def test_a_run_folder_is_not_written_into(
  arguments, tmp_path, capsys, nothing_computed
):
  (tmp_path / "scores" / "checkpoints").mkdir(parents=True)
  line = error_of(arguments, capsys)
  assert "is the folder of a training run" in line
  assert "scores/eval" in line


def test_two_evaluations_do_not_share_a_folder(
  arguments, tmp_path, capsys, nothing_computed
):
  with locks.hold(tmp_path / "scores" / ".lock", "it"):
    line = error_of(arguments, capsys)
  assert "scores is in use by process" in line


def test_every_split_is_compared_with_the_training_data(
  caches, tmp_path, capsys
):
  train = [
    "train",
    "--gin_file=test/sft.gin",
    f"--gin.MODEL_DIR={tmp_path}",
    f"--gin.TRAIN_CACHE={caches['train']}",
    f"--gin.EVAL_CACHE={caches['validation']}",
  ]
  line = error_of([*train, f"--gin.EVAL_SPLITS=('{caches['train']}',)"], capsys)
  assert "EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'" in line
  # By the names alone, before any cache is made.
  names = ["--gin.TRAIN_CACHE=", "--gin.EVAL_CACHE="]
  same = "--gin.EVAL_SPLITS=('chain_addition_easy/train',)"
  line = error_of([*train, *names, same], capsys)
  assert "EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train'" in line
