#!/usr/bin/env bash
# gkd on a TPU slice of a GKE cluster that xpk made (pip install xpk).
#
#   export CLUSTER=my-cluster TYPE=v5litepod-16 IMAGE=REGION-docker.pkg.dev/…/gkd
#   launch/gke/xpk.sh [--dry_run] train --gin_file=… --gin.MODEL_DIR=/gcs/run
#
# Arguments go to gkd as they are. IMAGE is built by launch/Dockerfile. A bucket
# becomes /gcs by: xpk storage attach … --type=gcsfuse --mount-point=/gcs. What
# was preempted or failed starts again, RESTARTS times (20), whatever the exit
# code (gke/jobset.yaml tells them apart). NAME ("gkd") is the workload's.
set -eo pipefail

run=()
[ "$1" != --dry_run ] || { run=(printf '%q ') && shift; }
if [ $# = 0 ] || [ -z "$CLUSTER" ] || [ -z "$TYPE" ] || [ -z "$IMAGE" ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
"${run[@]}" xpk workload create --workload="${NAME:-gkd}" \
  --cluster="$CLUSTER" --tpu-type="$TYPE" --docker-image="$IMAGE" \
  --max-restarts="${RESTARTS:-20}" --restart-on-user-code-failure \
  --termination-grace-period-seconds=300 --command="gkd $(printf '%q ' "$@")"
