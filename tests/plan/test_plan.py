"""`gkd plan` on the suite's four virtual devices."""

import json
import re

import jax
import pytest

from gkd import partitioning
from gkd.cli.main import main
from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.plan import estimate
from gkd.plan import programs
from gkd.plan import topology
from gkd.types import UserError
from tests.checkpoints import tiny_models

FLAGS = [
  "--gin_file=test/distill.gin",
  "--gin.TEACHER_MODEL=%TINY_TEACHER",  # so that no path is asked for
  "--gin.CHUNK_SIZE=3",
  "--gin.BATCH_SIZE=20",  # no other dimension is as long
]

SELF = ["--gin.TEACHER_CHECKPOINT_PATH=", "--gin.OFF_POLICY_SOURCE=teacher"]
TOLD = [
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 32,"
  " 'teacher_inputs': 24}",
  "--gin.TEACHER_TASK=told",
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
  """Plans the run with more flags, under a name."""
  folder = tmp_path_factory.mktemp("plans")

  def plan(name, *flags):
    path = folder / f"{name}.json"
    argv = ["plan", "--topology=cpu:4", f"--output={path}", *FLAGS, *flags]
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(topology, "prepare", lambda name: None)  # they are here
      assert main(argv) == 0
    return json.loads(path.read_text())

  return plan


@pytest.fixture(scope="module")
def planned(plan):
  """{name: plan} of the same run on different meshes."""
  return {
    "copies": plan("copies"),
    "shared": plan("shared", "--gin.FSDP_PARALLELISM=2"),
    "mixed": plan(
      "mixed",
      "--gin.FSDP_PARALLELISM=2",
      "--gin.MODEL_PARALLELISM=2",
      "--gin.TEACHER_MEMORY=pinned_host",
    ),
    "looped": plan(
      "looped", "--gin.FSDP_PARALLELISM=4", "--gin.SCAN_LAYERS=True"
    ),
  }


def test_devices_that_share_parameters_hold_their_part(planned):
  def held(name):
    return planned[name]["programs"]["update"]["bytes"]

  for what in ("student", "teacher", "optimizer"):
    whole = held("copies")[what]
    assert 0.5 * whole <= held("shared")[what] < 0.55 * whole
    assert 0.25 * whole <= held("looped")[what] < 0.3 * whole


def test_an_average_counts_as_a_teacher_and_a_live_one_as_none(plan):
  plans = {
    "averaged": plan("averaged", *SELF, "--gin.TEACHER_DECAY=0.9"),
    "live": plan("live", *SELF, "--gin.TEACHER_DECAY=0", *TOLD),
  }
  for name, made in plans.items():
    for program in ("sample", "teacher", "update"):
      held = made["programs"][program]["bytes"]
      assert held["teacher"] == held["student"] * (name == "averaged")
      parts = ("student", "optimizer", "teacher")
      assert held["peak"] >= sum(held[part] for part in parts)
  peaks = [
    plans[name]["programs"]["update"]["bytes"]["peak"]
    for name in ("live", "averaged")
  ]
  assert peaks[0] < peaks[1]


def test_teachers_by_row_count_each_and_work_like_one(plan, planned):
  plans = {
    number: plan(f"{number} teachers", "--gin_file=methods/teachers.gin", names)
    for number, names in (
      (1, "--gin.TEACHERS={'a': 'x'}"),
      (2, "--gin.TEACHERS={'a': 'x', 'b': 'y'}"),
    )
  }
  held = [plans[n]["programs"]["update"]["bytes"]["teacher"] for n in (1, 2)]
  assert held[1] == 2 * held[0] > 0
  work = [plans[n]["programs"]["update"]["flops"] for n in (1, 2)]
  assert work[0] < work[1] < 1.2 * work[0]  # 24 rows of teachers for 20
  # Biases by position are computed for each block.
  alone = planned["copies"]["programs"]["update"]["flops"]
  assert work[0] == pytest.approx(alone, rel=0.03)
  assert logits_moved(plans[2]) == []


def test_a_save_of_stacks_holds_the_state_twice(planned):
  assert "save" not in planned["shared"]["programs"]
  held = planned["looped"]["programs"]["save"]["bytes"]
  copy = held["student"] + held["optimizer"]
  assert copy < held["temporary"] < 1.01 * copy  # the step's number
  assert held["peak"] == copy + held["teacher"] + held["temporary"]


def test_the_peak_of_sampling_counts_the_teacher_that_waits(planned):
  held = planned["copies"]["programs"]["sample"]["bytes"]
  parts = ("student", "optimizer", "teacher", "temporary")
  assert held["peak"] >= sum(held[name] for name in parts)


def test_a_teacher_on_the_host_is_not_in_the_peak_of_sampling(planned):
  held = planned["mixed"]["programs"]["sample"]["bytes"]
  whole = planned["copies"]["programs"]["sample"]["bytes"]["teacher"]
  assert held["teacher"] == 0
  assert 0.25 * whole <= held["host"] < 0.3 * whole
  on_device = sum(held[x] for x in ("student", "optimizer", "temporary"))
  assert on_device <= held["peak"] < on_device + 0.5 * held["host"]  # batch


@pytest.mark.parametrize("name", ["shared", "looped"])
@pytest.mark.parametrize("program", ["sample", "update"])
def test_no_collective_carries_the_rows_of_the_whole_batch(
  planned, name, program
):
  plan = planned[name]
  collectives = plan["programs"][program]["collectives"]
  assert any(c["kind"] == "all-gather" for c in collectives)  # of parameters
  rows = f"[{plan['batch_size']},"
  # Ids of filler rows are compared; nothing with a second axis moves.
  assert [c for c in collectives if rows in c["shape"]] == []


@pytest.mark.parametrize("name", ["copies", "shared", "looped", "mixed"])
def test_no_collective_of_an_update_carries_logits(planned, name):
  assert logits_moved(planned[name]) == []


def logits_moved(plan):
  shapes = {c["shape"] for c in plan["programs"]["update"]["collectives"]}
  # [B, positions, V] or in blocks, the vocabulary whole or halved.
  return [s for s in shapes if re.search(r"\[(\d+,){2,}(18|9)\]", s)]


def gathers(plan, program):
  found = plan["programs"][program]["collectives"]
  return [c for c in found if c["kind"] == "all-gather"]


@pytest.mark.parametrize("name", ["shared", "looped"])
def test_a_sampler_gathers_the_parameters_once(planned, name):
  moved = sum(c["count"] * c["size"] for c in gathers(planned[name], "sample"))
  whole = planned["copies"]["programs"]["sample"]["bytes"]["student"]
  assert 0.8 * whole < moved < 1.1 * whole


@pytest.mark.parametrize("name", ["shared", "looped"])
def test_heads_are_gathered_once_for_all_chunks(planned, name):
  heads = [
    c for c in gathers(planned[name], "update") if c["shape"].endswith(",18]")
  ]
  assert [c["count"] for c in heads] == [1, 1]  # of teacher and student


def test_a_plan_counts_the_work_once(planned):
  flops = {
    program: {plan["programs"][program]["flops"] for plan in planned.values()}
    for program in ("sample", "update")
  }
  assert all(len(values) == 1 for values in flops.values())


def test_a_student_out_of_the_teacher_has_its_layers(tmp_path):
  teacher = tiny_models.make(num_encoder_layers=3, num_decoder_layers=3)
  tiny_models.save(tmp_path / "teacher", teacher)
  bindings = [
    *("MODEL_DIR=plan", "STUDENT_MODEL=None", "TEACHER_MODEL=None"),
    *(f"TEACHER_CHECKPOINT_PATH={tmp_path / 'teacher'}", "KEEP_LAYERS='0,2'"),
  ]
  configuration.load(["test/distill.gin"], bindings)
  config = configuration.build(TrainConfig)
  models = programs.models(config, partitioning.make_mesh())
  layers = {n: model.config.num_decoder_layers for n, model in models.items()}
  assert layers == {"student": 2, "teacher": 3}


def test_one_of_several_teachers_without_sizes_is_named():
  configuration.load(
    ["test/distill.gin", "methods/teachers.gin"],
    ["MODEL_DIR=plan", "TEACHER_MODEL=None", "TEACHERS={'a': ''}"],
  )
  config = configuration.build(TrainConfig)
  message = r"give TEACHERS\['a'\], or --gin.TEACHER_MODEL="
  with pytest.raises(UserError, match=message):
    programs.models(config, partitioning.make_mesh())


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
  tmp_path, capsys
):
  flags = ["--gin_file=test/sft.gin", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
  flags += [f"--cache_dir={tmp_path}"]
  assert main(["train", "--dry_run", *flags]) == 0
  out = capsys.readouterr().out
  for part in (
    "TRAIN_STEPS = 20",
    "objective: cross-entropy",
    "temporary, MiB",
  ):
    assert part in out
  assert "teacher, MiB" not in out  # there is none
  macros = out.partition("\n\n")[0].splitlines()
  assert all(re.match(r"[A-Z][A-Z0-9_]* = ", line) for line in macros)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "name", ["v5e", "v5e:4", "v5p:4x4", "v7x:2x2", "cpu:0", "h200:2x2", "cpu"]
)
def test_topologies_that_there_are_not_are_refused(name):
  with pytest.raises(UserError, match=f"--topology '{name}'; expected a slice"):
    topology.chip(name)


