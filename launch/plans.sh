#!/usr/bin/env bash
# The plans of results/plan, one after the other: the GKD paper's pairs on TPU
# slices that need not be here (pip install -e ".[plan]"; 4 to 30 CPU minutes
# each).
#
#   launch/plans.sh [--dry_run] [FOLDER]     default: runs/plan
#
# A plan that exists in the folder is kept. GKD is the command, "gkd" by default.
# shellcheck disable=SC2086 # GKD may be several words
set -euo pipefail

GKD=${GKD:-gkd}
DRY_RUN=
if [ "${1:-}" = --dry_run ]; then
  DRY_RUN=1
  shift
fi
folder=${1:-runs/plan}
[ -n "$DRY_RUN" ] || mkdir -p "$folder"

# plan NAME TOPOLOGY CHIPS TEACHER STUDENT INPUTS TARGETS [FLAG…]
# Parameters are shared by all chips.
plan() {
  local output command
  output=$folder/$1.json
  command=(
    plan --topology="$2" --output="$output" --gin_file=runs/distill.gin
    --gin_file=tasks/scitldr.gin --gin_file=methods/gkd_on_policy.gin
    --gin_file=divergences/forward_kl.gin --gin.FSDP_PARALLELISM="$3"
    --gin.TEACHER_MODEL="T5_1_1_$4" --gin.STUDENT_MODEL="T5_1_1_$5"
    --gin.TASK_FEATURE_LENGTHS="{'inputs': $6, 'targets': $7}"
    --gin.BATCH_SIZE=32 --gin.DTYPE=bfloat16 --gin.TEACHER_DTYPE=bfloat16
    --gin.SCAN_LAYERS=True --gin.REMAT=minimal --gin.CHUNK_SIZE=32
    --gin.TRAIN_STEPS=1 --gin.LEARNING_RATE=1e-3 --gin.INITIAL_CHECKPOINT_PATH=x
    "${@:8}"
  )
  echo "$GKD ${command[*]@Q}"
  if [ -z "$DRY_RUN" ] && [ ! -e "$output" ]; then
    $GKD "${command[@]}" || echo "$output: see above" >&2
  fi
}

# TOPOLOGY CHIPS TEACHER STUDENT, at the lengths of XSum and of GSM8K.
xsum() { plan "$3_$4_${1/:/_}" "$@" 1024 64; }
gsm8k() { plan "$3_$4_${1/:/_}_gsm8k" "$@" 512 320; }

xsum v5e:1x1 1 XL SMALL # too small; with micro-batches it is not
plan XL_SMALL_v5e_1x1_micro8 v5e:1x1 1 XL SMALL 1024 64 --gin.MICRO_BATCHES=8
xsum v6e:1x1 1 XL SMALL
xsum v5p:1x1x1 1 XL SMALL
xsum v5e:2x2 4 XL BASE
xsum v6e:1x1 1 XL BASE
xsum v5p:1x1x1 1 XL BASE
xsum v5e:2x2 4 XL LARGE
xsum v5e:4x4 16 XL LARGE
xsum v6e:1x1 1 XL LARGE
xsum v5p:1x1x1 1 XL LARGE
xsum v5e:2x4 8 XXL XL
xsum v5e:4x4 16 XXL XL
xsum v6e:2x2 4 XXL XL
xsum v5p:2x2x1 4 XXL XL
gsm8k v5p:1x1x1 1 XL SMALL
gsm8k v5p:1x1x1 1 XL BASE
gsm8k v5p:1x1x1 1 XL LARGE
