"""A file of stages, axes and seeds becomes the right commands, or one line."""

import pathlib

import pytest

from gkd.errors import UserError
from gkd.experiments.grid import jobs

OUTPUT = pathlib.Path("/out")
GRID = """
title = "Hacking"
seeds = [3, 1]
gin_files = ["common.gin"]

[stages.scores]
command = "evaluate"
set = {INITIAL_CHECKPOINT_PATH = "{distil}"}

[stages.teacher]
command = "train"
once = true
gin_files = ["runs/sft.gin"]

[stages.answers]
command = "sample"
set = {INITIAL_CHECKPOINT_PATH = "{teacher}"}
axes.NUM_SAMPLES = [1, 4]

[stages.distil]
command = "train"
set = {TEACHER_CHECKPOINT_PATH = "{teacher}", LEARNING_RATE = 1e-3}
exclude = [{source = "offline", NUM_SAMPLES = [4], seed = 1}]
[stages.distil.axes.source]
offline = {set = {TRAIN_CACHE = ["{answers}", "{seed}"], LEARNING_RATE = 0.5}}
online = {gin_files = ["methods/{source}.gin", "{teacher}/config.gin"]}
"""


@pytest.fixture
def read(tmp_path):
  (tmp_path / "common.gin").touch()

  def read(text):
    (tmp_path / "grid.toml").write_text(text, "utf-8")
    return jobs.read(tmp_path / "grid.toml", OUTPUT)

  return read


def test_a_stage_has_a_job_for_each_seed_value_and_job_that_it_needs(
  read, tmp_path
):
  grid = read(GRID)
  assert grid.title == "Hacking"
  names = [job.name for job in grid.jobs]
  of_seed = ["answers-1", "answers-4", "distil-offline-1", "distil-offline-4"]
  of_seed += ["distil-online", *(f"scores{n[6:]}" for n in of_seed[2:])]
  of_seed += ["scores-online"]
  # Seed 1 is without what is excluded, and without what needs that.
  expected = [f"seed_3/{name}" for name in of_seed]
  expected += [f"seed_1/{n}" for n in of_seed if not n.endswith("offline-4")]
  assert names == ["teacher", *expected]
  for place, job in enumerate(grid.jobs):
    assert {*job.after} <= {*names[:place]}
  other = jobs.read(tmp_path / "grid.toml", OUTPUT, seeds=[1])
  assert {job.axes["seed"] for job in other.jobs if job.axes} == {1}


def test_settings_are_those_of_file_stage_and_values_in_this_order(
  read, tmp_path
):
  made = {job.name: job for job in read(GRID).jobs}
  common = f"--gin_file={tmp_path / 'common.gin'}"
  assert made["teacher"].arguments == [
    "train",
    common,
    "--gin_file=runs/sft.gin",
    "--gin.MODEL_DIR=/out/teacher",
  ]
  offline = made["seed_3/distil-offline-4"]
  assert offline.arguments == [
    "train",
    common,
    "--gin.RANDOM_SEED=3",
    "--gin.TEACHER_CHECKPOINT_PATH=/out/teacher",
    "--gin.LEARNING_RATE=0.5",
    "--gin.TRAIN_CACHE=['/out/seed_3/answers-4/cache', '3']",
    "--gin.MODEL_DIR=/out/seed_3/distil-offline-4",
  ]
  assert offline.after == ["teacher", "seed_3/answers-4"]
  assert offline.axes == {"seed": 3, "source": "offline", "NUM_SAMPLES": "4"}
  online = made["seed_3/distil-online"]
  own = ["methods/online.gin", "/out/teacher/config.gin"]
  assert online.gin_files[1:] == own
  assert "LEARNING_RATE=0.001" in online.bindings


def test_a_stage_takes_over_all_of_another_but_axes_and_excluded_jobs(read):
  made = read(
    GRID
    + """
    [stages.losses]
    like = "distil"
    gin_files = ["{divergence}.gin"]
    set = {LEARNING_RATE = 1, DTYPE = "float32"}
    axes.divergence = ["jsd"]
    [stages.sizes]
    like = "losses"
    gin_files = []
    """
  ).jobs
  (losses,) = (j for j in made if j.name == "seed_1/losses-jsd")
  assert losses.arguments[0] == "train"
  assert losses.gin_files[1:] == ["jsd.gin"]
  assert losses.bindings[1:-1] == [
    "TEACHER_CHECKPOINT_PATH=/out/teacher",
    "LEARNING_RATE=1",
    "DTYPE=float32",
    "divergence=jsd",
  ]
  (sizes,) = (j for j in made if j.name == "seed_1/sizes")
  assert sizes.bindings[1:-1] == losses.bindings[1:-2]
  assert sizes.gin_files == losses.gin_files[:1]


