"""Every gin file parses and builds its objects; no model is made."""

import dataclasses
from pathlib import Path
import re
from unittest import mock

import jax
import pytest

from gkd import partitioning
from gkd import trees
from gkd.config import configuration
from gkd.config import gin_table
from gkd.config.command_records import EvaluateConfig
from gkd.config.command_records import SampleConfig
from gkd.config.command_records import TrainConfig
from gkd.config.records import DataConfig
from gkd.experiments.grid import jobs
from gkd.losses import divergence
from gkd.losses import policy
from gkd.losses.minillm import MiniLLM
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.losses.skew import SkewKL
from gkd.losses.skew import SkewReverseKL
from gkd.models import t5
from gkd.rewards.text import ExactAnswer
from gkd.sampling.two_models import Interleaved
from gkd.sampling.two_models import Mixture
from gkd.training.rollout import Rollout
from gkd.training.schedules import Adaptive
from gkd.training.schedules import Linear
from gkd.training.scoring import Scoring
from gkd.types import LanguageModel
from gkd.types import UserError
from tests.cli.command_lines import train_config

FOLDER = configuration.config_folder()
FILES = sorted(p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.gin"))
TINY = ["STUDENT_MODEL=%TINY"]
STEPS = ["BATCH_SIZE=8", "TRAIN_STEPS=10", "LEARNING_RATE=0.1"]
TEACHER = ["TEACHER_MODEL=%TINY_TEACHER"]
# A config may leave these to the command line.
PATHS = (
  "MODEL_DIR",
  "OUTPUT_DIR",
  "INITIAL_CHECKPOINT_PATH",
  "TEACHER_CHECKPOINT_PATH",
  "ORACLE_CHECKPOINT_PATH",
  "REWARD_CHECKPOINT_PATH",
)
TINY_TASK = "test/tiny.gin"
ON_POLICY = "methods/gkd_on_policy.gin"
REVERSE = "divergences/reverse_kl.gin"
DISTILL = ["runs/distill.gin", TINY_TASK]
REWARDED = ["ALPHA=0.5", "REWARD=@text.ExactAnswer()"]
DISTILL_PATHS = ["MODEL_DIR=run", "TEACHER_CHECKPOINT_PATH=teacher"]
KINDS = {
  "runs/sft.gin": TrainConfig,
  "runs/distill.gin": TrainConfig,
  "runs/evaluate.gin": EvaluateConfig,
  "runs/sample.gin": SampleConfig,
}

SFT = TINY + STEPS
# What must stand beside a file: (files before, files after, bindings, class).
RECIPES = {
  "runs/sft.gin": ([], [TINY_TASK], SFT, TrainConfig),
  "runs/distill.gin": (
    [],
    [TINY_TASK, ON_POLICY, REVERSE],
    SFT + TEACHER,
    TrainConfig,
  ),
  "runs/evaluate.gin": ([], [TINY_TASK], TINY, EvaluateConfig),
  "runs/evaluate_against.gin": (
    ["runs/evaluate.gin"],
    [TINY_TASK],
    TINY + TEACHER,
    EvaluateConfig,
  ),
  "runs/oracle.gin": (
    ["runs/evaluate.gin"],
    [TINY_TASK],
    [*TINY, "ORACLE_MODEL=%TINY"],
    EvaluateConfig,
  ),
  "runs/sample.gin": ([], [TINY_TASK], TINY, SampleConfig),
  "methods/sft.gin": (["runs/train.gin", TINY_TASK], [], SFT, TrainConfig),
  **{
    f"methods/{name}.gin": ([*DISTILL, REVERSE], [], own, TrainConfig)
    for name, own in (
      ("rl_gkd", SFT + TEACHER + REWARDED),
      ("rlef", SFT + TEACHER + REWARDED),
      ("reinforce", SFT + REWARDED[1:]),
    )
  },
}


def recipe(file):
  """How to build with a file; None for one that others include."""
  if file in RECIPES:
    return RECIPES[file]
  kind = file.partition("/")[0]
  if kind == "methods":
    return ([*DISTILL, REVERSE], [], SFT + TEACHER, TrainConfig)
  if kind == "rewards":
    files = [*DISTILL, REVERSE, "methods/rl_gkd.gin"]
    return (files, [], SFT + TEACHER + REWARDED[:1], TrainConfig)
  if kind == "divergences":
    return ([*DISTILL, ON_POLICY], [], SFT + TEACHER, TrainConfig)
  if kind == "paper":
    return ([], [], [], TrainConfig)
  if kind in ("experiments", "test"):
    text = (FOLDER / file).read_text("utf-8")
    for run, cls in KINDS.items():
      if f"include '{run}'" in text:
        return ([], [], [], cls)
  return None


def build(file, bindings=()):
  before, after, own, cls = recipe(file)
  files = [*before, file, *after]
  configuration.load(files, [])
  read = gin_table.reachable(("", f"{cls.__module__}.{cls.__name__}"))
  names = {name for name, kind in read if kind == gin_table.MACRO}
  free = [n for n in PATHS if n in names and not gin_table.is_bound(n)]
  configuration.load(files, [*own, *(f"{n}=path" for n in free), *bindings])
  return configuration.build(cls)


BUILT = [file for file in FILES if recipe(file) is not None]
GRID_JOBS = [
  job
  for file in sorted(FOLDER.rglob("*.toml"))
  for job in jobs.read(file, Path("out")).jobs
  if job.axes.get("seed", 0) == 0 and job.command != "cache make"
]


@pytest.mark.parametrize("file", BUILT)
def test_builds(file):
  built = build(file)
  model = built.student.model
  params = jax.eval_shape(model.init, jax.random.key(0))
  assert trees.num_parameters(params) > 0


@pytest.mark.parametrize("job", GRID_JOBS, ids=lambda job: job.name)
def test_models_of_a_grid_have_their_sizes(job):
  configuration.load(job.gin_files, job.bindings)
  commands = {"train": TrainConfig, "evaluate": EvaluateConfig}
  built = configuration.build(commands.get(job.command, SampleConfig))
  for role in filter(None, (built.student, getattr(built, "teacher", None))):
    if isinstance(role.model, LanguageModel):
      assert trees.num_parameters(role.model.abstract_params) > 0


@pytest.mark.parametrize("file", ["test/distill.gin", "runs/sft.gin"])
def test_operative_configuration_builds_the_same_run(file, tmp_path):
  built = build(file)
  (tmp_path / "config.gin").write_text(configuration.operative())
  assert train_config(str(tmp_path / "config.gin")) == built


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("tasks/")])
def test_tasks_name_their_data(file):
  configuration.load(["runs/data.gin", file], [])
  scopes = ["eval"] + ["train"] * gin_table.is_bound("TRAIN_SPLIT")
  for scope in scopes:
    data = configuration.build(DataConfig, scope=scope)
    if data.own.files:
      continue
    assert data.module.startswith("gkd.tasks.")
    assert (FOLDER.parent / f"{data.module.replace('.', '/')}.py").is_file()


