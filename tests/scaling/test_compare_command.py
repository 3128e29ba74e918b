"""`nfnet-eqx scaling compare`: files and families by name, words and JSON, one line for what cannot be used."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from nfnet_eqx import scaling
from nfnet_eqx.cli import main
from nfnet_eqx.scaling import EqualCompute, Point

Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["scaling", "compare", *map(str, arguments)])
        words, fault = capsys.readouterr()
        return status, words, fault

    return run


def runs(family: str, times: float = 1.0) -> list[Point]:
    """Runs on a power law, with a little scatter."""
    return [
        Point(
            run=f"{family}{n}",
            model=f"m{n % 3}",
            family=family,
            dataset="cifar10",
            flops=times * 1e15 * 2.0**n,
            seconds=times * 2.0**n,
            epochs=2.0**n,
            learning_rate=0.1,
            loss=1 + 30 * (1e15 * 2.0**n) ** -0.1 * (1 + 0.001 * (-1) ** n),
        )
        for n in range(12)
    ]


def table(path: Path, points: Iterable[Point]) -> Path:
    path.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in points))
    return path


def test_two_families_of_one_file(tmp_path: Path, ran: Ran):
    file = table(tmp_path / "results.jsonl", [*runs("NFNet"), *runs("ViT", 2.0)])
    status, words, _ = ran(file, "--a", "NFNet", "--b", "ViT", "--samples", 200)
    assert status == 0
    assert words.splitlines()[-1].startswith("NFNet is better than ViT: NFNet takes 0.5 times the FLOPs of ViT")
    assert "12 models and budgets" in words and "gap of loss, nats" in words and "ratio of FLOPs" in words
    # Two families need no names; the first in the file is measured.
    assert ran(file, "--samples", 200)[1] == words
    turned = ran(file, "--a", "ViT", "--samples", 200)[1]
    assert "NFNet is better than ViT: ViT takes 2" in turned
    seconds = ran(file, "--axis", "seconds", "--samples", 200)[1]
    assert "0.5 times the seconds of ViT" in seconds and "same machine" in seconds


def test_two_files_with_or_without_names_of_families(tmp_path: Path, ran: Ran):
    convnets, vits = table(tmp_path / "convnets.jsonl", runs("")), table(tmp_path / "vits.jsonl", runs("ViT", 2.0))
    assert "convnets is better than ViT" in ran(convnets, vits)[1]
    again = table(tmp_path / "again.jsonl", runs("ViT"))
    assert "again is better than vits" in ran(again, vits)[1]
    both = table(tmp_path / "both.jsonl", [*runs("NFNet"), *runs("ViT", 2.0)])
    status, words, fault = ran(both, vits)
    assert (status, words) == (2, "") and "choose with --a (first file)" in fault
    assert "NFNet is better than ViT" in ran(both, vits, "--a", "NFNet")[1]


def test_the_json_is_the_whole_comparison(tmp_path: Path, ran: Ran):
    file = table(tmp_path / "results.jsonl", [*runs("NFNet"), *runs("ViT", 2.0)])
    found = json.loads(ran(file, "--json", "--samples", 200)[1])
    assert set(found) == {field.name for field in dataclasses.fields(EqualCompute)}
    assert found["mean_ratio"]["low"] < 0.5 < found["mean_ratio"]["high"]
    assert found["a"]["envelope"][0]["run"] == "NFNet0"


def test_save_draws_the_same_comparison(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch):
    drawn: list[tuple[EqualCompute, Path]] = []
    monkeypatch.setattr(scaling, "plot_compare", lambda found, path: drawn.append((found, path)), raising=False)
    file = table(tmp_path / "results.jsonl", [*runs("NFNet"), *runs("ViT", 2.0)])
    status, words, _ = ran(file, "--save", tmp_path / "compare.svg", "--samples", 200)
    assert status == 0
    ((found, path),) = drawn
    assert path == tmp_path / "compare.svg" and words.splitlines()[-1] == found.verdict


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, ran: Ran):
    file = table(tmp_path / "results.jsonl", [*runs("NFNet"), *runs("ViT"), *runs("MLP")])
    mixed = [*runs("NFNet"), *(dataclasses.replace(point, dataset="digits") for point in runs("ViT"))]
    for arguments, part in (
        ((), "0 files"),
        ((file, file, file), "3 files"),
        ((tmp_path / "none.jsonl",), "none.jsonl"),
        ((file,), "choose two families with --a and --b; it has 'NFNet', 'ViT', 'MLP'"),
        ((file, "--a", "NFNet", "--b", "Vit"), "no run is of the family 'Vit'; there are 'MLP', 'NFNet', 'ViT'"),
        ((file, "--a", "ViT", "--b", "ViT"), "both 'ViT'"),
        ((file, "--a", "NFNet", "--b", "ViT", "--level", "95"), "level (=95.0)"),
        ((table(tmp_path / "mixed.jsonl", mixed),), "different data (cifar10, digits)"),
        ((table(tmp_path / "one.jsonl", runs("ViT")),), "it has 'ViT'"),
    ):
        status, words, fault = ran(*arguments)
        assert (status, words, len(fault.splitlines())) == (2, "", 1), fault
        assert part in fault
