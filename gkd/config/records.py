"""Records of a configuration: data and evaluation, as gin binds them.

Fields are set by the macros of `configs/runs/`, whose headers document them; a
default stands in a field here and nowhere else.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

from gkd import files
from gkd.config.teacher_prompts import TeacherPrompts
from gkd.data import task_functions
from gkd.data.builder.lookup import CacheSpec
from gkd.data.builder.lookup import Overlong
from gkd.data.cache import TokenCache
from gkd.data.subset import Subset
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.sequence_distance import Distance
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.sampling.strategies import Strategy
from gkd.text.characters import checked_extra_ids
from gkd.text.data_files import DataFiles
from gkd.types import UserError

# By the names that strategies have for their numbers.
_DECODING_MACROS = {
  "decoding temperature": "a temperature of EVAL_TEMPERATURES",
  "beam size": "EVAL_BEAM_SIZE",
  "beam alpha": "EVAL_BEAM_ALPHA",
}
# Macros that have no effect in a run, and the reason.
Idle = Iterator[tuple[Sequence[str], str]]
# The second is T5X's name of the first.
MODULE_MACROS = ("TASK_MODULE", "MIXTURE_OR_TASK_MODULE")

# Where more fails late, out of memory, or does not end within a day.
MOST_ROWS = 1 << 16  # of a batch, which is read row by row
MOST_DRAWS = 1 << 20  # the draws of `evaluate` have as many numbers
_MOST_TOKENS = 1 << 20  # of a text

_EVAL_SPLIT = re.compile(
  r"(?:(?P<module>[\w.]+):)?(?P<task>[^/:\s]+)/(?P<split>[^/\s]+)"
)


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where raw files ("" for nowhere) and token caches are on this machine."""

  data_dir: str
  cache_dir: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """One split of one task, tokenised; see `configs/runs/data.gin`.

  Attributes:
    vocabulary: "bytes", "characters:…", a SentencePiece file, relative to the
      working folder or to the data folder, or a folder with a tokenizer;
      "" or None takes that of the model's checkpoint.
    chat_format: what stands around a prompt, see `gkd.text.chat_formats`.
    extra_ids: T5's sentinels at the end (100 for T5); a folder says its own.
    cache: folder of a token cache to read instead, several to mix, or folders
      with their rates; "" finds or makes the one of task, split, lengths and
      vocabulary.
    own: files of your own that the task is made of; without them `module`
      registers it.
    teacher_prompts: what the teacher reads in place of the inputs.
  """

  task: str
  split: str
  lengths: Mapping[str, int]
  module: str | None = ""
  vocabulary: str | None = ""
  extra_ids: int = 0
  chat_format: str = ""
  overlong: Overlong = CacheSpec.overlong
  cache: str | Sequence[str] | Mapping[str, float] = ""
  mixture: Mapping[str, float] | None = None
  subset: Subset = dataclasses.field(default_factory=Subset)
  own: DataFiles = dataclasses.field(default_factory=DataFiles)
  teacher_prompts: TeacherPrompts = dataclasses.field(
    default_factory=TeacherPrompts
  )

  def __post_init__(self):
    if {*self.lengths} - {"teacher_inputs"} != {"inputs", "targets"} or not all(
      1 <= length <= _MOST_TOKENS for length in self.lengths.values()
    ):
      raise UserError(
        f"TASK_FEATURE_LENGTHS is {dict(self.lengths)}; expected"
        f" {{'inputs': I, 'targets': T}} with lengths of 1 to {_MOST_TOKENS:,}"
      )
    checked_extra_ids(self.extra_ids)
    if self.own.files and self.module:
      raise UserError(
        f"DATA_FILES and TASK_MODULE {self.module!r} are both given; give one:"
        " a task is made of files, or registered by a module"
      )
    if not self.cache and not self.task:
      raise UserError(
        "MIXTURE_OR_TASK_NAME is empty; give the name of a task or the folder"
        " of a token cache"
      )
    if self.mixture is not None and self.cache:
      raise UserError(
        f"MIXTURE and TRAIN_CACHE {self.cache!r} are both given; give one of"
        " the two: TRAIN_CACHE takes folders with their rates as well"
      )
    if self.mixture is not None and not self.mixture:
      raise UserError(
        "MIXTURE is empty; give tasks with their rates, as {'gsm8k': 3,"
        " 'chain_addition': 1}, or None"
      )
    given = self.teacher_prompts.macros
    if given and "teacher_inputs" not in self.lengths:
      raise UserError(
        f"TASK_FEATURE_LENGTHS is {dict(self.lengths)} but {given[0]} is given;"
        " add 'teacher_inputs', the length of the teacher's prompts"
      )

  @property
  def of_teacher(self) -> "DataConfig | None":
    """The data whose inputs the teacher reads; None for the same."""
    prompts, lengths = self.teacher_prompts, dict(self.lengths)
    if not prompts.macros:
      return None
    lengths["inputs"] = lengths.pop("teacher_inputs")
    return dataclasses.replace(
      self,
      lengths=lengths,
      teacher_prompts=TeacherPrompts(),
      **prompts.fields(self.task, self.cache, self.own),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """How a model is evaluated by generation; see `configs/runs/scoring.gin`.

  Attributes:
    data: where the prompts and references are.
    eval_splits: more splits: "task/split" of the module of `data`,
      "module:task/split", or the folder of a token cache, beginning with / or
      ./ or ~; lengths and vocabulary are those of `data`, and the teacher reads
      the same prompts as the student.
  """

  data: DataConfig
  eval_splits: Sequence[str] = ()
  batch_size: int = 32
  num_examples: int | None = Evaluation.num_examples
  temperatures: Sequence[float] = (0.0,)
  beam_size: int = 0
  beam_alpha: float = BeamSearch.alpha
  num_samples: int = Evaluation.num_samples
  chunk_size: int | None = 64
  bootstrap: int = Evaluation.bootstrap
  teacher: bool = Evaluation.score_teacher
  distances: Sequence[str] = Evaluation.distances

  def __post_init__(self):
    at_least_one(
      EVAL_EXAMPLES=self.num_examples, EVAL_CHUNK_SIZE=self.chunk_size
    )
    check_range(1, MOST_ROWS, EVAL_BATCH_SIZE=self.batch_size)
    check_range(1, MOST_DRAWS, EVAL_SAMPLES=self.num_samples)
    check_range(0, MOST_DRAWS, EVAL_BOOTSTRAP=self.bootstrap)
    _ = [Distance.named(name) for name in self.distances]  # refuses others
    splits = tuple(self.eval_splits)
    if len(set(splits)) < len(splits):
      raise UserError(f"EVAL_SPLITS is {splits}; give each split once")
    if self.data.mixture is not None or not isinstance(self.data.cache, str):
      raise UserError(
        "evaluation is of one task and split at a time; name one in EVAL_TASK,"
        " EVAL_SPLIT or EVAL_CACHE and the others in EVAL_SPLITS"
      )
    _ = self.splits, self.strategies  # both refuse what they cannot read

  @property
  def splits(self) -> list[DataConfig]:
    """`data`, then one for each entry of `eval_splits`."""
    more = map(_named_split, self.eval_splits)
    return [self.data, *(dataclasses.replace(self.data, **x) for x in more)]

  @property
  def strategies(self) -> list[Strategy]:
    """Decoding strategies, one evaluation each: temperatures, then the beams.

    Raises:
      UserError: a wrong value, none at all, or one that does nothing.
    """
    temperatures = tuple(self.temperatures)
    strategies: list[Strategy] = [
      SamplingParams(float(value)) for value in temperatures
    ]
    if self.beam_size:
      strategies.append(BeamSearch(self.beam_size, self.beam_alpha))
    for strategy in strategies:
      try:
        strategy.validate()
      except UserError as error:
        name, _, problem = str(error).partition(" is ")
        raise UserError(f"{_DECODING_MACROS[name]} is {problem}") from error
    if not strategies:
      raise UserError(
        "EVAL_TEMPERATURES is empty and EVAL_BEAM_SIZE 0, so nothing would be"
        " decoded; give a temperature or a beam size"
      )
    # Metrics and files are named by the label.
    if len({strategy.label for strategy in strategies}) < len(strategies):
      raise UserError(
        f"EVAL_TEMPERATURES are {temperatures}; give each temperature once,"
        " EVAL_SAMPLES for several answers"
      )
    if self.num_samples > 1 and not any(x.is_random for x in strategies):
      greedy = "greedy answers" if temperatures else "the answers"
      raise UserError(
        f"EVAL_SAMPLES is {self.num_samples} but {greedy} are all the same;"
        " give a temperature above 0 in EVAL_TEMPERATURES"
      )
    return strategies

  def idle(self, roles: Collection[str]) -> Idle:
    """Macros that have no effect where there are models of these roles."""
    if not self.beam_size:
      why = "EVAL_BEAM_SIZE is 0, so there is no beam search"
      yield ["EVAL_BEAM_ALPHA"], why
    if "teacher" not in roles:
      macros = ["EVAL_TEACHER", "TEACHER_TASK", "TEACHER_INPUTS"]
      yield [*macros, "EVAL_TEACHER_CACHE"], "there is no teacher"
    if len(roles) == 1:
      yield ["EVAL_CHUNK_SIZE", "EVAL_DISTANCES"], "there is no teacher"
    if self.data.cache:
      why = "EVAL_CACHE is given and holds its task and split"
      yield ["EVAL_SPLIT", "EVAL_TASK"], why


def idle_in_caches(
  train: DataConfig | None, evaluation: Iterable[DataConfig] = ()
) -> Idle:
  """Macros that only the making of a token cache reads, where all are given."""
  if train is not None and train.cache:
    yield ["TRAIN_SPLIT"], "TRAIN_CACHE is given and holds its split"
  evaluation = list(evaluation)
  if all(data.cache for data in [train, *evaluation] if data is not None):
    names = ["MIXTURE_OR_TASK_NAME", "OVERLONG", "DATA_FILES", "CHAT_FORMAT"]
    names += [] if any(map(_allows_functions, evaluation)) else MODULE_MACROS
    yield names, "token caches are given, and nothing is tokenised"


def _allows_functions(data: DataConfig) -> bool:
  """Whether a given cache needs TASK_MODULE to name its functions' package."""
  folder = files.local_path(data.cache)
  if not folder.is_dir():  # said when it is opened; a grid's may come later
    return True
  info = TokenCache(folder).info
  package = (data.module or "").partition(".")[0]
  needed = {*task_functions.packages(info).values()} - {"gkd"}
  return package in needed


def at_least_one(**values: int | None) -> None:
  """Refuses numbers below 1, by the names of their macros."""
  for name, value in values.items():
    if value is not None and value < 1:
      raise UserError(f"{name} is {value}; give at least 1")


def check_range(least: int, most: int, **values: int) -> None:
  """Refuses numbers out of range, by the names of their macros."""
  for name, value in values.items():
    if not least <= value <= most:
      raise UserError(f"{name} is {value}; give {least} to {most:,}")


def check_seed(value: int) -> None:
  """Refuses what compiled programs cannot take as a signed 32-bit number."""
  if not 0 <= value < 1 << 31:
    raise UserError(f"RANDOM_SEED is {value}; give 0 to {(1 << 31) - 1}")


def _named_split(entry: str) -> dict[str, str]:
  """The fields of `DataConfig` that an entry of EVAL_SPLITS sets."""
  if entry.startswith(("/", "./", "../", "~")):
    none = {"task": "", "split": "", "module": ""}
    return {**none, "cache": entry, "teacher_prompts": TeacherPrompts()}
  match = _EVAL_SPLIT.fullmatch(entry)
  if match is None:
    raise UserError(
      f"EVAL_SPLITS has {entry!r}; expected 'task/split', 'module:task/split'"
      " or the folder of a token cache, beginning with / or ./ or ~"
    )
  fields = {name: value for name, value in match.groupdict().items() if value}
  own = {"own": DataFiles()} if "module" in fields else {}
  return {**fields, **own, "cache": "", "teacher_prompts": TeacherPrompts()}