def test_every_file_is_built_or_included():
  tasks = {f for f in FILES if f.startswith("tasks/")}
  texts = [(FOLDER / f).read_text("utf-8") for f in FILES]
  in_grids = {file for job in GRID_JOBS for file in job.gin_files}
  in_grids = {file.removeprefix(f"{FOLDER}/") for file in in_grids}
  for file in set(FILES) - set(BUILT) - tasks - in_grids:
    assert any(f"include '{file}'" in text for text in texts), file


@pytest.mark.parametrize("file", FILES)
def test_header_says_how_to_use_it_and_what_to_expect(file):
  text = (FOLDER / file).read_text("utf-8")
  header = text.partition("\n\n")[0]
  assert all(line.startswith("#") for line in header.splitlines())
  uses = ("gkd ", "Included", "After runs/", "Use:", "launch/", "share")
  assert any(word in " ".join(header.split()) for word in uses)
  assert any(w in header for w in ("Expect:", "Metric:", "Sizes:", "Knobs:"))
  assert max(map(len, text.splitlines())) <= 80


def test_header_calls_the_script_of_real_tasks_with_an_action():
  headers = [(FOLDER / f).read_text("utf-8") for f in FILES]
  calls = re.findall(r"launch/real_tasks\.sh (\S+)", "\n".join(headers))
  assert {*calls} == {"data", "train"}


