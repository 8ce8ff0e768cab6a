"""Bad command lines, drawn from a seed: every command, every kind of mistake.

  arguments, mistakes = hostile_lines.draw("0:17", folder=scratch)

`make_files` writes what the sound commands read, and what they refuse.
"""

import functools
import json
import os
from pathlib import Path
import random

from gkd.checkpoints.native import native_checkpoint
from gkd.cli import parser
from gkd.config import configuration
from gkd.config import gin_table
from gkd.text import vocabulary
from gkd.text.chain_addition import CHARACTERS
from tests.checkpoints import tiny_models
from tests.cli.command_lines import write_caches
from tests.faults import hostile_grids


def _words(text: str) -> list[str]:
  return text.split()


_TRAIN = """--gin.MODEL_DIR=FOLDER/new --gin.TRAIN_CACHE=FOLDER/train
  --gin.EVAL_CACHE=FOLDER/eval"""
_DISTILL = f"""--gin_file=test/distill.gin {_TRAIN}
  --gin.TEACHER_CHECKPOINT_PATH=FOLDER/model"""
_MODEL = "--gin.INITIAL_CHECKPOINT_PATH=FOLDER/model"
# Sound ones; the first four read most macros.
COMMANDS = [
  line.split()
  for line in (
    f"train {_DISTILL}",
    f"train --gin_file=test/sft.gin {_TRAIN}",
    f"evaluate --gin_file=test/evaluate.gin {_MODEL}"
    " --gin.EVAL_CACHE=FOLDER/eval --gin.MODEL_DIR=FOLDER/new",
    f"sample --gin_file=test/sample.gin {_MODEL}"
    " --gin.TRAIN_CACHE=FOLDER/train --gin.OUTPUT_DIR=FOLDER/new",
    f"bench {_DISTILL} --output=FOLDER/new.json --rounds=1",
    "convert FOLDER/model FOLDER/new --to=gkd",
    "cache make --gin_file=tasks/chain_addition.gin --split=train",
    "cache vocabulary --gin_file=tasks/chain_addition.gin --size=274"
    " --output=FOLDER/new.model",
    "cache list --cache_dir=FOLDER",
    "cache check FOLDER/eval",
    "report FOLDER/run --output=FOLDER/new.html --plots=FOLDER/new",
    "quickstart --output=FOLDER/new --seeds 0",
    *["grid FOLDER/CASE.toml --output=FOLDER/CASE"] * 3,
  )
]
_NUMBERS = _words("""
  BATCH_SIZE TRAIN_STEPS MICRO_BATCHES MODEL_PARALLELISM EVAL_SAMPLES
  NUM_SAMPLES EVAL_BATCH_SIZE EVAL_EXAMPLES EVAL_CHUNK_SIZE CHUNK_SIZE KEEP
  REPORT_PERIOD TARGETS_PER_PROMPT TRAIN_LIMIT SHARD_PROMPTS WARMUP_STEPS
  BEAM_SIZE COOLDOWN_STEPS EVAL_PERIOD CHECKPOINT_PERIOD SAMPLE_PERIOD
  EVAL_BOOTSTRAP EVAL_BEAM_SIZE EVAL_LOG_STEPS RANDOM_SEED EXTRA_IDS
  SAMPLING_TOP_K SUBSET_SEED KEEP_EVERY KEEP_BEST LEARNING_RATE
  TEACHER_TEMPERATURE STUDENT_TEMPERATURE CLIP_NORM SAMPLING_TEMPERATURE
  EVAL_BEAM_ALPHA BEAM_ALPHA INITIAL_STEP STUDENT_DATA_FRACTION TRAIN_FRACTION
  SAMPLING_TOP_P DROPOUT_RATE GUARD_MEMORISED GUARD_GAP_GROWTH GUARD_REPEATS
  GUARD_Z GUARD_EVALUATIONS GUARD_STUDENT_FRACTION
""")
_WORDS = _words("""
  OVERLONG REDUCTION OPTIMIZER MIXING OFF_POLICY_SOURCE DTYPE WRITER
  TEACHER_DTYPE BEST_MODE BEST_METRIC EVAL_FIRST RESTORE_OPTIMIZER
  EVAL_TEACHER TASK_FEATURE_LENGTHS STUDENT_MODEL TEACHER_MODEL MIXTURE
  EVAL_TEMPERATURES EVAL_SPLITS DIVERGENCE EVERY_KTH_LAYER STUDENT TEACHER
  KEEP_LAYERS OBJECTIVE LEARNING_RATE_FACTORS GUARD GUARD_METRIC CHAT_FORMAT
  TEACHER_MEMORY
""")
_READ = _words("""
  TRAIN_CACHE EVAL_CACHE INITIAL_CHECKPOINT_PATH VOCABULARY
  TEACHER_CHECKPOINT_PATH
""")
_WRITTEN = ["MODEL_DIR", "OUTPUT_DIR"]
# No number, no word of a choice, no object that belongs there.
_OF_NOTHING = _words("""
  (1, [ {} {'a':1} (1,'a') ()() %NO_SUCH @no.Such() b'a' 'a\\0b' '\\ud800' %%A
  @() [[[[[[ lambda:1 1_ 0x ... -1 -0.5 1e999 -9999999999999999999
  @divergence.ReverseKL.x() {1:2} @objective.Distillation() @schedules.Linear
  @train/records.DataConfig() nan
""")
# May be sound somewhere: then the command may go on.
_ODD = _words("""
  True None 0 1 2 1.0 1e23 99999999999999999999999 '' 'a' () (1,) %KEEP
  'bytes' {'inputs':3,'targets':3} FOLDER @divergence.ReverseKL
  @divergence.ReverseKL() \x1b[31m \u202e 1e-300 T5_1_1_SMALL %TINY 'step'
""")
_NO_PATHS = [
  *("x" * 300, "~no-such-user/x", "'a\\0b'", "'\\ud800'", "bad\udcff"),
  *("FOLDER/file/x", "FOLDER/loop/x", "/dev/null"),
]
_NOT_READ = [*_NO_PATHS, "FOLDER/nowhere", "FOLDER/file", "FOLDER/empty",
  "FOLDER/loop", "FOLDER/fifo", "(1,", "%NO", "/proc/self/mem"]  # fmt: skip
