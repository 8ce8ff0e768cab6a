"""What `gkd … --help` says of each command; the flags stand in `parser.py`.

Every page answers the same questions in the same order: what is read, what is
written, which knobs matter and where the others are listed, what happens when
the command is given again, and how a call looks. Lines fit 80 columns.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Page:
  """Help of one command.

  Attributes:
    summary: what it does, as it stands in lists; no capital, no full stop.
    text: reads, writes, knobs and resume.
    example: calls that work as they stand.
    codes: exit codes.
  """

  summary: str
  text: str
  example: str
  codes: str = ""

  @property
  def epilog(self) -> str:
    """All but the summary, below the flags."""
    example = self.example.strip("\n")
    codes = self.codes or _CODES
    return f"{self.text.strip()}\n\n{codes.strip()}\n\nexample:\n{example}\n"


_CODES = """
exit code:
  0 done; 2 a mistake that you can mend, in one line; 130 ctrl-C;
  143 ended by SIGTERM
"""
_TRAINING_CODES = """
exit code:
  0 done; 2 a mistake that you can mend, in one line; 1 loss or gradient were
  not finite, the last checkpoint stands; 130 ctrl-C; 143 ended by SIGTERM,
  after saving
"""
_GIN = """
configuration:
  --gin_file=FILE    a file of configs/ (in the checkout, or in the installed
                     package) or your own; give several, later ones override.
                     The header of each says what it does and lists its knobs
  --gin.NAME=VALUE   sets one knob: --gin.BATCH_SIZE=8
"""

TOP = """\
Distils a large sequence model (the teacher) into a small one (the student),
on the student's own answers. New here? Run: gkd quickstart
"""
TOP_EPILOG = f"""\
A run is described by gin files and single values, and each command writes into
one folder: training into MODEL_DIR, sampling into OUTPUT_DIR. A command that
was stopped, killed or cut off goes on where it was when it is given again.
What each reads, writes and can be told: gkd COMMAND --help
{_CODES}
example:
  gkd train --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher
  gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
  gkd report /tmp/gkd --output=/tmp/gkd/report.html
"""

_TEACHER = (
  "  gkd train --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher"
)

PAGES = {
  "train": Page(
    "train a student: fine-tuning or distillation",
    f"""
{_GIN.strip()}

reads:
  the task's token cache, made now if there is none (see gkd cache --help);
  the parameters in INITIAL_CHECKPOINT_PATH and TEACHER_CHECKPOINT_PATH
writes:
  MODEL_DIR/: config.gin (what was in force, runnable again), metrics.jsonl,
  checkpoints/, predictions/, samples/, tensorboard/, model-info.txt
knobs:
  MODEL_DIR, BATCH_SIZE, TRAIN_STEPS, LEARNING_RATE, RANDOM_SEED, EVAL_PERIOD,
  CHECKPOINT_PERIOD; for distillation also STUDENT_DATA_FRACTION (the share of
  steps on text that the student writes) and DIVERGENCE. All of them: the
  headers of runs/train.gin, runs/distill.gin and runs/data.gin
resume:
  give the same command again: it goes on from the last checkpoint and ends as
  if it had never been stopped
""",
    f"""
{_TEACHER}
  gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
""",
    _TRAINING_CODES,
  ),
  "evaluate": Page(
    "score a checkpoint on a task by generation",
    f"""
{_GIN.strip()}

reads:
  INITIAL_CHECKPOINT_PATH, a run folder (its newest checkpoint), one checkpoint
  or saved parameters; the token cache of EVAL_SPLIT, made if there is none
writes:
  a table on the terminal; MODEL_DIR/: metrics.json (eval/TASK/METRIC, and its
  95 % interval as …_ci_low and …_ci_high), config.gin, predictions/, an object
  a line: row, prompt, reference, text (as written), prediction (what of it the
  metrics compare), length in tokens, truncated (never ended), sample (of many)