def test_a_program_that_does_not_fit_gets_advice_and_no_time():
  class Traced:
    jaxpr = jax.make_jaxpr(lambda x: x)(1.0)

    def lower(self):
      raise jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory"
        " required for HLO temporaries (20.62G) exceeds available HBM (15.75G)."
      )

  gib = 2**30
  known = programs.Memory(student=gib, optimizer=gib, teacher=4 * gib)
  program = programs._program("update", Traced(), known, 1)
  assert not program.fits
  assert program.memory.temporary == int(20.62 * gib)
  assert program.memory.peak == 6 * gib + int(20.62 * gib)
  bindings = ["TEACHER_MODEL=%TINY_TEACHER", "MODEL_DIR=plan"]
  bindings.append("TEACHER_CHECKPOINT_PATH=none")
  configuration.load(["test/distill.gin"], bindings)
  config = configuration.build(TrainConfig)
  fits = program._replace(name="sample", fits=True)
  told = estimate.summary(
    config,
    "v5e:2x2",
    partitioning.make_mesh(),
    [fits._replace(memory=known), program],
    topology.chip("v5e:2x2"),
  )
  assert not told["fits"]
  assert "step_seconds" not in told
  first, second, *_ = told["advice"]
  assert first.startswith("update needs 26.62 of 15.75 GiB; 20.62 for temp")
  assert "4.00 for the teacher" in second
  assert "NO" in estimate.table(told)


def test_gpus_of_several_machines_are_refused():
  with pytest.raises(UserError, match="expected up to 8 GPUs"):
    topology.chip("h200:16")
