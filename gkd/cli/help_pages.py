"""What `gkd … --help` says of each command; the flags stand in `parser.py`.

Every page answers the same questions in the same order: what is read, what is
written, which knobs matter and where the others are listed, what happens when
the command is given again, and how a call looks. Lines fit 80 columns.
"""

from gkd.cli import manual_caches
from gkd.cli import manual_convert
from gkd.cli.help_page import CODES
from gkd.cli.help_page import GIN
from gkd.cli.help_page import Page

_TRAINING_CODES = """
exit code:
  0 done; 2 a mistake that you can mend, in one line; 1 loss or gradient were
  not finite, the last checkpoint stands; 130 ctrl-C; 143 ended by SIGTERM;
  both after saving the step that was under way
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
{CODES}
example:
  gkd train --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher
  gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
  gkd report /tmp/gkd --output=/tmp/gkd/report.html
"""

_TEACHER = (
  "  gkd train --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher"
)

PAGES = (
  manual_caches.PAGES
  | manual_convert.PAGES
  | {
    "train": Page(
      "train a student: fine-tuning or distillation",
      f"""
{GIN.strip()}

reads:
  the task's token cache, made now if there is none (see gkd cache --help);
  INITIAL_CHECKPOINT_PATH and TEACHER_CHECKPOINT_PATH: a run, a saved model, or
  a T5X or Hugging Face folder, copied once into CACHE_DIR/models; the sizes of
  the models come from them
writes:
  MODEL_DIR/: config.gin (what was in force, runnable again), metrics.jsonl,
  checkpoints/, predictions/, samples/, tensorboard/, model-info.txt
knobs:
  MODEL_DIR, BATCH_SIZE, TRAIN_STEPS, LEARNING_RATE, RANDOM_SEED, EVAL_PERIOD,
  CHECKPOINT_PERIOD; for distillation also STUDENT_DATA_FRACTION (the share of
  steps on text that the student writes) and DIVERGENCE; VOCABULARY (a file, or
  the folder of a model), EVERY_KTH_LAYER (a student out of the teacher),
  RESTORE_OPTIMIZER and INITIAL_STEP (to go on where the first checkpoint was).
  All of them: the headers of runs/train.gin, runs/distill.gin and runs/data.gin
resume:
  give the same command again: it goes on from the last checkpoint and ends as
  if it had never been stopped. Another configuration is refused, with what is
  different; TRAIN_STEPS, periods, KEEP…, EVAL… and folders may change
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
{GIN.strip()}

reads:
  INITIAL_CHECKPOINT_PATH, a run folder (its newest checkpoint), one checkpoint,
  a saved model, or a T5X or Hugging Face folder; the token cache of EVAL_SPLIT,
  made if there is none
writes:
  a table on the terminal; MODEL_DIR/: metrics.json (eval/TASK/METRIC, and its
  95 % interval as …_ci_low and …_ci_high), config.gin, predictions/, an object
  a line: row, prompt, reference, text (as written), prediction (what of it the
  metrics compare), length in tokens, truncated (never ended), sample (of many)
knobs:
  EVAL_SPLIT, EVAL_SPLITS (more of them), EVAL_EXAMPLES, EVAL_BATCH_SIZE,
  EVAL_TEMPERATURES (0 is greedy), EVAL_SAMPLES, RANDOM_SEED, EVAL_BEAM_SIZE and
  EVAL_BEAM_ALPHA (a beam search beside them). A teacher's score on the same
  examples and the distances to it: add --gin_file=runs/evaluate_against.gin.
  All of them: the headers of runs/evaluate.gin and runs/scoring.gin
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
{GIN.strip()}

reads:
  INITIAL_CHECKPOINT_PATH, a run folder (its newest checkpoint), one checkpoint,
  a saved model, or a T5X or Hugging Face folder; the prompts of TRAIN_SPLIT,
  from its token cache
writes:
  OUTPUT_DIR/: a token cache of NUM_SAMPLES completions of each prompt, and in
  its info.json which model wrote them, how and when (gkd cache check shows it)
knobs:
  OUTPUT_DIR, STUDENT_MODEL (if not the checkpoint's), WRITER, NUM_SAMPLES,
  TRAIN_LIMIT or TRAIN_FRACTION (which prompts), SAMPLING_TEMPERATURE,
  SAMPLING_TOP_K, SAMPLING_TOP_P, RANDOM_SEED, or BEAM_SIZE and BEAM_ALPHA (the
  NUM_SAMPLES best of a beam search instead), BATCH_SIZE, SHARD_PROMPTS (a kill
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
{GIN.strip()}

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
)