knobs:
  EVAL_SPLIT, EVAL_ALSO (more tasks and splits), EVAL_EXAMPLES, EVAL_BATCH_SIZE,
  EVAL_TEMPERATURES (0 is greedy), EVAL_SAMPLES, RANDOM_SEED. A teacher's score
  on the same examples and the distances to it: add
  --gin_file=runs/evaluate_against.gin. All of them: the headers of
  runs/evaluate.gin and runs/scoring.gin
resume:
  nothing to resume: given again it scores again, with the same result
""",
    f"""
{_TEACHER}
  gkd evaluate --gin_file=test/evaluate.gin --gin.MODEL_DIR=/tmp/gkd/scores \\
    --gin.INITIAL_CHECKPOINT_PATH=/tmp/gkd/teacher
""",
  ),
  "sample": Page(
    "write completions of prompts into a cache that training reads",
    f"""
{_GIN.strip()}

reads:
  INITIAL_CHECKPOINT_PATH, a run folder (its newest checkpoint), one checkpoint
  or saved parameters; the prompts of TRAIN_SPLIT, from its token cache
writes:
  OUTPUT_DIR/: a token cache of NUM_SAMPLES completions of each prompt, and in
  its info.json which model wrote them, how and when (gkd cache check shows it)
knobs:
  OUTPUT_DIR, STUDENT_MODEL (the size of who writes), WRITER, NUM_SAMPLES,
  TRAIN_LIMIT or TRAIN_FRACTION (which prompts), SAMPLING_TEMPERATURE,
  SAMPLING_TOP_K, SAMPLING_TOP_P, RANDOM_SEED, BATCH_SIZE, SHARD_PROMPTS (a kill
  loses at most the completions of so many). All of them: the headers of
  runs/sample.gin and runs/data.gin
resume:
  give the same command again: finished shards are kept, no row is lost or
  doubled. Until then they are in .NAME.partial/ beside OUTPUT_DIR, and a
  command that would write other rows is refused
""",
    f"""
{_TEACHER}
  gkd sample --gin_file=test/sample.gin --gin.OUTPUT_DIR=/tmp/gkd/answers \\
    --gin.INITIAL_CHECKPOINT_PATH=/tmp/gkd/teacher
  gkd train --gin_file=test/sft.gin --gin.TRAIN_CACHE=/tmp/gkd/answers \\
    --gin.TRAIN_LIMIT=None --gin.MODEL_DIR=/tmp/gkd/seqkd
""",
    """
exit code:
  0 done, or done before; 2 a mistake that you can mend, in one line; 1 the
  model's numbers were not finite; 130 ctrl-C; 143 ended by SIGTERM
""",
  ),
  "cache": Page(
    "make, list and check token caches; train a vocabulary",
    """
A task is tokenised once, into a folder; training, evaluation and sampling read
that and need no TensorFlow. They make a missing cache by themselves: make it
beforehand where TensorFlow is not installed, or to see how long it takes.

reads and writes:
  see gkd cache ACTION --help
resume:
  give the same command again: what is finished is kept
""",
    """
  gkd cache make --gin_file=tasks/chain_addition.gin
  gkd cache list
  gkd cache check
""",
  ),
  "cache make": Page(
    "tokenise the splits of a task, or of the tasks of a mixture",
    f"""
{_GIN.strip()}

reads:
  the rows of MIXTURE_OR_TASK_NAME or MIXTURE, from TASK_MODULE, --data_dir or
  TFDS
writes:
  CACHE_DIR/TASK/SPLIT-HASH/: tokens, texts, vocabulary and info.json. HASH
  covers task, preprocessing, raw files, vocabulary and lengths: a change of any
  of them makes a new cache and leaves the old one. One that exists is read and
  compared byte by byte; it is made anew if it is damaged. The rates of a seqio
  mixture go to CACHE_DIR/MIXTURE/mixture.json. Prompts that stand twice, within
  a split or in two of them, are reported
knobs:
  MIXTURE_OR_TASK_NAME, MIXTURE, TASK_MODULE, TASK_FEATURE_LENGTHS, VOCABULARY,
  TRAIN_SPLIT, EVAL_SPLIT, OVERLONG. All of them: the header of runs/data.gin
