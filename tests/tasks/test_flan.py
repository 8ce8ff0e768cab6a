"""Tasks of a file of templates, and the mixture of all of them."""

import json

import pytest
import seqio

from gkd.cli import main as command
from gkd.data.builder.build_cache import find_or_build
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.tasks import flan
from gkd.tasks import mixtures
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError

RIDDLES = [{"riddle": f"what is {i}", "answer": f"it is {i}"} for i in range(9)]
ASKED = {"inputs": "Solve: {riddle}?", "targets": "{answer}"}
INVERTED = {"inputs": "A riddle of {answer}:", "targets": "riddle"}
TASKS = {
  "riddles": {
    "files": {"train": "riddles.jsonl"},
    "templates": [ASKED, INVERTED],
  },
  "cities": {
    "files": {"train": "cities.csv", "validation": "more_cities.csv"},
    "templates": [{"inputs": "capital of {country}?", "targets": "city"}],
    "metrics": ["rouge"],
  },
}


@pytest.fixture
def read(tmp_path):
  """Writes the files of tasks and reads the rows of one of them."""

  def write(tasks, riddles=RIDDLES):
    (tmp_path / "flan.json").write_text(json.dumps(tasks))
    lines = "".join(json.dumps(riddle) + "\n" for riddle in riddles)
    (tmp_path / "riddles.jsonl").write_text(lines)
    (tmp_path / "cities.csv").write_text("country,city\nPeru,Lima\n")
    (tmp_path / "more_cities.csv").write_text("country,city\nJapan,Tokyo\n")

  def rows(task, tasks=TASKS, **options):
    write(tasks, **options)
    spec = CacheSpec(
      task=task,
      split="train",
      lengths={"inputs": 64, "targets": 64},
      vocabulary=ByteVocabulary(),
      cache_dir=tmp_path / "caches",
      data_dir=tmp_path,
      task_module="gkd.tasks.flan",
    )
    cache = TokenCache(find_or_build(spec))
    return cache, [
      (r.prompt, r.reference) for r in cache.read(range(len(cache)))
    ]

  yield rows
  if flan.MIXTURE in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(flan.MIXTURE)


def test_the_template_of_a_row_follows_from_its_content(read):
  cache, rows = read("riddles")
  assert {"flan.json", "riddles.jsonl"} == cache.info["raw_files"].keys()
  pairs = [(r["riddle"], r["answer"]) for r in RIDDLES]
  either = [{(f"Solve: {r}?", a), (f"A riddle of {a}:", r)} for r, a in pairs]
  assert all(row in both for row, both in zip(rows, either, strict=True))
  assert 0 < sum(prompt.startswith("Solve") for prompt, _ in rows) < len(rows)
  # In another place and company it has the same one.
  _, fewer = read("riddles", riddles=RIDDLES[::-2])
  assert fewer == rows[::-2]
  other = TASKS | {"riddles": TASKS["riddles"] | {"templates": [ASKED]}}
  _, asked = read("riddles", other)
  assert asked == [(f"Solve: {r}?", a) for r, a in pairs]


def test_tasks_have_their_metrics_and_the_mixture_their_sizes(read, tmp_path):
  cache, rows = read("cities")
  assert rows == [("capital of Peru?", "Lima")]
  assert cache.info["metrics"] == ["gkd.text.metrics:rouge"]
  found = mixtures.find(
    flan.MIXTURE, "gkd.tasks.flan", tmp_path, ByteVocabulary()
  )
  sizes = {"riddles": 5000, "cities": 1000}
  assert mixtures.rates(found, "train", sizes) == {
    "riddles": 3000,
    "cities": 1000,
  }


def test_the_command_trains_on_the_mixture(read, tmp_path):
  read("riddles")
  sizes = {"emb_dim": 8, "num_heads": 2, "head_dim": 4, "mlp_dim": 16}
  sizes |= {"num_encoder_layers": 1, "num_decoder_layers": 1}
  macros = {
    "STUDENT_MODEL": {"vocab_size": ByteVocabulary().size, **sizes},
    "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
    "VOCABULARY": "bytes",
    "EXTRA_IDS": 0,
    "EVAL_TASK": "cities",
    "EVAL_SPLIT": "validation",
    "OVERLONG": "truncate_left",
    "MODEL_DIR": tmp_path / "run",
    "BATCH_SIZE": 4,
    "TRAIN_STEPS": 2,
    "LEARNING_RATE": 1e-3,
  }
  arguments = [
    *("train", "--gin_file=runs/sft.gin", "--gin_file=tasks/flan.gin"),
    *(f"--gin.{name}={value}" for name, value in macros.items()),
    *(f"--data_dir={tmp_path}", f"--cache_dir={tmp_path / 'caches'}"),
  ]
  assert command.main(arguments) == 0
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  assert "eval/cities/rouge2" in json.loads(lines[-1])
  rates = json.loads((tmp_path / "caches/flan/mixture.json").read_text())
  assert rates["rates"] == {"riddles": 9, "cities": 1}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"templates": [{"inputs": "{riddle}"}]}, r"flan.json has .*targets None"),
    ({"templates": []}, "flan.json has no templates of 'riddles'"),
    ({"metric": ["bleu"]}, "flan.json has metric in 'riddles'; write it as"),
    ({"templates": [ASKED | {"references": "answer"}]}, "has references in"),
    ({"templates": [{"inputs": "{r}", "targets": "answer"}]}, "no column 'r'"),
    ({"files": {"train": "none.csv"}}, "there is no .*none.csv"),
    ({"metrics": ["bleus"]}, "METRICS has 'bleus'"),
  ],
)
def test_a_wrong_file_of_templates_is_refused(read, change, message):
  with pytest.raises(UserError, match=message):
    read("riddles", {"riddles": TASKS["riddles"] | change})
