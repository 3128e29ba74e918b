"""The log of a run: each line at once, none twice after a restart, readable after a kill."""

import json
import math
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._metrics import Log, read_metrics


def open_log(folder: Path, resume_step: int = 0, tensorboard: bool = False, **more) -> Log:
    return Log(folder, resume_step=resume_step, tensorboard=tensorboard, total_steps=100, batch_size=8, **more)


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder)]


def test_what_a_run_has_spent_goes_everywhere_however_large(tmp_path: Path):
    """The largest run of 2310.16764: more FLOPs than an integer of 64 bits holds."""
    spent = {"images": 32 * 10**9, "flops": 1.93e22, "seconds": 12345.678901234567}
    with open_log(tmp_path, tensorboard=True) as log:
        log.write(10, "eval", {"loss": 2.5} | spent)
    (record,) = read_metrics(tmp_path)
    assert record == {"step": 10, "split": "eval", "loss": 2.5} | spent


def test_a_line_is_in_the_file_when_write_returns(tmp_path: Path):
    with open_log(tmp_path) as log:
        log.write(10, "train", {"loss": 2.5, "learning_rate": 0.1})
        assert read_metrics(tmp_path) == [{"step": 10, "split": "train", "loss": 2.5, "learning_rate": 0.1}]
        log.write(20, "eval", {"loss": 2.0, "top1": 50.0})
        assert steps(tmp_path) == [10, 20]