def test_an_axis_of_two_stages_pairs_their_jobs(read):
  axes = "axes.size = {small = {}, base = {set = {LEARNING_RATE = 1}}}\n"
  stages = f"""
    title = "Sizes"
    [stages.data]
    command = "cache make"
    flags = ["--split=train"]
    [stages.student]
    command = "train"
    after = ["data"]
    {axes}
    [stages.distil]
    command = "train"
    gin_files = ["models/{{size}}.gin"]
    set.INITIAL_CHECKPOINT_PATH = "{{student}}-{{size}}"
  """
  made = [job for job in read(stages + axes).jobs if job.stage == "distil"]
  assert [job.after for job in made] == [
    ["seed_0/student-small"],
    ["seed_0/student-base"],
  ]
  assert "INITIAL_CHECKPOINT_PATH=/out/seed_0/student-base-base" in (
    made[1].bindings
  )
  assert made[1].gin_files == ["models/base.gin"]
  data = read(stages).jobs[0]
  assert data.arguments == ["cache", "make", "--split=train"]
  with pytest.raises(UserError, match=r"no job of 'student' for .*size large"):
    read(stages + "axes.size.large = {}")


TWO = 'title = "T"\n[stages.a]\ncommand = "train"\n[stages.b]\n'


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("title =", r"cannot be read as TOML \(Invalid value.*; docs"),
    ('title = "T"', "has stages None; expected an object; see docs/grids"),
    ('titel = "T"', "'titel' is not known there; did you mean title"),
    ('title = "T"\nseeds = ["a"]', "has seeds.0 'a'; expected a whole number"),
    (TWO, "stages.b has command None; expected text"),
    (f'{TWO}command = "trian"', "stages.b: 'trian' .* did you mean train"),
    (f'{TWO}command = "train"\nst = {{}}', "stages.b: 'st' .* mean set"),
    (
      f'{TWO}command = "train"\nset.X = "{{aa}}"',
      r"stages.b.set.X: 'aa' is not known there; did you mean a",
    ),
    (f'{TWO}command = "train"\nafter = ["c"]', "'c' is not known there"),
    (f'{TWO}like = "b"', "b.like, a stage above: 'b' is not known there"),
    (
      'title = "T"\n[stages.a]\ncommand = "train"\nafter = ["b"]\n'
      '[stages.b]\ncommand = "train"\nset.X = "{a}"',
      "stages wait for each other in a circle, (a → b → a|b → a → b)",
    ),
    (f'{TWO}command = "train"\nset.MODEL_DIR = "x"', r"write \{b\} where"),
    (
      f'{TWO}command = "train"\nonce = true\nafter = ["a"]',
      "is made once but needs a stage of each seed",
    ),
    (f'{TWO}command = "train"\naxes.a = [1]', "axes: a is taken; rename"),
    ('title = "T"\n[stages."a b"]', "a b: 'a b'; expected letters, digits"),
    (f'environment = {{"A=" = "1"}}\n{TWO}command = "train"', "'A='; expect"),
    (f'seeds = []\n{TWO}command = "train"', "a: seed has no values; give"),
    (f'{TWO}command = "train"\naxes.x.y = 1', r"x.y is 1; expected a name"),
    (f'{TWO}command = "train"\naxes.x = ["a/b"]', r"x.a/b is .*letters"),
    (
      f'{TWO}command = "train"\naxes.x = [1]\nexclude = [{{x = 2}}]',
      r"exclude.x: '2' is not known there; did you mean 1",
    ),
    (
      f'{TWO}command = "train"\naxes.x = [1]\nexclude = [{{y = 1}}]',
      r"exclude: 'y' is not known there; did you mean seed or x",
    ),
    (
      f'{TWO}command = "train"\nexclude = [{{seed = []}}]',
      r"b.exclude has {'seed': \[\]}, which leaves out no job; drop it",
    ),
    (
      f'{TWO}command = "train"\nexclude = [{{}}]',
      "b.exclude leaves out every job; take",
    ),
    (
      'title = "T"\n[stages.a]\ncommand = "cache make"\nset.X = "{b}"',
      "set.X: 'b' is not known there$",
    ),
    (f'{TWO}command = "train"\nflags = ["--gin_file=x"]', "b.flags has '--gi"),
    (f'{TWO}command = "train"\naxes.x = ["{"a" * 260}"]', "is too long for"),
    (
      f'seeds = [{", ".join(map(str, range(10_001)))}]\n{TWO}command = "train"',
      "a has more than 10,000 jobs; give fewer seeds",
    ),
    (
      f'{TWO}command = "train"\naxes.x = ["a", "a-b"]\naxes.y = ["b-c", "c"]',
      "two jobs are called seed_0/b-a-b-c; rename",
    ),
  ],
)
def test_a_bad_file_is_one_line(text, message, read):
  with pytest.raises(UserError, match=message) as error:
    read(text)
  assert "\n" not in str(error.value)
