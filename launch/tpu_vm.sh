#!/usr/bin/env bash
# gkd on a TPU VM or slice: makes it, installs this checkout, runs on all hosts.
#
#   export ZONE=us-east5-b TYPE=v6e-16 BUCKET=my-bucket
#   launch/tpu_vm.sh [--dry_run] train … --gin.MODEL_DIR=/gcs/my-bucket/run
#
# Needs gcloud, logged in. Arguments go to gkd as they are. All hosts see BUCKET
# as /gcs/BUCKET; own gin files lie there, too. If the slice was preempted or a
# process lost, this goes on, RESTARTS times (20); so does the same call. NAME
# ("gkd") is the TPU's; CREATE_FLAGS replace --spot. You pay for it until you
# call: gcloud compute tpus tpu-vm delete NAME --zone=ZONE
set -eo pipefail

NAME=${NAME:-gkd}
dry_run=
[ "$1" != --dry_run ] || { dry_run=1 && shift; }
if [ $# = 0 ] || [ -z "$ZONE" ] || [ -z "$TYPE" ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit 2
fi
case $TYPE in
  v6e-*) image=v2-alpha-tpuv6e ;;
  v5p-*) image=v2-alpha-tpuv5 ;;
  v5litepod-*) image=v2-alpha-tpuv5-lite ;;
  *) image=tpu-ubuntu2204-base ;;
esac

run() {
  if [ -n "$dry_run" ]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi
}
tpu() { run gcloud compute tpus tpu-vm "$1" --zone="$ZONE" "${@:2}"; }
on_all() { tpu ssh "$NAME" --worker=all --command="$1"; }
state() {
  [ -n "$dry_run" ] || gcloud compute tpus tpu-vm describe "$NAME" \
    --zone="$ZONE" --format='value(state)' 2>/dev/null || :
}

# The images have an older Python, and no gcsfuse.
read -r -d '' install <<'END' || :
set -e
python3 -m pip install -q uv
uv=~/.local/bin/uv
[ -d ~/gkd ] || $uv venv -q --python 3.12 ~/gkd
$uv pip install -q --python ~/gkd --reinstall-package gkd \
  "gkd[tpu] @ file://$(echo ~/gkd-*.whl)"
if [ -n "$BUCKET" ] && ! mountpoint -q "/gcs/$BUCKET"; then
  url=https://packages.cloud.google.com/apt
  key=/usr/share/keyrings/cloud.google.asc
  curl -sS $url/doc/apt-key.gpg | sudo tee $key >/dev/null
  echo "deb [signed-by=$key] $url gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -qq update && sudo apt-get -qq install -y gcsfuse
  sudo install -d -o "$USER" "/gcs/$BUCKET"
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$BUCKET" "/gcs/$BUCKET"
fi
END

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
run python3 -m pip wheel -q --no-deps -w "$wheels" "$(dirname "$0")/.."
for ((left = ${RESTARTS:-20}; ; left--)); do
  now=$(state)
  case $now in PREEMPTED | TERMINATED) tpu delete "$NAME" --quiet ;; esac
  if [ "$now" != READY ]; then
    read -ra flags <<<"${CREATE_FLAGS---spot}"
    tpu create "$NAME" --version="$image" --accelerator-type="$TYPE" \
      "${flags[@]}"
  fi
  code=0
  on_all 'rm -f gkd-*.whl' && tpu scp "$wheels"/* "$NAME": --worker=all &&
    on_all "BUCKET=$BUCKET; $install" &&
    on_all "gkd/bin/gkd $(printf '%q ' "$@")" || code=$?
  case $code:$(state) in # 255: of ssh
    75:* | 134:* | 137:* | 139:* | 255:* | *:PREEMPTED | *:TERMINATED) ;;
    *) exit "$code" ;;
  esac
  [ "$left" -gt 0 ] || exit "$code"
  sleep 30
done
