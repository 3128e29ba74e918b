"""What must hold for every file of the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500

# Folders of one developer's machine, and hosts that only a package client has to know.
MACHINE_PATH = re.compile(rb"(?<![\w.-])/(?:work|root|farm|home/[a-z]|opt/wheels|opt/pypi)/|\.\./shared\b")
REGISTRY = re.compile(rb"pypi\.org|pythonhosted\.|npmjs\.(?:org|com)|download\.pytorch\.")


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """The files that git tracks, or would."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file() and not path.is_symlink()]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry host"])
def test_no_file_names_a_place_that_only_this_machine_knows(files: list[Path], pattern: re.Pattern[bytes]):
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in files
        for match in pattern.finditer(path.read_bytes())
    ]
    assert not found, "\n".join(found)


def test_no_source_file_is_longer_than_500_lines(files: list[Path]):
    lengths = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in files if path.suffix == ".py"}
    assert lengths, "no Python file found"
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