# Student's share of steps, divergence, whether ground truth is needed: GKD,
# section 4 and its table of methods.
@pytest.mark.parametrize(
  ("method", "fraction", "chosen", "needs_targets"),
  [
    ("supervised_kd", 0.0, divergence.ForwardKL(), True),
    ("imitkd", 0.5, divergence.ForwardKL(), True),
    ("f_distill", 0.5, divergence.TotalVariation(), True),
    ("gkd_supervised", 0.0, divergence.ReverseKL(), True),
    ("gkd_mixed", 0.5, divergence.ReverseKL(), True),
    ("gkd_on_policy", 1.0, divergence.ReverseKL(), False),
    ("self_distillation", 1.0, divergence.GeneralizedJSD(0.9), False),
    ("distillm", Adaptive(), SkewReverseKL(0.1), True),
  ],
)
def test_methods_are_the_papers(method, fraction, chosen, needs_targets):
  built = build(f"methods/{method}.gin")
  assert built.objective == Distillation(divergence=chosen)
  assert built.rollout.student_fraction == fraction
  assert built.rollout.needs_targets is needs_targets
  assert built.rollout.decoding.temperature == 1.0
  assert built.reduction == "sequence"


def test_distillm_2_has_a_divergence_for_each_half_of_a_batch():
  built = build("methods/distillm_2.gin", ["STUDENT_WEIGHT=1.2"])
  assert built.objective == Distillation(
    SkewKL(0.1), student_divergence=SkewReverseKL(0.1), student_weight=1.2
  )
  assert built.rollout.needs_teacher
  assert built.rollout.mixing == "example"
  assert "STUDENT_WEIGHT" not in dict(_idle(built))
  built = build("test/distill.gin", ["STUDENT_DATA_FRACTION=1"])
  assert dict(_idle(built))["STUDENT_WEIGHT"].endswith(
    "all text has one source"
  )


def _idle(config):
  return [(name, why) for names, why in config.idle() for name in names]


@pytest.mark.parametrize(
  ("method", "idle", "read"),
  [
    (
      "methods/teachers.gin",
      {"EVAL_TEACHER", "GUARD", "GUARD_Z"},
      {"TEACHER_TASK", "EVAL_TEACHER_CACHE"},
    ),
    ("methods/sdft.gin", {"GUARD", "GUARD_Z"}, {"EVAL_TEACHER"}),
  ],
)
def test_no_guard_follows_a_teacher_that_moves_or_one_of_several(
  method, idle, read
):
  teachers = ["TEACHERS={'a': 'x', 'b': 'y'}"] * ("teachers" in method)
  found = {*dict(_idle(build(method, teachers)))}
  assert found >= idle
  assert not found & read


def test_a_name_of_two_models_is_refused():
  built = build("methods/teachers.gin", ["TEACHERS={'a': 'x', 'b': 'y'}"])
  with pytest.raises(UserError, match=r"compared_with both have \['b'\]"):
    dataclasses.replace(built, compared_with={"b": built.teacher})


