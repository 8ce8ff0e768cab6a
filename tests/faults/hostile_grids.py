"""Grids that must be refused: a sound file with wrong parts in place of others.

text, is_wrong = hostile_grids.draw(random.Random(0), values)
"""

from collections.abc import Sequence
import json
import random

_SOUND = """
title = "T"
seeds = [0, 1]
environment = {A = "b"}
[stages.one]
command = "train"
gin_files = ["test/sft.gin"]
set = {TRAIN_CACHE = "FOLDER/train", EVAL_CACHE = "FOLDER/eval"}
axes.SUBSET_SEED = [1, 2]
[stages.two]
command = "evaluate"
gin_files = ["test/evaluate.gin"]
set = {INITIAL_CHECKPOINT_PATH = "{one}", EVAL_CACHE = "FOLDER/eval"}
axes.kind = {a = {}, b = {set = {EVAL_EXAMPLES = 4}}}
exclude = [{kind = "b", seed = 1}]
flags = ["--through_seqio"]
after = ["one"]
once = false
"""
# Parts, and what must not stand in their place.
_WRONG = r"""
title = "T" => ; titel = 'T'; title = 3; title = ; title = 'T; x; title = ['T']
  ; title = 'T' title = 'T'; 'title' = {}; title = nan
seeds = [0, 1] => seeds = []; seeds = 3; seeds = ['a']; seeds = [1.5]; seeds = [
  ; seeds = [true]; seeds = [-1]; seeds = [9999999999]; seeds = {}; seed = [0]
  ; seeds = [[0]]; seeds = [99999999999999999999]; seeds = [inf]; seeds = MANY
A = "b" => A = 1; A = ['b']; GKD_CACHE_DIR = 'b'; GKD_DATA_DIR = ''; A = {}
  ; 'A=' = 'b'; '' = 'b'; A = "\u0000"; 'A B' = 'b'; A = "\ud800"
[stages.one] => [stages.'']; [stages.'a b']; [stages.three]; [stages]; [stages
  ; [[stages]]; [stages.'one/x']; [stages.two]; [stage.one]; [stages.one.more]
command = "train" => ; command = 'trian'; command = ''; command = 3; command
  ; command = 'grid'; command = 'cache'; command = ['train']; comand = 'train'
  ; command = 'train --help'; command = 'sample'; command = 'cache make'
gin_files = ["test/sft.gin"] => ; gin_files = 'a'; gin_files = [3]
  ; gin_files = ['no.gin']; gin_files = ['FOLDER/fifo']; gin_files = ['FOLDER']
  ; gin_files = []; gin_files = ['{no}.gin']; gin_files = ['']; gin_file = []
  ; gin_files = ['/dev/zero']; gin_files = ['~no-such/a']; gin_files = {}
  ; gin_files = ['test/evaluate.gin']; gin_files = ["a\u0000"]
"test/sft.gin" => 'test/sft.gin', 'FOLDER/open.gin'
  ; 'test/sft.gin', 'FOLDER/self.gin'; 'test/sft.gin', 'FOLDER/circle.gin'
  ; 'test/sft.gin', 'FOLDER/macro.gin'; 'test/sft.gin', 'FOLDER/code.gin'
  ; 'test/sft.gin', 'FOLDER/deep.gin'; 'test/sft.gin', 'FOLDER/file'
TRAIN_CACHE => TRIAN_CACHE = 1, TRAIN_CACHE; 'a b' = 1, TRAIN_CACHE
  ; '' = 1, TRAIN_CACHE; MODEL_DIR = 'a', TRAIN_CACHE; 3, TRAIN_CACHE
  ; OUTPUT_DIR = 'a', TRAIN_CACHE; EVAL_SPLITS = ['{no}'], TRAIN_CACHE
  ; 'x.y.z' = 3, TRAIN_CACHE; KEEP = 1979-05-27, TRAIN_CACHE
  ; KEEP = nan, TRAIN_CACHE; KEEP = {a = 1}, TRAIN_CACHE; KEEP = '%KEEP', KEEP
  ; DTYPE = "\u0000", TRAIN_CACHE; BATCH_SIZE = 2, BATCH_SIZE
  ; RANDOM_SEED = '{one}', TRAIN_CACHE; RANDOM_SEED = '{two}', TRAIN_CACHE
SUBSET_SEED = [1, 2] => SUBSET_SEED = []; SUBSET_SEED = 3; SUBSET_SEED = ['a/b']
  ; seed = [1]; run = [1]; two.a = 3; x.y = 3; x.y.z = 3; x.'a/b' = {}
  ; SUBSET_SEED = ['']; SUBSET_SEED = [[1]]; SUBSET_SEED = [{}]; NO_SUCH = [1]
  ; SUBSET_SEED = [-1]; x.y.set = 3; x.y.gin_files = [3]; x.y.set.NO_SUCH = 3
  ; SUBSET_SEED = [nan]; SUBSET_SEED = [1979-05-27]; SUBSET_SEED = ['a']
  ; x.LONG = {}; x = MANY
"{one}" => '{no}'; '{two}'; 3; ['{one}']; '{one}{no}'; "{one}
kind = "b" => no = 1; kind = 'c'; kind = 3; kind = {}; one = 'b'; kind = []
exclude = [{kind = "b", seed = 1}] => exclude = [{}]; exclude = {}; exclude = 1
  ; exclude = [3]; exclude = 'kind'; exclude = [{kind = ['a', 'b']}]
  ; exclude = [{SUBSET_SEED = 3}]; exclude = [{kind = 'b', seed = 7}]
"--through_seqio" => 3; '--help'; '-h'; '--no_such'; '--gin.EVAL_EXAMPLES=3'
  ; 'x'; '--gin_file=test/sft.gin'; '--dry_run'; ''; '--version'; "a\u0000"
after = ["one"] => after = ['no']; after = ['two']; after = 'one'; after = [1]
  ; after = ['']; wait = ['one']; after = [['one']]
once = false => once = true; once = 3; once = 'no'; onc = false; once = []
  ; like = 'no'; like = 'two'; like = ['one']; like = {}; like = ''
"""


def draw(rng: random.Random, values: Sequence[str]) -> tuple[str, bool]:
  """A file of a grid, and whether it must be refused.

  Args:
    rng: what it is drawn with.
    values: "NAME=VALUE" for `set`, each of which a run refuses.
  """
  text = _SOUND
  if values:
    pairs = [value.split("=", 1) for value in values]
    added = [f"{name} = {json.dumps(x)}" for name, x in pairs]
    text = text.replace("TRAIN_CACHE", ", ".join([*added, "TRAIN_CACHE"]), 1)
  else:
    for block in rng.sample(_blocks(), rng.choice((0, 1, 1, 1, 1, 2))):
      part, _, others = block.partition(" => ")
      text = text.replace(part, rng.choice(others.split(";")).strip(), 1)
  # The value of an axis is set last.
  is_wrong = text != _SOUND and 'SUBSET_SEED = "' not in text
  text = text.replace("MANY", str([*range(10_001)])).replace("LONG", "9" * 250)
  return text, is_wrong


def _blocks() -> list[str]:
  return _WRONG.strip().replace("\n  ", " ").split("\n")