_NO_GRIDS = _words("""
  FOLDER/other FOLDER/damaged FOLDER/held FOLDER/foreign FOLDER/file
  FOLDER/file/x FOLDER/loop /proc/nowhere /dev/null
""")
_CIRCLES = [
  "MACRO=%MACRO", "MACRO=%KEEP KEEP=%MACRO", "MACRO=(%MACRO,)",
  "MACRO={'inputs':%EVAL_TASK} EVAL_TASK=[%MACRO]"]  # fmt: skip
_NAMES = _words("""
  TRIAN_STEPS=2 a.b.c=1 =1 BATCH_SIZE divergence=1 /=3 \u03b1=1
  student/=4 rollout.Rollout.no_such=1 command_records.x.y=2 gin.macro=3 #=1
  BATCH_SIZE.x=3 __gin__.x=1
""") + ["x\n=3", "import os\nos.x=3"]
_FLAGS = _words("""
  --no_such --gin_fiel=x --help=3 -z --to= --to=onnx --size=a --rounds=1.5
  --workers=x --seeds=a --gin_file= --gin_file=no/such.gin --gin_file=FOLDER
  --set== --gin_file=FOLDER/fifo --gin_file=FOLDER/file --dtype=f8
  --gin_file=/dev/zero --set=a --gin --gin. --gin.= --rounds=0 --size=-1
  --set=emb_dim=nan --set=dropout_rate=nan --set=dtype=(1, --slots=1
  --plots=FOLDER/file --tokenizer=FOLDER/nowhere
  --gin_file=~no-such-user/a.gin --output=FOLDER/no/a
""")
_ODD_FLAGS = _words("""
  --cache_dir --output= --output=FOLDER --workers=-3 --step=-1 --seeds
  --set=dropout_rate=0.1 --split= --cache_dir=FOLDER/file
  --data_dir=FOLDER/loop --dry_run --slots --step=7 --seeds=-1 --through_seqio
  --plots= --split=x
""")
_FILES = {
  "self": "include 'FOLDER/self.gin'",
  "open": "BATCH_SIZE = (1,",
  "text": "KEEP = 'a",
  "macro": "TRIAN_STEPS = 2",
  "none": "import no_such_module_at_all",
  "code": "import subprocess",
  "deep": "KEEP = " + "[" * 400,
  "call": "from gkd import files\nKEEP = @files.os.getcwd()",
  "what": "KEEP == 3",
  "bare": "KEEP",
  "indent": "  KEEP = 2\n x = 3",
  "gone": "include 'no/such.gin'",
  "param": "from gkd.config import records\nrecords.EvalConfig.no_such = 3",
  "class": "from gkd.losses import divergence\nKEEP = @divergence.NoSuch()",
  "circle": "KEEP = %TRAIN_STEPS\nTRAIN_STEPS = %KEEP",
  "old": "GRANULARITY = 'step'",
  "nul": "KEEP = 'a\0'",
  "within": "include 'FOLDER/open.gin'",
  "object": (
    "from gkd.training import schedules\nschedules.Linear.end ="
    " @schedules.Linear()\nSTUDENT_DATA_FRACTION = @schedules.Linear()"
  ),
}


