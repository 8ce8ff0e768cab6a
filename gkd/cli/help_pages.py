"""What `gkd … --help` says of each command; flags are in `parser`.

A page is its summary, a blank line, and what stands below the flags: what is
read and written, which knobs matter and where the others are listed, what
happens when the command is given again, exit codes, a call.
"""

_GIN = """\
configuration:
  --gin_file=FILE    a file of configs/ (in the checkout, or in the installed
                     package) or your own; give several, later ones override.
                     The header of each says what it does and lists its knobs
  --gin.NAME=VALUE   sets one knob: --gin.BATCH_SIZE=8
"""
_CODES = """
exit code:
  0 done; 2 a mistake that you can mend, in one line; 130 ctrl-C; 143 SIGTERM
"""
_PROCESSES = """\
several processes:
  give the same command to each, on machines that share MODEL_DIR. Cloud TPU,
  GKE, SLURM (srun) and Open MPI say who they are; elsewhere --coordinator,
  --num_processes and --process_id do. Process 0 writes. See docs/reliability.md
"""
_TEACHER = """\
  gkd train --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher"""

PAGES = {
  "": f"""\
Distils a large sequence model (the teacher) into a small one (the student),
on the student's own answers. New here? Run: gkd quickstart

A run is described by gin files and single values, and each command writes into
one folder: training into MODEL_DIR, sampling into OUTPUT_DIR. A command that
was stopped or killed goes on where it was when it is given again.
What each reads, writes and can be told: gkd COMMAND --help. Completion in bash
or zsh: pip install shtab; eval "$(shtab --shell=bash gkd.cli.parser.build)"
{_CODES}
example:
{_TEACHER}
  gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
  gkd report /tmp/gkd --output=/tmp/gkd/report.html
""",
  "quickstart": f"""\
distil a small T5 on this machine and compare the methods

reads:
  nothing: the problems are generated and the teacher comes along; with --real
  SmolLM2-135M-Instruct, in runs/real/, needs gkd[gguf]
writes:
  --output DIR: the runs, results.json, plots and report.html; at the end it
  says which method came how close to the teacher
knobs:
  the flags above; settings of its runs: configs/experiments/quickstart/, which
  were chosen on validation
resume:
  give the same command again: finished runs are kept
{_CODES}
example:
  gkd quickstart --output=runs/quickstart
  gkd quickstart --real
""",
  "train": f"""\
train a student: fine-tuning or distillation

{_GIN}
reads:
  the task's token cache, made now if there is none (see gkd cache --help);
  INITIAL_CHECKPOINT_PATH and TEACHER_CHECKPOINT_PATH: a run, a saved model, or
  a T5X or Hugging Face folder, or a GGUF file, which say the models' sizes
writes:
  MODEL_DIR/: config.gin (what was in force, runnable again), metrics.jsonl,
  checkpoints/, predictions/, samples/, tensorboard/, model-info.txt; on the
  terminal the scores of each evaluation, three answers and how likely the
  teacher finds them; with --verbose each program that compiles; at the end
  tokens and FLOPs a second and chip, and chip-hours. --profile=10:15: a trace
  of these steps for xprof, in tensorboard/
knobs:
  MODEL_DIR, BATCH_SIZE, TRAIN_STEPS, LEARNING_RATE, RANDOM_SEED, EVAL_PERIOD,
  CHECKPOINT_PERIOD; for distillation STUDENT_DATA_FRACTION (the share of steps
  on text that the student writes) and DIVERGENCE; VOCABULARY (a file, or the
  folder of a model), EVERY_KTH_LAYER and KEEP_LAYERS (a student out of the
  teacher), RESTORE_OPTIMIZER and INITIAL_STEP (to go on from a checkpoint). All
  of them: the headers of runs/train.gin, runs/distill.gin and runs/data.gin
resume:
  give the same command again: it goes on from the last checkpoint and ends as
  if it had never been stopped. Another configuration is refused, with what is
  different; TRAIN_STEPS, periods, KEEP…, EVAL… and folders may change

exit code:
  0 done; 2 a mistake that you can mend, in one line; 1 loss, gradient or update
  were not finite, and nothing of that step is saved; 130 ctrl-C; 143 SIGTERM;
  both after saving the step that was under way; 75 of several processes one
  died or was stuck: the same command goes on
{_PROCESSES}
example:
{_TEACHER}
  gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
""",
  "plan": f"""\
what a run needs on devices that are not here: memory, collectives, time

{_GIN}
reads:
  the flags of gkd train; sizes by STUDENT_MODEL and TEACHER_MODEL, or those of
  the checkpoints; no data. For TPUs libtpu, which needs none: gkd[plan]
writes:
  a table of the sampler and the update: bytes a chip, FLOPs, collectives, the
  least time; advice where it does not fit; --output FILE, the same in JSON
knobs:
  MODEL_PARALLELISM, FSDP_PARALLELISM, PARTITIONING, GATHER_TO_SAMPLE,
  SCAN_LAYERS, REMAT, CHUNK_SIZE, MICRO_BATCHES, DTYPE, TEACHER_DTYPE,
  TEACHER_MEMORY, and whatever else gkd train --help lists; how to choose:
  docs/tpu.md
resume:
  nothing to resume
{_CODES}
example:
{_TEACHER}
  gkd plan --topology=v5e:4x4 --gin_file=test/distill.gin \\
    --gin.MODEL_DIR=/tmp/gkd/student \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher
""",
  "evaluate": f"""\
score a checkpoint on a task by generation

{_GIN}
reads:
  INITIAL_CHECKPOINT_PATH: a run (its newest checkpoint), one checkpoint, a
  saved model, or a T5X or Hugging Face folder; the token cache of EVAL_SPLIT,
  made if there is none
writes:
  a table on the terminal; MODEL_DIR/: metrics.json (eval/TASK/METRIC, and its
  95 % interval as …_ci_low and …_ci_high, a distance's standard error as …_se),
  config.gin, predictions/, an object a line: row, prompt, reference, text (as
  written), prediction (what of it the metrics compare), length in tokens,
  truncated (never ended), sample (of many)
knobs:
  EVAL_SPLIT, EVAL_SPLITS (more of them), EVAL_EXAMPLES, EVAL_BATCH_SIZE,
  EVAL_TEMPERATURES (0 is greedy), EVAL_SAMPLES, RANDOM_SEED, EVAL_BEAM_SIZE and
  EVAL_BEAM_ALPHA (a beam search beside them). A teacher's score on the same
  examples and the EVAL_DISTANCES to it: add
  --gin_file=runs/evaluate_against.gin.
  All of them: the headers of runs/evaluate.gin and runs/scoring.gin.
  --through_seqio has seqio.Evaluator score the same predictions and fails if
  its numbers are not ours; it needs TensorFlow and the raw data
resume:
  nothing to resume: given again it scores again, with equal results
{_CODES}
example:
{_TEACHER}
  gkd evaluate --gin_file=test/evaluate.gin --gin.MODEL_DIR=/tmp/gkd/scores \\
    --gin.INITIAL_CHECKPOINT_PATH=/tmp/gkd/teacher
""",
  "sample": f"""\
write completions of prompts into a cache that training reads

{_GIN}
reads:
  INITIAL_CHECKPOINT_PATH: a run (its newest checkpoint), one checkpoint, a
  saved model, or a T5X or Hugging Face folder; the prompts of TRAIN_SPLIT,
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

exit code:
  0 done, or done before; 2 a mistake that you can mend, in one line; 1 the
  model's numbers were not finite; 130 ctrl-C; 143 SIGTERM

example:
{_TEACHER}
  gkd sample --gin_file=test/sample.gin --gin.OUTPUT_DIR=/tmp/gkd/answers \\
    --gin.INITIAL_CHECKPOINT_PATH=/tmp/gkd/teacher
  gkd train --gin_file=test/sft.gin --gin.TRAIN_CACHE=/tmp/gkd/answers \\
    --gin.TRAIN_LIMIT=None --gin.MODEL_DIR=/tmp/gkd/seqkd
""",
  "cache": f"""\
make, list, check and export token caches; train a vocabulary

A task is tokenised once, into a folder; training, evaluation and sampling read
that and need no TensorFlow. They make a missing cache by themselves: make it
beforehand where TensorFlow is not installed, or to see how long it takes.

reads, writes:
  see gkd cache ACTION --help
resume:
  give the same command again: what is finished is kept
{_CODES}
example:
  gkd cache make --gin_file=tasks/chain_addition.gin
  gkd cache list
  gkd cache check
""",
  "cache make": f"""\
tokenise the splits of a task, or of the tasks of a mixture

{_GIN}
reads:
  the rows of MIXTURE_OR_TASK_NAME or MIXTURE, from TASK_MODULE, --data_dir or
  TFDS
writes:
  CACHE_DIR/TASK/SPLIT-HASH/: tokens, texts, vocabulary and info.json. HASH
  covers task, preprocessing, raw files, vocabulary and lengths: a change of any
  of them makes a new cache and leaves the old one. One that exists is read byte
  by byte and made anew if it is damaged. Rates of a seqio mixture go to
  CACHE_DIR/MIXTURE/mixture.json. Prompts that stand twice are reported
knobs:
  MIXTURE_OR_TASK_NAME, MIXTURE, TASK_MODULE or DATA_FILES, VOCABULARY,
  CHAT_FORMAT, TASK_FEATURE_LENGTHS, TRAIN_SPLIT, EVAL_SPLIT, OVERLONG. All of
  them: the header of runs/data.gin
resume:
  give the same command again: finished shards are kept, whatever stopped it; a
  second process that makes the same cache waits for the first
{_CODES}
example:
  gkd cache make --gin_file=tasks/chain_addition.gin
  gkd cache make --gin_file=tasks/chain_addition.gin \\
    --gin.MIXTURE="{{'chain_addition': 3, 'chain_addition_hard': 1}}"
""",
  "cache vocabulary": f"""\
train a SentencePiece vocabulary on a task's training texts

{_GIN}
reads:
  prompts and targets of TRAIN_SPLIT
writes:
  --output FILE, a SentencePiece model, for --gin.VOCABULARY=FILE
knobs:
  --size, number of ids with the special ids and 256 bytes for characters that
  have no piece; those of the task are listed in the header of runs/data.gin
resume:
  nothing to resume: given again it writes the same file again
{_CODES}
example:
  gkd cache vocabulary --gin_file=tasks/chain_addition.gin --size=274 \\
    --output=/tmp/sums.model
""",
  "cache list": f"""\
list the caches: what they hold, and which are stale or half-made

reads:
  info.json of every cache in CACHE_DIR, sizes of its files, and the code and
  raw files that it was made of: a change since makes it stale
writes:
  to the terminal: rows, tokens (longest/limit), vocabulary, size, when it was
  made, and its state; nothing to disk. States: fresh; code fresh, raw files
  not tracked (its task did not say which it read); STALE, with what has
  changed; DAMAGED, with the file; HALF-MADE, with the rows that are done;
  complete, for a cache that is of no task
{_CODES}
example:
  gkd cache list
  gkd cache list --cache_dir=caches --data_dir=data
""",
  "cache check": """\
read every byte of caches and compare their hashes

reads:
  the folders given, of gkd cache make or gkd sample, or all in CACHE_DIR
writes:
  to the terminal: what is sound and what is not, and prompts that two of the
  caches share, as a test set and a training set should not; nothing to disk

exit code:
  0 all are sound; 2 one is damaged or missing, and the message says what to do

example:
  gkd cache check
  gkd cache check ~/.cache/gkd/data/gsm8k
""",
  "cache export": f"""\
write completions as text, for a student with another tokenizer

reads:
  a folder that gkd sample wrote
writes:
  --output FILE, JSON lines for DATA_FILES: inputs, the prompt without the frame
  of a chat, and targets, the completion without its end. Training puts the
  student's own frame and end around them. Left out, and counted: what was cut
  without EOS, as it would count as ended; what is empty; what has no text
knobs:
  the flags above; TARGETS_PER_PROMPT and others choose rows in training
resume:
  nothing to resume: a FILE that is there is refused
{_CODES}
example:
  gkd cache export answers --output=answers.jsonl
""",
  "convert": f"""\
convert a model between gkd, T5X and Hugging Face, bit for bit, or out of GGUF

reads:
  SRC, whose format and family are detected: a run (its newest checkpoint), one
  checkpoint of it or a saved model of gkd; a T5X checkpoint or a folder of them
  (msgpack and zarr, or Orbax; layers stacked or not); a Hugging Face folder
  (config.json, model.safetensors); a GGUF file. No code is run from a
  checkpoint: a .bin is refused, with the command that converts it
writes:
  DST, a folder that does not exist or is empty; there whole or not at all, one
  array after the other. T5X: msgpack and zarr, which every T5X opens. Hugging
  Face: the types as stored, the tokenizer, and README.md, the model card. To
  the terminal: what was found, what was assumed, what is left out
knobs:
  --set gives fields of the config: vocabulary_size (real ids),
  mlp_activations=silu,linear, relative_max_distance=128, … T5X keeps no sizes,
  they are read off the shapes; what the source says cannot be changed
resume:
  nothing to resume: what a kill left is removed when the same command is given
  again, which starts anew
{_CODES}
example:
  gkd convert flan_t5_small/checkpoint_1198000 --to=gkd --dry_run
  gkd convert flan_t5_small/checkpoint_1198000 models/flan_small --to=gkd \\
    --tokenizer=spiece.model
  gkd convert runs/gkd student --to=hf --license=apache-2.0
""",
  "list": f"""\
list tasks, models, methods, divergences or rewards

reads, writes:
  headers of the gin files in configs/, to the terminal; names are those that
  --gin_file and, of models, STUDENT_MODEL and TEACHER_MODEL take
{_CODES}
example:
  gkd list methods
""",
  "config": f"""\
print the effective configuration of a command

{_GIN}
reads, writes:
  what gkd train, evaluate or sample would read with the same flags (those
  that are not of gin change nothing); to the terminal, as one gin file: what
  config.gin of a run would be
knobs:
  those of the command, such as MODEL_DIR, in the headers of its gin files
resume:
  nothing to resume
{_CODES}
example:
  gkd config --gin_file=test/sft.gin --gin.MODEL_DIR=/tmp/gkd/teacher
""",
  "report": f"""\
turn run folders into one self-contained HTML page

reads:
  of each run or evaluation in the folders given, or up to two folders below:
  metrics.jsonl or metrics.json, config.gin, run.json, model-info.txt,
  predictions/ and samples/; results.json of a folder given. Never a model
writes:
  --output FILE, one page with tables, plots, what differs between the configs,
  the commands and configs. It needs no network; runs that differ in the
  seed alone count as repetitions of one run
resume:
  nothing to resume: drawn anew from the files each time, also of a run that is
  still going on or was killed; what is missing is said in the page
{_CODES}
example:
  gkd report runs/sft runs/gkd --output=report.html
  gkd report runs --output=report.html --plots=plots
""",
  "grid": f"""\
run a series of commands: stages, arms and seeds of one file

reads:
  FILE, a path, also below configs/: stages in TOML, each a gkd command (train,
  sample, evaluate or cache make) with gin files and values, for each seed and
  each value of its axes. See configs/test/grid.toml and docs/grids.md
writes:
  --output DIR: a folder for each job with what its command writes, its output
  in log.txt and, when it is done, done.json; over all jobs results.json, which
  gkd report DIR shows, and the same in table.csv. On the terminal the jobs that
  are done, the time left over all of them, and the step of those that run
knobs:
  the flags above, and what stands in FILE
resume:
  give the same command again: jobs that are done are kept, one that was cut
  goes on. Seeds, stages and axes may be added. Other settings of a job that is
  done are refused, as is a second grid in DIR. Where a job fails, those that
  need it are left out and the others go on
{_CODES}
example:
  gkd grid test/grid.toml --output=/tmp/gkd/grid --dry_run
  gkd grid test/grid.toml --output=/tmp/gkd/grid --workers=2
  gkd report /tmp/gkd/grid --output=/tmp/gkd/grid.html
""",
  "bench": f"""\
time the steps of a run, its start, evaluation and checkpoints

{_GIN}
  Or --size=NAME, one of gkd list models in any case, or tiny: an on-policy
  step of T5 with random weights and rows, which reads nothing.
reads:
  what gkd train would read with the same flags; --compare FILE
writes:
  --output FILE, JSON, and a summary to the terminal: wall and CPU time of each
  phase (input_pipeline, prefill, sample, score, update, on_policy_step,
  fixed_data_step, evaluation, checkpoint_save, checkpoint_restore), tokens a
  second, share of the machine's measured ceilings, peak memory, compile time;
  with --compare its ratios to an earlier one. No checkpoint is kept
knobs:
  the flags above; BATCH_SIZE, STUDENT_MODEL, TEACHER_MODEL and whatever else
  gkd train --help lists
resume:
  nothing to resume: given again it measures again
{_CODES}
example:
  gkd bench --size=tiny --output=/tmp/gkd/tiny.json
  gkd bench --size=t5_1_1_large --teacher_size=t5_1_1_xl --dtype=bfloat16 \\
    --batch_size=32 --input_length=512 --target_length=128
{_TEACHER}
  gkd bench --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/gkd/bench \\
    --gin.TEACHER_CHECKPOINT_PATH=/tmp/gkd/teacher --rounds=20
""",
}
