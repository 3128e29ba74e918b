"""`nfnet-eqx list`."""

import dataclasses
import json

import pytest

from nfnet_eqx.cli import main
from nfnet_eqx.models._families import VARIANTS
from nfnet_eqx.zoo._catalog import Published, catalog


def test_the_json_list_holds_the_whole_family(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(VARIANTS)
    # 2102.06171, table 1.
    f0 = rows["dm_nfnet_f0"]
    assert (f0["train_size"], f0["test_size"]) == (192, 256)
    assert f"{f0['parameters'] / 1e6:.1f}" == "71.5"
    assert f"{f0['macs'] / 1e9:.2f}" == "12.38"


def test_the_table_has_a_line_for_each_match_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "dm_nfnet_f?"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"dm_nfnet_f{size}" for size in range(8)]
    assert lines[0].split() == ["dm_nfnet_f0", "71.5", "M", "12.38", "G", "192", "256"]
    assert {len(line) for line in lines} == {len(header)}
    assert len(header) <= 60


def test_a_pattern_without_a_match_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "resnet*"]) == 2
    assert capsys.readouterr().err == "nfnet-eqx: no architecture matches 'resnet*'; nfnet-eqx list names them all\n"


# --- checkpoints ---


def test_the_table_of_checkpoints_has_them_all_and_fits_a_wide_terminal(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--pretrained"]) == 0
    header, *lines, where = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [published.name for published in catalog()]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    figures = ["71.5", "M", "12.38", "G", "256"]
    timm = ["83.47", "%", "timm", "apache-2.0", "timm/dm_nfnet_f0.dm_in1k"]
    assert rows["dm_nfnet_f0.dm_in1k"] == [*figures, *timm]
    # The paper prints one digit.
    deepmind = ["83.6", "%", "deepmind", "not", "stated", "file", "F0_haiku.npz"]
    assert rows["dm_nfnet_f0.deepmind"] == [*figures, *deepmind]
    shipped = ["1.4", "M", "0.05", "G", "32", "88.5", "%", "deepmind", "apache-2.0"]
    assert rows["nfnet_cifar10"] == [*shipped, *"ships with the package (CIFAR-10)".split()]
    assert where == "files are under https://storage.googleapis.com/dm-nfnets/"
    assert max(map(len, (header, *lines, where))) <= 120
    for column, entry in (("parameters", "    71.5 M"), ("top-1", "83.47 %"), ("licence", "apache-2.0")):
        assert header.index(column) == lines[1].index(entry), column


def test_the_json_list_of_checkpoints_has_every_field(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--pretrained", "dm_nfnet_f0.*", "--json"]) == 0
    timm, deepmind = json.loads(capsys.readouterr().out)
    assert timm.keys() == deepmind.keys() == {field.name for field in dataclasses.fields(Published)}
    assert timm["hub_id"] == "timm/dm_nfnet_f0.dm_in1k"
    assert [(accuracy["size"], accuracy["top1"]) for accuracy in timm["published"]] == [(192, 81.436), (256, 83.468)]
    assert (deepmind["license"], deepmind["file_size"]) == (None, 285_976_842)
    assert deepmind["md5"] == "0a41039da1cb43adf47f1b7d86ddfe0f"


def test_checkpoints_are_chosen_by_a_pattern(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "*cifar10", "--pretrained"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "a header, a line, and no word of files to download"
    assert main(["list", "dm_nfnet_f7*", "--pretrained"]) == 2
    message = "no checkpoint matches 'dm_nfnet_f7*'; nfnet-eqx list --pretrained names them all"
    assert capsys.readouterr().err == f"nfnet-eqx: {message}\n"
