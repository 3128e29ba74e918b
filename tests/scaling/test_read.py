"""Tables of points: ours, anyone's, and what is wrong with them, all at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from nfnet_eqx import InputError
from nfnet_eqx.scaling import Point, infer_images, read_points


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_sweeps_rows_come_back_as_they_were_written(tmp_path: Path):
    points = [
        Point(run="a", model="f0", family="NFNet", dataset="cifar10", parameters=10, images=5.5, flops=1e15, loss=2.0,
              learning_rate=0.4, seed=3, top1=50.0),
        Point(run="b", status="diverged"),
        Point(run="c", loss=1.0, flops=2.0, final=False),
    ]  # fmt: skip
    text = "\n".join(json.dumps(dataclasses.asdict(point)) for point in points)
    assert read_points(write(tmp_path, text + "\n", "results.jsonl")) == points


def test_columns_of_any_name_are_mapped(tmp_path: Path):
    path = write(tmp_path, "size,cost,nats\n10,1e3,2.5\n20,2e3,2.25\n")
    found = read_points(path, {"parameters": "size", "flops": "cost", "loss": "nats"})
    assert [(p.parameters, p.flops, p.loss) for p in found] == [(10, 1e3, 2.5), (20, 2e3, 2.25)]
    assert found[0].run != found[1].run


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "flops,loss\n", "has no rows"),
        ("t.csv", "cost,nats\n1,2\n", "no column 'loss'.*no column 'flops'.*it has 'cost', 'nats'"),
        ("t.csv", "flops,loss\n0,2\n-1,2\n", r"flops must be above 0 in line 2 \('0'\), line 3"),
        ("t.csv", "flops,loss\n1,nan\n", "loss must be a number above 0 in line 2"),
        ("t.csv", "flops,loss\n1,-2\n", "loss must be a number above 0 in line 2"),
        (
            "t.csv",
            "flops,loss\nmany,2\ninf,2\n",
            "flops must be a number in line 2 .*must be a finite number in line 3",
        ),
        ("t.csv", "flops,loss\n1,\n", "loss is empty in line 2"),
        ("t.csv", "flops,loss\n1,2,3\n", "2 columns are named, but not so many are in line 2"),
        ("t.csv", "flops,loss,loss\n1,2,3\n", "two columns are named 'loss'"),
        ("t.xlsx", "flops,loss\n1,2\n", "unknown kind of file"),
        ("t.jsonl", "{}\nnonsense\n[1]\n", "line 2 is no JSON .* line 3 is no JSON object"),
        ("t.jsonl", '{"flops": true, "loss": "x"}\n', "flops must be a number.*loss must be a number"),
        ("t.jsonl", '{"flops": 1, "loss": 1, "status": "ok"}\n', "status must be one of done, diverged, failed"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, name: str, text: str, message: str):
    path = write(tmp_path, text, name)
    with pytest.raises(InputError, match=message) as caught:
        read_points(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_columns_and_files_are_named(tmp_path: Path):
    path = write(tmp_path, "flops,loss\n1,2\n")
    with pytest.raises(InputError, match=r"no column 'nats' \(for loss\); no column 'n' \(for parameters\)"):
        read_points(path, {"loss": "nats", "parameters": "n"})
    with pytest.raises(InputError, match="there is no cost"):
        read_points(path, {"cost": "flops"})
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "none.csv")


def test_images_and_flops_are_inferred_on_request_alone():
    points = [
        Point(run="a", parameters=10, flops=600),
        Point(run="b", parameters=10, images=5),
        Point(run="c", flops=1),
    ]
    first, second, third = infer_images(points, 6)
    assert (first.images, second.flops, third) == (10, 300, points[2])
    with pytest.raises(InputError, match="flops_per_parameter"):
        infer_images(points, 0)