@settings(max_examples=30)
@given(values=st.dictionaries(st.text(), st.floats() | st.integers(), max_size=5))
def test_every_number_comes_back(values: dict[str, float], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    values = {f"metric {name}": value for name, value in values.items()}
    with open_log(folder) as log:
        log.write(1, "train", values)
    (record,) = read_metrics(folder)
    finite = {name: value if math.isfinite(value) else math.nan for name, value in values.items()}
    assert repr(record) == repr({"step": 1, "split": "train"} | finite)


def test_a_value_that_is_not_finite_leaves_the_file_valid_json(tmp_path: Path):
    with open_log(tmp_path) as log:
        log.write(1, "train", {"loss": math.nan, "grad_norm": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["loss"] is None
    assert math.isnan(read_metrics(tmp_path)[0]["grad_norm"])


@pytest.mark.parametrize("resume_step, kept", [(0, []), (10, [0, 10]), (15, [0, 10]), (30, [0, 10, 20, 30])])
def test_a_run_that_goes_on_drops_the_lines_of_the_steps_that_it_makes_again(
    tmp_path: Path, resume_step: int, kept: list[int]
):
    with open_log(tmp_path) as log:
        for step in (0, 10, 20, 30):
            log.write(step, "train", {"loss": 1.0})
    with open_log(tmp_path, resume_step) as log:
        assert steps(tmp_path) == kept
        log.write(40, "train", {"loss": 0.5})
    assert steps(tmp_path) == [*kept, 40]
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


KILLED = """
import os, signal, sys
from pathlib import Path
from nfnet_eqx.train._metrics import Log

log = Log(Path(sys.argv[1]), resume_step=0, tensorboard=False, total_steps=100, batch_size=8)
for step in range(1, 8):
    log.write(step, "train", {"loss": 1 / step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_lost_by_kill_9(tmp_path: Path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1 / step for step in range(1, 8)]


@given(cut=st.integers(0, 40))
def test_half_a_line_at_the_end_is_not_a_record(cut: int, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    with open_log(folder) as log:
        log.write(1, "train", {"loss": 1.0})
        log.write(2, "train", {"loss": 0.5})
    file = folder / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - cut])
    left = steps(folder)
    assert left == ([1, 2] if cut == 0 else [1])
    with open_log(folder, resume_step=2) as log:
        log.write(3, "train", {"loss": 0.25})
    assert steps(folder) == [*left, 3]


@pytest.mark.parametrize(
    "line",
    [
        "{}", "[1]", "loss 1.0", "", '{"step": 2}', '{"split": "train"}', '{"step": "2", "split": "train"}',
        '{"step": true, "split": "train"}', '{"step": -1, "split": "train"}', '{"step": 2, "split": "test"}',
        '{"step": 2, "split": ["train"]}', '{"step": 2, "split": "train", "loss": "1.0"}',
        '{"step": 2, "split": "train", "loss": [1.0]}', '{"step": 2, "split": "train", "loss": true}',
        '{"step": 2, "split": "train", "loss": 1e999}', '{"step": 2, "split": "train", "loss": 1' + 400 * "0" + "}",
        '{"step": 2, "split": "train", "step": 3}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str):
    good = '{"step": 1, "split": "train", "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text(good + line + "\n" + good)
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 is not a record"):
        read_metrics(tmp_path)
    with pytest.raises(InputError, match="line 2"):
        open_log(tmp_path, resume_step=1)
    assert (tmp_path / "metrics.jsonl").read_text() == good + line + "\n" + good


VALID = b"".join(
    b'{"step": %d, "split": "train", "loss": 2.5, "learning_rate": 0.1, "top1": null, "epoch": 0.25}\n' % step
    for step in (1, 5, 10)
)


@settings(max_examples=300)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from(
            [b"NaN", b"1e999", b"-1", b'"', b"[", b"{}", b"true", b"null", b"9" * 400, b"\xff\xfe", b"\n", b"train"]
        )),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_a_damaged_log_is_read_and_drawable_or_refused(cuts: list, tmp_path_factory: pytest.TempPathFactory):
    folder, content = tmp_path_factory.mktemp("run"), VALID
    for at, length, instead in cuts:
        content = content[:at] + instead + content[at + length :]
    (folder / "metrics.jsonl").write_bytes(content)
    try:
        records = read_metrics(folder)
    except InputError as error:
        assert f"{folder}/metrics.jsonl: line " in str(error)
        return
    for record in records:
        assert type(record.pop("step")) is int and record.pop("split") in ("train", "eval")
        assert all(type(float(value)) is float for value in record.values())


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=r"metrics\.jsonl: Is a directory"):
        read_metrics(tmp_path)


def test_a_folder_without_a_log_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"metrics\.jsonl: no such file"):
        read_metrics(tmp_path)


def test_a_full_disk_is_one_clear_line_and_costs_no_earlier_record(tmp_path: Path):
    """A limit on the file's size fails as a full disk does, in the middle of a line."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_log(tmp_path) as log:
        log.write(1, "train", {"loss": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
            with pytest.raises(InputError, match=r"metrics\.jsonl: File too large; .* goes on after the last"):
                log.write(2, "train", {"loss": 0.5})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size + 20
    assert steps(tmp_path) == [1]


FULL = """
import resource, sys
from pathlib import Path
from nfnet_eqx._errors import InputError
from nfnet_eqx.train._metrics import Log

try:
    with Log(Path(sys.argv[1]), resume_step=0, tensorboard=True, total_steps=100, batch_size=8) as log:
        log.write(1, "train", {"loss": 1.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        log.write(2, "train", {"loss": 0.5})
except InputError as error:
    print(error)
"""


def test_events_that_cannot_be_written_do_not_hide_why_the_run_ended(tmp_path: Path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.stdout.startswith(f"{tmp_path}/metrics.jsonl: File too large; mend that"), process.stderr
    assert f"{tmp_path}/tensorboard: TensorBoard's last events are not written: File too large" in process.stderr


class Recorder:
    def __init__(self) -> None:
        self.seen: list = []

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        self.seen.append((step, split, dict(metrics)))

    def close(self) -> None:
        self.seen.append("closed")


def test_other_writers_get_the_same_numbers_and_are_closed(tmp_path: Path):
    recorder = Recorder()
    with open_log(tmp_path, writers=[recorder]) as log:
        log.write(10, "train", {"loss": 2.5})
        log.write(10, "eval", {"top1": 50.0})
    assert recorder.seen == [(10, "train", {"loss": 2.5}), (10, "eval", {"top1": 50.0}), "closed"]


def test_tensorboard_gets_the_numbers(tmp_path: Path):
    from tensorboardX.proto.event_pb2 import Event

    with open_log(tmp_path, tensorboard=True) as log:
        log.write(10, "train", {"loss": 2.5})
        log.write(20, "eval", {"top1": 50.0})
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # a record: its length, a checksum of that, itself, a checksum
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert scalars == [(10, "train/loss", 2.5), (20, "eval/top1", 50.0)]


def test_without_tensorboardx_the_extra_is_named_and_the_log_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with open_log(tmp_path) as log:
        log.write(10, "train", {"loss": 2.5})
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'nfnet-eqx\[tensorboard\]'"):
        open_log(tmp_path, tensorboard=True)
    assert steps(tmp_path) == [10]


def test_without_a_terminal_every_record_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with open_log(tmp_path) as log:
        log.write(1000, "train", {"grad_norm": 1.0, "loss": 2.5, "learning_rate": 0.1, "images_per_second": 1234.5})
        log.write(1000, "eval", {"loss": math.nan, "top1": 50.0, "epoch": 0.5})
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "step 1,000, train: loss 2.5000, learning rate 0.1, 1,234 img/s\n"
        "step 1,000, eval: epoch 0.50, loss nan, top-1 50.00 %\n"
    )


def test_without_a_terminal_a_line_says_how_long_the_rest_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with open_log(tmp_path) as log:
        log.write(25, "train", {"loss": 2.5, "images_per_second": 4.0})
    assert capsys.readouterr().err == "step 25, train: loss 2.5000, 4 img/s, 02:30 left\n"


def test_the_first_line_that_knows_the_rate_says_what_the_run_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """100 steps of 8 images at 4 images a second are 200 s; of 5 FLOPs each, 20 a second."""
    caplog.set_level("INFO")
    with open_log(tmp_path) as log:
        log.write(1, "train", {"loss": 2.5, "images": 8, "flops": 40.0})
        assert not caplog.records, "of the first step alone nothing is known"
        log.write(25, "train", {"loss": 2.5, "images_per_second": 4.0, "images": 200, "flops": 1000.0})
        log.write(50, "train", {"loss": 2.5, "images_per_second": 8.0, "images": 400, "flops": 2000.0})
    assert [record.getMessage() for record in caplog.records] == [
        "step 25: 20 FLOP/s; at this rate the whole run trains for 03:20"
    ]


SHOWN = """
import sys
from pathlib import Path
from nfnet_eqx.train._metrics import Log

with Log(Path(sys.argv[1]), resume_step=20, tensorboard=False, total_steps=100, batch_size=8) as log:
    log.write(50, "train", {"loss": 2.5, "learning_rate": 0.1})
    log.write(50, "eval", {"top1": 50.0})
"""


def on_terminal(code: str, folder: Path) -> str:
    """What a terminal gets from a program."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [sys.executable, "-c", code, str(folder)]
    process = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, timeout=60)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


def test_a_terminal_shows_a_bar_with_pictures_loss_and_learning_rate(tmp_path: Path):
    text = on_terminal(SHOWN, tmp_path)
    assert " 20%" in text and "400/800" in text, text  # from where it goes on to where it is
    assert "img/s" in text and "loss=2.5" in text and "lr=0.1" in text, text
    assert "step 50, eval: top-1 50.00 %" in text and "step 50, train" not in text, text


SLOW_FIRST = """
import sys, time
from pathlib import Path
from nfnet_eqx.train._metrics import Log

with Log(Path(sys.argv[1]), resume_step=0, tensorboard=False, total_steps=100, batch_size=8) as log:
    time.sleep(2)  # compiling
    for step in range(1, 6):
        log.progress(step)
        time.sleep(0.15)
"""


def test_the_bar_moves_with_each_step_and_leaves_the_compilation_out_of_the_time_left(tmp_path: Path):
    """With it, the rest would take over a minute; 95 steps of 0.15 s are 14 s."""
    text = on_terminal(SLOW_FIRST, tmp_path)
    assert "8.00/800" in text and "16.0/800" in text and "32.0/800" in text, text
    seconds = [60 * int(m) + int(s) for m, s in re.findall(r"<(\d\d):(\d\d)", text)]
    assert seconds and max(seconds) < 45, text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side has closed it
        return b""
