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

# plan TOPOLOGY CHIPS TEACHER STUDENT: parameters are shared by all chips.
plan() {
  local output command
  output=$folder/$3_$4_${1/:/_}.json
  command=(
    plan --topology="$1" --output="$output" --gin_file=runs/distill.gin
    --gin_file=tasks/scitldr.gin --gin_file=methods/gkd_on_policy.gin
    --gin_file=divergences/forward_kl.gin --gin.FSDP_PARALLELISM="$2"
    --gin.TEACHER_MODEL="T5_1_1_$3" --gin.STUDENT_MODEL="T5_1_1_$4"
    --gin.TASK_FEATURE_LENGTHS="{'inputs': 1024, 'targets': 64}"
    --gin.BATCH_SIZE=32 --gin.DTYPE=bfloat16 --gin.TEACHER_DTYPE=bfloat16
    --gin.SCAN_LAYERS=True --gin.REMAT=minimal --gin.CHUNK_SIZE=32
    --gin.TRAIN_STEPS=1 --gin.LEARNING_RATE=1e-3 --gin.INITIAL_CHECKPOINT_PATH=x
  )
  echo "$GKD ${command[*]@Q}"
  if [ -z "$DRY_RUN" ] && [ ! -e "$output" ]; then
    $GKD "${command[@]}" || echo "$output: see above" >&2
  fi
}

plan v5e:2x4 8 XL SMALL
plan v5e:2x4 8 XL BASE
plan v5e:4x4 16 XL LARGE
plan v5p:2x2x1 4 XL BASE
plan v6e:2x4 8 XL LARGE
plan v5e:4x8 32 XXL XL
plan v5p:2x2x4 16 XXL XL
plan v6e:4x4 16 XXL XL
