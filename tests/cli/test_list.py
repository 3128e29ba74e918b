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
    f0 = ["dm_nfnet_f0", "71.5", "M", "12.38", "G", "24.77", "G", "74.31", "G", "192", "256"]
    assert lines[0].split() == f0, "at the test size: multiply-adds, FLOPs forward, FLOPs in training"
    assert {len(line) for line in lines} == {len(header)}
    assert len(header) <= 80


def test_a_pattern_without_a_match_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "resnet*"]) == 2
    assert capsys.readouterr().err == "nfnet-eqx: no architecture matches 'resnet*'; nfnet-eqx list names them all\n"


# Parameters in millions and GFLOPs forward, of an image of 224 pixels. For NFNets 2310.16764 prints neither: they were
# derived with the counter that gives 2102.06171's table 3 to the digit.
NFNETS_AT_224 = {
    "dm_nfnet_f0": (71.49, 2 * 9.49),
    "dm_nfnet_f1": (132.63, 2 * 17.44),
    "dm_nfnet_f3": (254.92, 2 * 33.34),
    "dm_nfnet_f3_plus": (423.42, 2 * 51.72),
    "dm_nfnet_f7": (499.50, 2 * 65.14),
    "dm_nfnet_f7_plus": (829.55, 2 * 100.74),
}
# g/14 and G/14: 2106.04560, table 2. So400m/14: 2305.13035.
VITS_AT_224 = {
    "vit_giant_patch14_224": (1011, 533.1),
    "vit_gigantic_patch14_224": (1843, 965.3),
    "vit_so400m_patch14_siglip_224": (428, 221),
}


@pytest.mark.parametrize(
    ("patterns", "published"),
    [
        (["dm_nfnet_f[0137]", "dm_nfnet_f[37]_plus"], NFNETS_AT_224),
        (["vit_g*", "vit_so400m*_224"], VITS_AT_224),
        (["vit_g*", "vit_so400m*_224", "dm_nfnet_f[0137]", "dm_nfnet_f[37]_plus"], NFNETS_AT_224 | VITS_AT_224),
    ],
    ids=["NFNets", "ViTs", "both"],
)
def test_one_call_prints_what_the_papers_models_cost(
    patterns: list[str], published: dict[str, tuple[float, float]], capsys: pytest.CaptureFixture[str]
):
    assert main(["list", "--size", "224", *patterns]) == 0
    _, *lines, at = capsys.readouterr().out.splitlines()
    assert at == "counted for images of 224 x 224 pixels"
    rows = {line.split()[0]: line.split() for line in lines}
    assert set(rows) == set(published)
    for name, (parameters, gflops) in published.items():
        shown = [float(rows[name][i]) for i in (1, 3, 5, 7)]
        assert shown == pytest.approx([parameters, gflops / 2, gflops, 3 * gflops], rel=0.005), name

    assert main(["list", "--size", "224", *patterns, "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        parameters, gflops = published[row["name"]]
        exact = [row["parameters"] / 1e6, row["macs"] / 1e9, row["forward_flops"] / 1e9, row["training_flops"] / 1e9]
        assert exact == pytest.approx([parameters, gflops / 2, gflops, 3 * gflops], rel=0.005), row["name"]
        assert row["size"] == 224


def test_a_size_that_an_architecture_cannot_take_is_refused_with_its_name(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--size", "16", "dm_nfnet_f0"]) == 2
    assert capsys.readouterr().err.startswith("nfnet-eqx: dm_nfnet_f0: image_size (=16) must be at least 32")
    assert main(["list", "--size", "224", "--pretrained"]) == 2
    assert "--size does not go with --pretrained" in capsys.readouterr().err


def test_of_several_patterns_each_must_match(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "nf_resnet50", "dm_nfnet_f0", "dm*f0"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["dm_nfnet_f0", "nf_resnet50"], "each once, in the table's order"
    assert main(["list", "dm_nfnet_f0", "resnet*"]) == 2
    assert "no architecture matches 'resnet*'" in capsys.readouterr().err


# --- checkpoints ---


def test_the_table_of_checkpoints_has_them_all_and_fits_a_wide_terminal(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--pretrained"]) == 0
    header, *lines, where = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [published.name for published in catalog()]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    figures = ["71.5", "M", "12.38", "G", "256"]
    timm = ["83.47", "%", "timm", "apache-2.0", "Hub,", "timm/"]
    assert rows["dm_nfnet_f0.dm_in1k"] == [*figures, *timm]
    # The paper prints one digit.
    deepmind = ["83.6", "%", "deepmind", "not", "stated", "F0_haiku.npz"]
    assert rows["dm_nfnet_f0.deepmind"] == [*figures, *deepmind]
    shipped = ["1.4", "M", "0.05", "G", "32", "88.5", "%", "deepmind", "apache-2.0"]
    assert rows["nfnet_cifar10"] == [*shipped, "in", "the", "package"]
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
