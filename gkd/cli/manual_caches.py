"""Help of `gkd cache` and its actions, see `gkd.cli.help_pages`."""

from gkd.cli.help_page import GIN
from gkd.cli.help_page import Page

PAGES = {
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
{GIN.strip()}

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
{GIN.strip()}

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
  made, and its state; nothing to disk. States: fresh; code fresh, raw files
  not tracked (its task did not say which it read); STALE, with what has
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
}
