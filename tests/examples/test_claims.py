"""claims.md names tests, commands and files: all of them exist."""

import ast
import re
from pathlib import Path

from nfnet_eqx import list_models
from nfnet_eqx.cli._main import COMMANDS
from nfnet_eqx.cli.scaling import COMMANDS as SCALING

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "claims.md").read_text()
CODE = re.findall(r"`([^`]+)`", TEXT)


def test_every_test_that_it_names_exists():
    named = [code for code in CODE if code.startswith("tests/")]
    assert len(named) > 20
    for name in named:
        file, function = name.split("::")
        tree = ast.parse((ROOT / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_every_command_that_it_names_exists():
    commands = [code.split() for code in CODE if code.startswith("nfnet-eqx ")]
    assert len(commands) > 6
    for _, command, *rest in commands:
        assert command in COMMANDS, command
        assert command != "scaling" or rest[0] in SCALING, rest
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert all(code.split()[1] in targets for code in CODE if code.startswith("make "))


def test_every_pattern_of_names_has_networks():
    for pattern in re.findall(r'"((?:dm_nfnet|vit)_[^"]*)"', TEXT):
        assert list_models(pattern), pattern


def test_every_file_and_recipe_that_it_names_exists():
    files = [code.split()[-1] for code in CODE if code.startswith(("python examples/", "examples/"))]
    links = [f"examples/{link}" for link in re.findall(r"\]\((?!https:)([^)]+)\)", TEXT)]
    assert len(files) > 3 and len(links) > 1
    assert [file for file in files + links if not (ROOT / file).exists()] == []
    for recipe in re.findall(r"recipe `(\w+)`", TEXT):
        assert (ROOT / "nfnet_eqx" / "train" / "recipes" / f"_{recipe}.py").exists(), recipe
