#!/usr/bin/env bash
# gkd on this machine: on virtual CPU devices, or in several processes.
#
#   DEVICES=8 launch/local.sh [--dry_run] train --gin_file=… --gin.NAME=VALUE
#   PROCESSES=2 DEVICES=4 launch/local.sh [--dry_run] train …
#
# Arguments go to gkd as they are. DEVICES: virtual CPU devices of each process;
# without it, the accelerators that JAX finds. Processes talk over loopback; if
# one or a device is lost (exit code 75), all start again, at most RESTARTS times (3). The
# same call goes on where a run was. GKD is the command, "gkd" by default.
set -eo pipefail # no -u: macOS has a bash for which empty arrays are unset

read -ra command <<<"${GKD:-gkd}"
dry_run=
[ "$1" != --dry_run ] || { dry_run=1 && shift; }
if [ $# = 0 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
if [ -n "$DEVICES" ]; then
  flags="--xla_force_host_platform_device_count=$DEVICES $XLA_FLAGS"
  command=(env JAX_PLATFORMS=cpu XLA_FLAGS="$flags" "${command[@]}")
fi

run() {
  [ -z "$dry_run" ] || exec printf '%s\n' "$(printf '%q ' "$@")"
  exec "$@"
}

# Starts all processes; returns 75 if one of them does.
once() {
  local index pid status code=0 pids=() several=()
  local port=$((20000 + RANDOM % 10000)) # below those that systems give out
  trap 'kill -TERM "${pids[@]}" 2>/dev/null || :' INT TERM # all save and end
  for ((index = 0; index < ${PROCESSES:-1}; index++)); do
    [ "${PROCESSES:-1}" = 1 ] || several=(--coordinator="localhost:$port"
      --num_processes="$PROCESSES" --process_id="$index")
    run "${command[@]}" "$@" "${several[@]}" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" || :; done
    status=0
    wait "$pid" || status=$?
    if [ "$status" = 75 ] || [ "$code" = 0 ]; then code=$status; fi
  done
  return "$code"
}

for ((left = ${RESTARTS:-3}; ; left--)); do
  code=0
  once "$@" || code=$?
  if [ "$code" != 75 ] || [ "$left" -le 0 ]; then exit "$code"; fi
  echo "$0: a process or device was lost; all start again" >&2
done
