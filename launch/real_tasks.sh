#!/usr/bin/env bash
# From raw files to the tables in results/: GSM8K, Tatoeba English to German and
# SciTLDR, with small models that are trained from nothing.
#
#   launch/real_tasks.sh data  gsm8k tatoeba_ende scitldr   needs TensorFlow
#   launch/real_tasks.sh train gsm8k tatoeba_ende scitldr   an accelerator helps
#
# Raw files are read from GKD_DATA_DIR; everything is written to runs/<task>/,
# commands and their times to runs/<task>/times.jsonl. A run that exists is
# continued. Tasks, and the stages that do not need one another, run at the same
# time unless PARALLEL=0, which suits a machine of few cores. GKD is the
# command, "gkd" by default. TRAIN_FLAGS go to each training and EVAL_FLAGS to
# each evaluation: TRAIN_FLAGS="--gin.RANDOM_SEED=1".
# shellcheck disable=SC2086 # GKD and the flags are several words
set -euo pipefail

GKD=${GKD:-gkd}
PARALLEL=${PARALLEL:-1}
TRAIN_FLAGS=${TRAIN_FLAGS:-}
EVAL_FLAGS=${EVAL_FLAGS:-}
# Several processes share one accelerator.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}

# timed TASK STAGE COMMAND…: runs it, its output in runs/TASK/log/STAGE.
timed() {
  local task=$1 stage=$2 start=$EPOCHREALTIME status=0
  shift 2
  mkdir -p "runs/$task/log"
  "$@" >"runs/$task/log/$stage" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    echo "$task $stage: exit code $status; the end of runs/$task/log/$stage:" >&2
    tail -n 5 "runs/$task/log/$stage" >&2
    return "$status"
  fi
  printf '{"stage": "%s", "seconds": %.1f, "command": "%s"}\n' "$stage" \
    "$(echo "$EPOCHREALTIME $start" | awk '{print $1 - $2}')" "$*" \
    >>"runs/$task/times.jsonl"
  echo "$task $stage done"
}

# Starts a stage; PARALLEL=0 waits for it at once.
begin() {
  timed "$@" &
  started+=($!)
  [ "$PARALLEL" != 0 ] || wait "$!"
}

# all PID…: waits for them; fails if one did.
all() {
  local status=0
  for process in "$@"; do
    wait "$process" || status=$?
  done
  return "$status"
}

make_data() {
  local task=$1
  timed "$task" vocabulary $GKD cache vocabulary \
    --gin_file="tasks/$task.gin" --size=4096 \
    --output="runs/$task/vocabulary.model"
  timed "$task" cache $GKD cache make \
    --gin_file="experiments/$task/common.gin" \
    --split train --split validation --split test
}

train_task() {
  local task=$1 method started=()
  stage() {
    local name=$1 file=$2
    shift 2
    begin "$task" "$name" $GKD train \
      --gin_file="experiments/$task/$file.gin" "$@" $TRAIN_FLAGS
  }
  score() {
    local name=$1
    shift
    begin "$task" "test_$name" $GKD evaluate \
      --gin_file="experiments/$task/evaluate.gin" \
      --gin.INITIAL_CHECKPOINT_PATH="runs/$task/$name" \
      --gin.MODEL_DIR="runs/$task/test/$name" "$@" $EVAL_FLAGS
  }
  stage teacher teacher
  stage student student
  all "${started[@]}"
  started=()
  stage gkd_on_policy distill
  stage supervised_kd distill --gin_file=methods/supervised_kd.gin \
    --gin.MODEL_DIR="runs/$task/supervised_kd"
  score teacher --gin.STUDENT_MODEL=%SCRATCH_SMALL
  score student
  all "${started[@]}"
  started=()
  for method in gkd_on_policy supervised_kd; do
    score "$method"
  done
  all "${started[@]}"
}

action=${1:-}
shift || true
if [ "$#" = 0 ] || { [ "$action" != data ] && [ "$action" != train ]; }; then
  sed -n '2,14s/^# \{0,1\}//p' "$0"
  exit 2
fi
processes=()
for task in "$@"; do
  if [ "$action" = data ]; then
    make_data "$task"
  else
    train_task "$task" &
    processes+=($!)
    [ "$PARALLEL" != 0 ] || wait "$!"
  fi
done
all "${processes[@]}"