def test_eq_5_rewards_the_students_text_beside_its_teacher_or_anchor():
  own = Distillation(divergence.ReverseKL())
  built = build("methods/rl_gkd.gin")
  assert built.objective == policy.rewarded(0.5, own)
  assert built.scoring == Scoring(reward=ExactAnswer())
  assert built.rollout.student_fraction == 1.0
  assert built.samples_per_prompt == 4
  built = build("methods/rlef.gin")
  assert built.objective == policy.rewarded(0.5, own, anchor_share=1.0)
  assert built.compared_with["anchor"].checkpoint == built.student.checkpoint
  built = build("methods/reinforce.gin")
  assert built.objective == policy.Policy()
  assert built.teacher is None
  ends = {"0": {"ANCHOR_SHARE"}, "1": {"REWARD_SCALE", "BASELINE"}}
  for alpha, names in ends.items():
    built = build("methods/rl_gkd.gin", [f"ALPHA={alpha}"])
    assert {*dict(_idle(built))} >= names | {"GRADIENT_SHARE_PERIOD"}


def test_weights_of_a_sampler_are_rounded_where_the_student_writes():
  given = ["SAMPLING_DTYPE='bfloat16'"]
  built = build("methods/gkd_on_policy.gin", given)
  assert built.rollout == Rollout(1.0, sampling_dtype="bfloat16")
  built = build("methods/seqkd.gin", given)
  why = "STUDENT_DATA_FRACTION is 0 and the student writes nothing"
  assert dict(_idle(built))["SAMPLING_DTYPE"] == why


def test_text_of_student_and_teacher_together_is_the_papers():
  fields = ("start=0.2", "end=1.0", "begin_step=0", "end_step=9")
  own = [f"horizon/schedules.Linear.{field}" for field in fields]
  own.append("ROLLOUT_HORIZON=@horizon/schedules.Linear()")
  built = build("methods/skd.gin", own)
  assert built.objective == Distillation(divergence.ForwardKL())
  horizon = Linear(0.2, 1.0, 0, 9)
  expected = Rollout(1.0, proposal=Interleaved(25), horizon=horizon)
  assert built.rollout == expected
  built = build("methods/minillm.gin")
  assert built.objective == MiniLLM(length_normalised=True, ratio_clip=0.2)
  assert built.rollout == Rollout(1.0, proposal=Mixture(0.2))
  with pytest.raises(UserError, match="which draws with a teacher, but there"):
    dataclasses.replace(built, teacher=None)
  built = build("methods/minillm.gin", ["PROPOSAL=None"])
  assert dict(_idle(built))["RATIO_CLIP"].startswith("without a PROPOSAL,")
  stale = ["PROPOSAL=None", "ROLLOUT_STALENESS=1"]
  built = build("methods/minillm.gin", stale)
  assert built.rollout == Rollout(1.0, staleness=1)
  assert "RATIO_CLIP" not in dict(_idle(built))
  assert "ROLLOUT_STALENESS" in dict(_idle(build("methods/seqkd.gin", stale)))


def test_seqkd_is_cross_entropy_on_the_teachers_text():
  built = build("methods/seqkd.gin")
  assert built.objective == CrossEntropy()
  assert built.rollout.needs_teacher
  assert not built.rollout.needs_targets
  assert built.teacher is not None


def test_sft_has_neither_teacher_nor_rollout():
  built = build("runs/sft.gin")
  assert built.objective == CrossEntropy()
  assert built.teacher is None
  assert built.rollout is None


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_files_carry_their_beta(beta):
  built = build(f"divergences/jsd_{beta}.gin")
  assert built.objective.divergence == divergence.GeneralizedJSD(beta)


# A name for another name, which has the numbers.
@pytest.mark.parametrize(
  ("value", "width"),
  [("%FLAN_T5_XXL", 4096), ("%T5_1_1_SMALL", 512), ("T5_1_1_SMALL", 512)],
)
def test_a_size_is_named_with_or_without_the_mark_of_a_macro(value, width):
  bindings = [*STEPS, f"STUDENT_MODEL={value}", "MODEL_DIR=run"]
  student = train_config(["runs/sft.gin", TINY_TASK], *bindings).student.model
  assert student.config.emb_dim == width
  assert student.vocabulary_size == 32_100


def test_later_files_override_earlier_ones():
  files = ["test/distill.gin", "divergences/jsd_0.1.gin"]
  built = train_config(files, *DISTILL_PATHS, "DTYPE=bfloat16")
  assert built.objective.divergence == divergence.GeneralizedJSD(0.1)
  assert built.student.model.config.dtype == "bfloat16"
  assert isinstance(built.student.model.config, t5.T5Config)


