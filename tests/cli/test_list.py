"""`nfnet-eqx list`."""

import json

import pytest

from nfnet_eqx._variants import VARIANTS
from nfnet_eqx.cli import main


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
