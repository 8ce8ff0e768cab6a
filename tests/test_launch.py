"""The scripts of launch/, with stand-ins for gkd, srun and gcloud."""

import os
from pathlib import Path
import shlex
import signal
import subprocess
import time

import pytest
import yaml

LAUNCH = Path(__file__).parents[1] / "launch"
ARGUMENTS = ["train", "--gin.DATA_FILES={'train': 'a b'}", "--dry_run"]
SCRIPTS = {
  "local.sh": {"DEVICES": "4"},
  "slurm.sbatch": {},
  "tpu_vm.sh": {"ZONE": "z", "TYPE": "v6e-16", "BUCKET": "b"},
  "gke/xpk.sh": {"CLUSTER": "c", "TYPE": "v6e-16", "IMAGE": "i"},
}
# Exit codes of the starts of a process are in a file: "75 0", first 75, then 0.
_GKD = """#!/usr/bin/env bash
trap 'exit 143' TERM
echo "$*" >>calls
read -ra codes <codes
code=${codes[$(grep -c -e "${*: -1}" calls) - 1]}
if [ "$code" = wait ]; then for _ in {1..600}; do sleep 0.1; done; fi
exit "$code"
"""
_SCANCEL = "#!/usr/bin/env bash\necho scancel >>calls; kill -TERM $(<step)\n"


@pytest.fixture
def launch(tmp_path):
  """Starts a script where other programs are stand-ins."""

  def write(name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)

  def start(script, codes="0", **environment):
    write("gkd", _GKD)
    write("srun", '#!/usr/bin/env bash\nshift; echo $$ >step; exec "$@"\n')
    write("scancel", _SCANCEL)
    write("scontrol", '#!/usr/bin/env bash\necho "$*" >>calls\n')
    (tmp_path / "codes").write_text(f"{codes}\n")
    return subprocess.Popen(
      [str(LAUNCH / script), *ARGUMENTS],
      cwd=tmp_path,
      env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
      | {"SLURM_JOB_ID": "7", **environment},
    )

  return start


def calls(folder):
  return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_prints_commands_with_the_arguments_unchanged(script, tmp_path):
  environment = {"PATH": os.environ["PATH"], **SCRIPTS[script]}
  output = subprocess.run(
    [LAUNCH / script, "--dry_run", *ARGUMENTS],
    env=environment,  # a cluster's program is not there
    cwd=tmp_path,
    capture_output=True,
    check=True,
    text=True,
  ).stdout
  words = shlex.split(output.splitlines()[-1].replace("$'", "'"))
  if "train" not in words:  # they are a command for another shell
    words = shlex.split(words[-1].partition("--command=")[2])
  assert words[-len(ARGUMENTS) :] == ARGUMENTS
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_arguments_the_head_says_how_to_call_it(script):
  result = subprocess.run([LAUNCH / script], capture_output=True, text=True)
  assert result.returncode == 2
  assert f"launch/{script}" in result.stdout
  assert "set -e" not in result.stdout


def test_local_starts_all_again_where_one_was_lost(launch, tmp_path):
  assert launch("local.sh", "75 0", PROCESSES="2").wait() == 0
  assert len(calls(tmp_path)) == 4
  assert {c.rpartition(" --")[2] for c in calls(tmp_path)} == {
    "process_id=0",
    "process_id=1",
  }


@pytest.mark.parametrize("code", [2, 1, 130])
def test_what_another_start_would_not_mend_ends_it(launch, tmp_path, code):
  assert launch("local.sh", f"{code} 0").wait() == code
  assert launch("slurm.sbatch", f"0 {code} 0").wait() == code
  assert len(calls(tmp_path)) == 2


def signalled(process, folder, number, count=1):
  """Its exit code; the signal comes when so many processes run."""
  deadline = time.monotonic() + 60
  (folder / "calls").touch()
  while len(calls(folder)) < count and time.monotonic() < deadline:
    time.sleep(0.02)
  process.send_signal(number)
  return process.wait(60)


def test_a_signal_reaches_all_local_processes(launch, tmp_path):
  process = launch("local.sh", "wait", PROCESSES="2")
  assert signalled(process, tmp_path, signal.SIGTERM, 2) == 143
  assert len(calls(tmp_path)) == 2


def test_slurm_saves_and_queues_again_before_the_time_is_over(launch, tmp_path):
  process = launch("slurm.sbatch", "wait")
  assert signalled(process, tmp_path, signal.SIGUSR1) == 143
  assert calls(tmp_path)[1:] == ["scancel", "requeue 7"]


@pytest.mark.parametrize(
  ("starts", "ends"), [("19", ["requeue 7"]), ("20", [])]
)
def test_slurm_queues_again_after_a_loss(launch, tmp_path, starts, ends):
  process = launch("slurm.sbatch", "75", SLURM_RESTART_COUNT=starts)
  assert process.wait() == 75
  assert calls(tmp_path)[1:] == ends


def test_jobset_ends_for_exit_codes_that_gkd_means():
  """Fields checked against JobSet's v1alpha2 schema when they were written."""
  jobset = yaml.safe_load((LAUNCH / "gke/jobset.yaml").read_text())
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  (rule,) = jobset["spec"]["failurePolicy"]["rules"]
  assert (rule["action"], rule["onJobFailureReasons"]) == (
    "FailJobSet",
    ["PodFailurePolicy"],
  )
  (job,) = jobset["spec"]["replicatedJobs"]
  job = job["template"]["spec"]
  assert (job["backoffLimit"], job["completions"]) == (0, job["parallelism"])
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["containerName"] == container["name"]
  assert rule["onExitCodes"]["values"] == [1, 2]
  assert pod["restartPolicy"] == "Never"  # which that policy demands
  (mount,) = container["volumeMounts"]
  assert mount["name"] in [volume["name"] for volume in pod["volumes"]]
  assert f"--gin.MODEL_DIR={mount['mountPath']}/run" in container["args"]


def test_skypilot_recovers_lost_processes_and_names_them_all():
  task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
  codes = task["resources"]["job_recovery"]["recover_on_exit_codes"]
  assert codes == [75, 134, 137, 139, 143]
  result = subprocess.run(
    ["bash", "-c", "exec() { printf '%s\\n' \"$@\"; }\n" + task["run"]],
    env={
      "SKYPILOT_NUM_NODES": "2",
      "SKYPILOT_NODE_RANK": "1",
      "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
      "PATH": os.environ["PATH"],
      "HOME": "/home/x",
      "GKD_ARGS": shlex.join(ARGUMENTS),
    },
    capture_output=True,
    check=True,
    text=True,
  )
  assert result.stdout.splitlines() == [
    "/home/x/gkd/bin/gkd",
    *ARGUMENTS,
    "--coordinator=10.0.0.1:8476",
    "--num_processes=2",
    "--process_id=1",
  ]