def test_components_need_no_file_that_mentions_them():
  built = build(
    "test/distill.gin",
    [
      "DIVERGENCE=@divergence.GeneralizedJSD()",
      "divergence.GeneralizedJSD.beta=0.3",
      "STUDENT_DATA_FRACTION=@schedules.Linear()",
      "schedules.Linear.start=0.0",
      "schedules.Linear.end=1.0",
      "schedules.Linear.begin_step=0",
      "schedules.Linear.end_step=10",
    ],
  )
  assert built.objective.divergence == divergence.GeneralizedJSD(0.3)
  assert built.rollout.schedule(5) == pytest.approx(0.5)


def test_a_folder_named_like_ours_does_not_hide_the_configs(
  tmp_path, monkeypatch
):
  (tmp_path / "runs").mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  assert build("test/sft.gin").train_steps == 20


def load_own(folder, text, bindings=("MODEL_DIR=run",)):
  """Loads a user's file, which stands outside of configs/."""
  file = folder / "mine.gin"
  file.write_text(text)
  configuration.load([str(file)], bindings)


def test_misspelt_macro_in_a_users_file_is_refused(tmp_path):
  text = "include 'test/sft.gin'\nTRIAN_STEPS = 2\n"
  message = r"mine.gin: nothing reads 'TRIAN_STEPS' \(did you mean TRAIN_STEPS"
  with pytest.raises(UserError, match=message):
    load_own(tmp_path, text)
  # Also in a file that the user's file includes.
  (tmp_path / "part.gin").write_text("TRIAN_STEPS = 2\n")
  with pytest.raises(UserError, match=r"part.gin: nothing reads 'TRIAN_STEPS'"):
    load_own(tmp_path, f"include '{tmp_path / 'part.gin'}'\n", [])


def test_all_unknown_macros_are_told_in_one_message(tmp_path):
  text = "include 'test/sft.gin'\nUSE_CACHED_TASKS = True\nTRIAN_STEPS = 2\n"
  bindings = ["MODEL_DIR=run", "CHECKPOINT_PATH=a", "MY=1", "DROPOUT_RTE=0.1"]
  message = (
    r"^--gin: CHECKPOINT_PATH is called INITIAL_CHECKPOINT_PATH here, nothing"
    r" reads 'MY', nothing reads 'DROPOUT_RTE' \(did you mean DROPOUT_RATE\?\);"
    r" .*mine\.gin: nothing reads 'TRIAN_STEPS' \(did you mean TRAIN_STEPS.*"
    r" USE_CACHED_TASKS of T5X has no counterpart; correct or leave out"
  )
  with pytest.raises(UserError, match=message):
    load_own(tmp_path, text, bindings)


@pytest.mark.parametrize(
  ("line", "module"),
  [
    ("MIXTURE_OR_TASK_MODULE = 'my.tasks'", "my.tasks"),
    ("TASK_MODULE = 'my.tasks'", "my.tasks"),
    ("MIXTURE_OR_TASK_MODULE = None", None),
    ("", ""),
  ],
)
def test_the_module_of_tasks_has_the_name_of_t5x_too(line, module, tmp_path):
  text = f"""
include 'runs/data.gin'
MIXTURE_OR_TASK_NAME = 'task'
TASK_FEATURE_LENGTHS = {{'inputs': 8, 'targets': 8}}
TRAIN_SPLIT = 'train'
{line}
"""
  load_own(tmp_path, text, [])
  assert configuration.build(DataConfig, "train").module == module


@pytest.mark.parametrize(
  "line", ["from t5x import utils", "include 't5x/configs/runs/finetune.gin'"]
)
def test_files_and_components_of_t5x_are_not_read(line, tmp_path):
  text = f"from __gin__ import dynamic_registration\n{line}\n"
  with pytest.raises(UserError, match="of T5X are not read, see docs/from_t5x"):
    load_own(tmp_path, text)


