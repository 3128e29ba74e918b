"""The launchers' scripts, with the launchers' commands replaced by ones that write down how they were called.

What a cluster does with that is not seen here; what a shell makes of it is.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "examples" / "launch"
ARGUMENTS = ("--recipe", "imagenet", "--data", "/a folder/$x", "--epochs", "3")
CALLED = '#!/bin/bash\nprintf "%s\\0" "${0##*/}" "$@" >> "$CALLS"\nprintf "\\n" >> "$CALLS"\n'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    for name in ("srun", "scontrol", "xpk"):
        (tmp_path / name).write_text(CALLED)
        (tmp_path / name).chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def calls(environ: dict[str, str]) -> list[list[str]]:
    """Each command that was called: its name and its arguments."""
    return [line.split("\0")[:-1] for line in Path(environ["CALLS"]).read_text().splitlines()]


@pytest.mark.parametrize("finished", [False, True])
def test_slurm_queues_a_run_again_until_it_is_finished(tmp_path: Path, environ: dict[str, str], finished: bool):
    out = tmp_path / "a run"
    if finished:
        (out / "checkpoint").mkdir(parents=True)
    environ |= {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "8"}
    subprocess.run([LAUNCH / "slurm.sh", *ARGUMENTS, "--out", out], env=environ, check=True)
    train = ["srun", "--cpus-per-task=8", "nfnet-eqx", "train", *ARGUMENTS, "--out", str(out)]
    assert calls(environ) == [train] if finished else [train, ["scontrol", "requeue", "4711"]]


def test_slurm_does_not_queue_a_run_again_that_failed(tmp_path: Path, environ: dict[str, str]):
    (tmp_path / "srun").write_text("#!/bin/bash\nexit 2\n")
    process = subprocess.run([LAUNCH / "slurm.sh", "--out", tmp_path / "run"], env=environ)
    assert process.returncode == 2
    assert not Path(environ["CALLS"]).exists()


@pytest.mark.parametrize("script", ["slurm.sh", "gke-xpk.sh"])
def test_a_run_without_a_folder_is_not_started(environ: dict[str, str], script: str):
    process = subprocess.run([LAUNCH / script, *ARGUMENTS], env=environ, capture_output=True, text=True)
    assert process.returncode != 0
    assert "give --out DIR" in process.stderr
    assert not Path(environ["CALLS"]).exists()


# A run that saves when it is told to end; `nfnet-eqx` in the tests of what XPK's containers execute.
RUN = """#!/bin/bash
printf '%s\\0' nfnet-eqx "$@" > "$CALLS"
trap 'echo saved >> "$LOG"; exit 0' TERM
echo started >> "$LOG"
for ((i = 0; i < 100; i++)); do
    sleep 0.05
    if [[ -e $FINISH ]]; then mkdir -p "$OUT/checkpoint"; exit 0; fi
done
exit 1
"""


@pytest.mark.parametrize("finished", [False, True])
def test_a_container_passes_sigterm_on_and_succeeds_only_when_the_run_is_finished(
    tmp_path: Path, environ: dict[str, str], finished: bool
):
    out, log, finish = tmp_path / "a run", tmp_path / "log", tmp_path / "finish"
    environ |= {"CLUSTER": "tpus", "ZONE": "here", "IMAGE": "nfnet"}
    subprocess.run([LAUNCH / "gke-xpk.sh", *ARGUMENTS, "--out", out], env=environ, check=True)
    ((*options, command),) = calls(environ)
    assert options[:7] == ["xpk", "workload", "create", "--cluster", "tpus", "--zone", "here"]
    assert options[-1] == "--command"

    (tmp_path / "nfnet-eqx").write_text(RUN)
    (tmp_path / "nfnet-eqx").chmod(0o755)
    container = subprocess.Popen(
        ["bash", "-c", command], env=environ | {"LOG": str(log), "FINISH": str(finish), "OUT": str(out)}
    )
    while not log.exists():
        assert container.poll() is None
        time.sleep(0.02)
    if finished:
        finish.touch()
    else:
        container.send_signal(signal.SIGTERM)
    assert container.wait(timeout=10) == (0 if finished else 1)
    assert log.read_text() == ("started\n" if finished else "started\nsaved\n")
    assert calls(environ) == [["nfnet-eqx", "train", *ARGUMENTS, "--out", str(out)]]