resume:
  give the same command again: finished shards are kept, whatever stopped it; a
  second process that makes the same cache waits for the first
""",
    """
  gkd cache make --gin_file=tasks/chain_addition.gin
  gkd cache make --gin_file=tasks/chain_addition.gin \\
    --gin.MIXTURE="{'chain_addition': 3, 'chain_addition_hard': 1}"
""",
  ),
  "cache vocabulary": Page(
    "train a SentencePiece vocabulary on a task's training texts",
    f"""
{_GIN.strip()}

reads:
  prompts and targets of TRAIN_SPLIT
writes:
  --output FILE, a SentencePiece model, for --gin.VOCABULARY=FILE
knobs:
  --size; those of the task are listed in the header of runs/data.gin
resume:
  nothing to resume: given again it writes the same file again
""",
    """
  gkd cache vocabulary --gin_file=tasks/chain_addition.gin --size=274 \\
    --output=/tmp/sums.model
""",
  ),
  "cache list": Page(
    "list the caches: what is in them, and which are stale or half-made",
    """
reads:
  info.json of every cache in CACHE_DIR, sizes of its files, and the code and
  raw files that it was made of: a change since makes it stale
writes:
  to the terminal: rows, tokens (longest/limit), vocabulary, size, when it was
  made, and its state; nothing to disk. States: fresh; STALE, with what has
  changed; DAMAGED, with the file; HALF-MADE, with the rows that are done;
  complete, for a cache that is of no task
""",
    """
  gkd cache list
  gkd cache list --cache_dir=caches --data_dir=data
""",
  ),
  "cache check": Page(
    "read every byte of caches and compare their hashes",
    """
reads:
  the folders given, of gkd cache make or gkd sample, or all in CACHE_DIR
writes:
  to the terminal: what is sound and what is not, and prompts that two of the
  caches share, as a test set and a training set should not; nothing to disk
""",
    """
  gkd cache check
  gkd cache check ~/.cache/gkd/data/gsm8k
""",
    """
exit code:
  0 all are sound; 2 one is damaged or missing, and the message says what to do
""",
  ),
  "report": Page(
    "turn run folders into one self-contained HTML page",
    """
reads:
  of each run or evaluation in the folders given, or up to two folders below:
  metrics.jsonl or metrics.json, config.gin, run.json, model-info.txt,
  predictions/ and samples/; results.json of a folder given. Never a model
writes:
  --output FILE, one page with tables, plots (loss, KLs, scores with intervals
  and the teacher's, time, λ, lengths), what differs between the configs, and
  the configs. It needs no network and no script; runs in folders called seed_0,
  seed_1, … count as repetitions of one run
resume:
  nothing to resume: drawn anew from the files each time, also of a run that is
  still going on or was killed; what is missing is said in the page
""",
    """
  gkd report runs/sft runs/gkd --output=report.html
  gkd report runs --output=report.html --plots=plots
""",
  ),
  "bench": Page(
    "time sampling and updates of a distillation run",
    f"""
{_GIN.strip()}

reads:
  what gkd train would read with the same flags
writes:
  --output FILE, times in JSON, and a summary to the terminal; no checkpoint
knobs:
  --rounds; BATCH_SIZE, STUDENT_MODEL, TEACHER_MODEL and whatever else
  gkd train --help lists
resume:
  nothing to resume: given again it measures again
""",
    f"""
{_TEACHER}
  gkd bench --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/bench \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher --rounds=20
""",
  ),
  "quickstart": Page(
    "distil a small T5 on this machine and compare the methods",
    """
reads:
  nothing: the problems are generated and the teacher comes along
writes:
  --output DIR: the runs, results.json, plots and report.html; at the end it
  says which method came how close to the teacher
knobs:
  the flags above; the settings of its runs are listed in the headers of
  configs/experiments/quickstart/
resume:
  give the same command again: finished runs are kept
""",
    """
  gkd quickstart --output=runs/quickstart
""",
  ),
}