def make_files(folder: Path) -> None:
  """A model, caches, runs, a file, a FIFO, a link to itself, gin files."""
  (folder / "model").mkdir()
  size = {"vocab_size": 18, "emb_dim": 24, "num_heads": 2, "head_dim": 12}
  size |= {"mlp_dim": 48, "num_encoder_layers": 1, "num_decoder_layers": 1}
  tokenizer = vocabulary.load(f"characters:{CHARACTERS}")
  native_checkpoint.write(
    folder / "model", tiny_models.make(**size), vocabulary=tokenizer
  )
  write_caches(folder)
  (folder / "run").mkdir()
  line = json.dumps({"step": 1, "train/loss": 2.5})
  (folder / "run" / "metrics.jsonl").write_text(f"{line}\n")
  for name, file, text in (
    ("other", "grid.json", '{"title": "Other"}'),
    ("damaged", "grid.json", "{"),
    ("foreign", "results.json", "{}"),
  ):
    (folder / name).mkdir()
    (folder / name / file).write_text(text)
  (folder / "file").write_bytes(bytes(range(256)))
  (folder / "empty").mkdir()
  os.mkfifo(folder / "fifo")
  (folder / "loop").symlink_to(folder / "loop")
  dynamic = "from __gin__ import dynamic_registration\n"
  for name, text in _FILES.items():
    text = dynamic + text.replace("FOLDER", str(folder)) + "\n"
    (folder / f"{name}.gin").write_text(text)


def draw(case: str, folder: Path) -> tuple[list[str], list[str]]:
  """The arguments of a case, and which of them must be refused."""
  name = case.replace(":", "-")
  rng = random.Random(name)
  arguments = list(rng.choice([*COMMANDS[:4], *COMMANDS[:2], *COMMANDS]))
  sound, added, wrong = tuple(arguments), [], []
  kinds = [*[_value] * 5, *[_odd] * 7, _own_flag, _own_flag, _path, _path]
  kinds += [_name, _flag, _file, _word]
  count, of_grid = rng.choice((1, 1, 1, 1, 2, 3)), []
  if arguments[0] == "grid":
    kinds, count = [_own_flag, _flag, _word, _no_grid], rng.random() < 0.3
    of_grid = _write_grid(rng, folder, f"{name}.toml")
  for kind in rng.sample(kinds, count):
    new, is_wrong = kind(rng, arguments if kind is _word else sound)
    added += new
    wrong += new if is_wrong else []
  # What is given twice counts as it was given last.
  set_last = {text.partition("=")[0]: text for text in added}
  wrong = [text for text in wrong if text in set_last.values()]
  texts = [
    [text.replace("FOLDER", str(folder)).replace("CASE", name) for text in part]
    for part in ([*arguments, *added], wrong + of_grid)
  ]
  return texts[0], texts[1]


