"""Real processes: killed and gone on with, several as one, on other devices than before, on a disk that is full."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nfnet_eqx as nfx

pytestmark = pytest.mark.slow

TIME_LIMIT = 240  # seconds; a run takes ten on a quiet machine

Start = Callable[..., subprocess.Popen]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, shared by all processes of these tests."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start(model_folder: Path, data_folder: Path, cache: Path) -> Start:
    """A function: starts `nfnet-eqx train` on the tiny network, twelve steps of sixteen pictures in two epochs."""

    def start(
        out: Path,
        *changes: str,
        devices: int = 4,
        process: int = 0,
        processes: int = 1,
        port: int = 0,
        lost: str = "",
    ) -> subprocess.Popen:
        arguments = [
            "train", "--recipe", "smoke", "--model", model_folder, "--data", data_folder, "--out", out,
            "--epochs", "2", "--batch-size", "16", "--num-threads", "2",
            "--log-every-steps", "1", "--checkpoint-every-steps", "2",
            "--drop-rate", "0.2", "--stochastic-depth", "0.25", "--augment.mixup", "0.2", "--augment.cutmix", *changes,
        ]  # fmt: skip
        launcher = {
            "RANK": str(process), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", "-c", f'exec "$@" {lost}', "bash", sys.executable, "-m", "nfnet_eqx", *map(str, arguments)],
            env=os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            | (launcher if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unbroken") / "run"


@pytest.fixture
def expected(start: Start, unbroken: Path) -> Path:
    """What a run of one process on four devices exports; made by the first test that asks."""
    if not unbroken.exists():
        finish(start(unbroken))
    return unbroken / "checkpoint"


def finish(*running: subprocess.Popen, status: int = 0) -> list[str]:
    """Waits for processes, and gives what they wrote to stderr."""
    try:
        errors = [process.communicate(timeout=TIME_LIMIT)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, text in zip(running, errors, strict=True):
        assert process.returncode == status, f"exit {process.returncode}:\n{text[-3000:]}"
    return errors


def weights(checkpoint: Path) -> bytes:
    return (checkpoint / "model.safetensors").read_bytes()


def assert_close(checkpoint: Path, expected: Path, tolerance: float) -> None:
    ours, theirs = (nfx.named_parameters(nfx.from_pretrained(path).model) for path in (checkpoint, expected))
    differences = {name: float(abs(array - theirs[name]).max()) for name, array in ours.items()}
    worst = max(differences, key=differences.__getitem__)
    assert differences[worst] <= tolerance, f"{worst} differs by {differences[worst]:.2g}"


def steps_logged(out: Path) -> int:
    file = out / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max((json.loads(line)["step"] for line in lines[:-1]), default=0)


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    while steps_logged(out) < step:
        assert process.poll() is None, f"ended too early:\n{process.communicate()[1][-3000:]}"
        assert time.monotonic() < deadline, f"no step {step} in {TIME_LIMIT} s"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_run_killed_twice_and_gone_on_with_ends_equal_to_the_bit(start: Start, expected: Path, tmp_path: Path):
    out = tmp_path / "killed"
    for step in (3, 8):
        process = start(out)
        wait_for_step(process, out, step)
        process.send_signal(signal.SIGKILL)
        finish(process, status=-signal.SIGKILL)
        assert not (out / "checkpoint").exists()
    (text,) = finish(start(out))
    assert "going on from step" in text
    assert weights(out / "checkpoint") == weights(expected)


@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (4, 1)])
def test_the_same_devices_in_several_processes_end_the_same(
    start: Start, expected: Path, tmp_path: Path, processes: int, devices: int
):
    out, port = tmp_path / "several", free_port()
    finish(*(start(out, devices=devices, process=i, processes=processes, port=port) for i in range(processes)))
    # Not to the bit: between processes the gradients are summed in another order than within one.
    assert_close(out / "checkpoint", expected, 1e-6)


def test_sigterm_to_one_of_two_processes_stops_both_after_the_same_step_and_fewer_devices_go_on(
    start: Start, tmp_path: Path
):
    out, port = tmp_path / "preempted", free_port()
    both = [start(out, devices=2, process=i, processes=2, port=port) for i in range(2)]
    wait_for_step(both[0], out, 4)
    both[1].send_signal(signal.SIGTERM)
    stopped = [text for text in finish(*both) if "stopped after step" in text]
    assert len(stopped) == 2, "one of them did not stop early"
    first, second = (text.split("stopped after step")[1].split(",")[0] for text in stopped)
    assert first == second
    (text,) = finish(start(out, "--fsdp", devices=2))  # half as many devices, and another layout
    assert f"going on from step{first}" in text and (out / "checkpoint").exists()


def test_a_run_goes_on_on_twice_as_many_devices_and_ends_the_same_up_to_summation(
    start: Start, expected: Path, tmp_path: Path
):
    out = tmp_path / "grown"
    process = start(out, devices=2)
    wait_for_step(process, out, 5)
    process.send_signal(signal.SIGTERM)
    finish(process)
    finish(start(out, devices=4))
    # The first steps summed over two devices, in another order.
    assert_close(out / "checkpoint", expected, 1e-5)


@pytest.mark.parametrize("lost", ["<&- >&- 2>&-", "> >(head -2) 2>&1"])
def test_a_run_whose_output_nobody_reads_goes_on_to_its_end(start: Start, expected: Path, tmp_path: Path, lost: str):
    out = tmp_path / "unread"
    finish(start(out, lost=lost))
    assert weights(out / "checkpoint") == weights(expected)


def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_when_there_is_room(
    start: Start, expected: Path, tmp_path: Path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        out = disk / "run"
        process = start(out)
        wait_for_step(process, out, 3)
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        (text,) = finish(process, status=2)
        *before, line = text.strip().splitlines()
        assert line.startswith(f"nfnet-eqx: {out}/") and "No space left on device" in line, line
        others = [
            line
            for line in before
            if not line.startswith(
                ("tiny_nfnet: ", "compil", "making ", "evaluating ", "step ", f"{out}/curves.png: not")
            )
        ]
        assert not others, others
        ballast.unlink()
        finish(start(out))
        assert weights(out / "checkpoint") == weights(expected)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