def test_names_that_a_users_file_may_set(tmp_path):
  own = """
include 'test/sft.gin'
WIDTH = 8  # a name of the user's own
STUDENT_MODEL = {'vocab_size': 18, 'emb_dim': %WIDTH, 'num_heads': 2,
                 'head_dim': 8, 'mlp_dim': 32, 'num_encoder_layers': 1,
                 'num_decoder_layers': 1, 'mlp_activations': ('relu',),
                 'logits_via_embedding': True}
OUTPUT_DIR = 'for gkd sample'
"""
  load_own(tmp_path, own)
  assert configuration.build(TrainConfig).student.model.config.emb_dim == 8
  # A flag may be what asks for it.
  load_own(
    tmp_path,
    "include 'test/sft.gin'\nSMALLER = %TINY\n",
    ["MODEL_DIR=run", "STUDENT_MODEL=%SMALLER"],
  )
  assert configuration.build(TrainConfig).student.model.config.emb_dim == 16


@pytest.mark.parametrize(
  "binding",
  [
    "TEACHER_TEMPERATURE=0.1",
    "STUDENT_TEMPERATURE=0.1",
    "CHUNK_SIZE=4",
    "STUDENT_WEIGHT=1.5",
    "STUDENT_DIVERGENCE=@divergence.ForwardKL()",
    "DIVERGENCE=@divergence.ForwardKL()",
  ],
)
def test_choices_that_cross_entropy_does_not_read_are_refused(
  binding, tmp_path
):
  name = binding.partition("=")[0]
  files = ["test/distill.gin", "methods/seqkd.gin"]
  with pytest.raises(UserError, match=f"--gin.{name} has no effect"):
    train_config(files, *DISTILL_PATHS, binding)
  for run in (["test/sft.gin"], files):
    text = f"""
from __gin__ import dynamic_registration
from gkd.losses import divergence
{"".join(f"include '{file}'" + chr(10) for file in run)}
{binding}
"""
    paths = DISTILL_PATHS if run == files else DISTILL_PATHS[:1]
    load_own(tmp_path, text, paths)
    with pytest.raises(UserError, match=f"{name} in .*mine.gin has no effect"):
      configuration.build(TrainConfig)
  # Where it is read it counts.
  objective = train_config(files[0], *DISTILL_PATHS, binding).objective
  assert objective != Distillation(divergence=divergence.ReverseKL())


def test_flag_of_a_component_that_is_not_chosen_is_refused():
  beta = "divergence.GeneralizedJSD.beta=0.3"
  with pytest.raises(UserError, match=f"--gin.{beta[:-4]} has no effect"):
    train_config("test/distill.gin", *DISTILL_PATHS, beta)


def test_scoped_flag_reaches_its_model_alone():
  width = "student/model_spec.t5.dropout_rate=0.2"
  built = train_config("test/distill.gin", *DISTILL_PATHS, width)
  assert built.student.model.config.dropout_rate == 0.2
  assert built.teacher.model.config.dropout_rate == 0.0


def test_a_teacher_that_answers_must_be_there():
  configuration.load(
    ["test/distill.gin", "methods/seqkd.gin"],
    ["MODEL_DIR=run", "command_records.TrainConfig.teacher=None"],
  )
  message = "OFF_POLICY_SOURCE is 'teacher' but there is no teacher"
  with pytest.raises(UserError, match=message):
    configuration.build(TrainConfig)