@functools.cache
def _macros(file: str) -> list[str]:
  """Those that a command with this gin file knows."""
  configuration.load(["runs/data.gin", file], [])
  known = gin_table.bound_macros() | gin_table.referenced_macros()
  return [name for name in _NUMBERS + _WORDS if name in known]


def _macro(rng, arguments):
  files = [
    x.partition("=")[2] for x in arguments if x.startswith("--gin_file=")
  ]
  return rng.choice(_macros(files[0]) if files else _NUMBERS + _WORDS)


def _value(rng, arguments):
  macro, value = _macro(rng, arguments), rng.choice(_OF_NOTHING)
  if rng.random() < 0.15:
    circle = rng.choice(_CIRCLES).replace("MACRO", macro)
    return [f"--gin.{text}" for text in circle.split()], True
  return [f"--gin.{macro}={value}"], True


def _write_grid(rng, folder, name):
  """The file's name, if it must be refused."""
  values = []
  if rng.random() < 0.2:
    values, _ = _value(rng, ["--gin_file=test/sft.gin"])
  text, is_wrong = hostile_grids.draw(
    rng, [value.removeprefix("--gin.") for value in values]
  )
  (folder / name).write_text(text.replace("FOLDER", str(folder)))
  return [name] * is_wrong


def _no_grid(rng, arguments):
  return [f"--output={rng.choice(_NO_GRIDS)}"], True


def _path(rng, arguments):
  # The bench writes nothing into its MODEL_DIR.
  if rng.random() < 0.5 or arguments[0] == "bench":
    return [f"--gin.{rng.choice(_READ)}={rng.choice(_NOT_READ)}"], True
  return [f"--gin.{rng.choice(_WRITTEN)}={rng.choice(_NO_PATHS)}"], True


def _name(rng, arguments):
  return [f"--gin.{rng.choice(_NAMES)}"], True


def _flag(rng, arguments):
  flag = rng.choice(_FLAGS)
  # A grid makes its folder, those above it too.
  return [flag], arguments[0] != "grid" or not flag.startswith("--output")


def _file(rng, arguments):
  return [f"--gin_file=FOLDER/{rng.choice([*_FILES])}.gin"], True


def _word(rng, arguments):
  """A word less, twice, cut or changed."""
  place = rng.randrange(len(arguments))
  word = arguments.pop(place)
  half = word[: len(word) // 2]
  new = rng.choice(
    ([], [word, word], [half], [word + "x"], [""], [word + "\n"])
  )
  arguments[place:place] = new
  return [], False


def _own_flag(rng, arguments):
  """A flag that the command has, with a value that may not do."""
  table, name = parser._FLAGS, " ".join(arguments[:2])
  flags = table.get(arguments[0]) or table[name]
  flag, about = rng.choice(flags or [("--no_such", {})])
  if about.get("type") is int:
    value = rng.choice(["a", "1.5", "", "0x1", "-1", "0", "9" * 30, "1_0"])
    return [f"{flag}={value}"], value in ("a", "1.5", "", "0x1")
  if "choices" in about and flag.startswith("-"):
    return [f"{flag}=zz"], True
  value = rng.choice([*_NOT_READ, *_ODD, "a=b"])
  return [f"{flag}={value}" if flag.startswith("-") else value], False


def _odd(rng, arguments):
  if not any(x.startswith("--gin_file=") for x in arguments):
    return _own_flag(rng, arguments)
  if rng.random() < 0.1:
    return [rng.choice(_ODD_FLAGS)], False
  return [f"--gin.{_macro(rng, arguments)}={rng.choice(_ODD)}"], False