def test_a_default_stands_in_the_field_of_a_record_alone():
  """Macros that a run file sets itself have no default in their field."""
  configuration.load(["runs/distill.gin"], [])
  with_value = {name for name in gin_table.bound_macros() if name.isupper()}
  assert {"KEEP", "EVAL_PERIOD", "BATCH_SIZE"} - with_value == {"BATCH_SIZE"}
  files = [FOLDER / "models/t5.gin", *(FOLDER / "runs").glob("*.gin")]
  own = {name for file in files for name in gin_table.macros_of(file)}
  assert own == {
    "EVAL_TASK",  # that of training
    "INITIAL_CHECKPOINT_PATH",  # required but for training
    "OBJECTIVE",
    "OPTIMIZER",
    "ORACLE",
    "STUDENT",
    "TASK_MODULE",  # T5X's MIXTURE_OR_TASK_MODULE
    "TEACHER",
  }


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ("EVAL_ALSO", "EVAL_SPLITS"),
    ("GRANULARITY", "MIXING"),
    ("FIXED_SOURCE", "OFF_POLICY_SOURCE"),
    ("FIRST_STEP", "INITIAL_STEP"),
    ("TRAIN_STEPS_RELATIVE", "TRAIN_STEPS"),
    ("lmbda", "STUDENT_DATA_FRACTION"),
    ("lr", "LEARNING_RATE"),
  ],
)
def test_another_name_of_a_macro_is_refused_with_ours(old, new, tmp_path):
  message = f"{old} is called {new} here"
  with pytest.raises(UserError, match=message):
    configuration.load(["test/distill.gin"], [f"{old}=None"])
  with pytest.raises(UserError, match=f"mine.gin: {message}"):
    load_own(tmp_path, f"include 'test/distill.gin'\n{old} = None\n")


@pytest.mark.parametrize(
  ("binding", "message"),
  [
    ("TEACHER_TEMPERATURE=0", "TEACHER_TEMPERATURE is 0; expected a number ab"),
    ("CHUNK_SIZE=0", "CHUNK_SIZE is 0; expected a whole number of positions"),
    ("SAMPLING_TOP_P=3", "SAMPLING_TOP_P is 3; expected a probability"),
    ("CLIP_NORM=-1", "CLIP_NORM is -1; expected a number above 0"),
    ("DIVERGENCE=@divergence.ReverseKL", "DIVERGENCE is .*; expected a Diver"),
    ("OVERLONG=cut", "OVERLONG is 'cut'; expected one of 'truncate', 'tr"),
    ("EVAL_TEMPERATURES=(-1,)", "a temperature of EVAL_TEMPERATURES is -1.0;"),
    (
      "divergence.GeneralizedJSD.beta=a",
      "beta is 'a'; expected a number: give a value of that type",
    ),
  ],
)
def test_messages_name_the_macro_and_not_the_field(binding, message):
  jsd = "DIVERGENCE=@divergence.GeneralizedJSD()"
  bindings = [*DISTILL_PATHS, *[jsd] * ("beta" in binding), binding]
  with pytest.raises(UserError, match=f"^(GeneralizedJSD.)?{message}"):
    train_config("test/distill.gin", *bindings)


def test_the_teachers_parameters_have_a_type_of_their_own():
  def teacher(*bindings):
    return train_config("test/distill.gin", *DISTILL_PATHS, *bindings).teacher

  assert teacher().dtype is None
  assert teacher("TEACHER_DTYPE=bfloat16").dtype == "bfloat16"
  with pytest.raises(UserError, match="TEACHER_DTYPE is 'float16'; expected"):
    teacher("TEACHER_DTYPE=float16")


def test_the_teacher_waits_in_memory_that_its_devices_have():
  def config(memory):
    binding = f"TEACHER_MEMORY={memory}"
    return train_config("test/distill.gin", *DISTILL_PATHS, binding)

  with pytest.raises(UserError, match="TEACHER_MEMORY is 'disk'; expected"):
    config("disk")
  role = config("pinned_host").teacher
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  assert role.on_mesh(role.model, "teacher", mesh).memory == "pinned_host"
  with pytest.raises(UserError, match="and the student learns"):
    role.on_mesh(role.model, "student", mesh)
  memories = mock.Mock(return_value=[mock.Mock(kind="device")])
  device = mock.Mock(addressable_memories=memories, device_kind="TPU v0")
  with pytest.raises(UserError, match="but TPU v0 devices have only device;"):
    role._check_memory("teacher", device)
