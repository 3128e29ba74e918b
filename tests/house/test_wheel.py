"""What is installed is what is in the tree: built, compared, installed, run from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"nfnet_eqx": "nfnet_eqx", "convert": "nfnet_eqx/convert", "zoo": "nfnet_eqx/zoo"}

pytestmark = [pytest.mark.wheel, pytest.mark.slow]


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, run as a user who has no checkout on the Python path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, as an index would get both."""
    folder = tmp_path_factory.mktemp("build")
    # From a copy: what an earlier build left in the tree (egg-info above all) decides what the next one packs.
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the wheel; the dependencies are borrowed from this one."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "bin/python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=home,
    )
    # A plain path line: the borrowed folder's own .pth files, an editable nfnet_eqx among them, are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_every_file_of_the_tree_and_nothing_else(wheel: Path):
    tree = set()
    for folder, target in PACKAGES.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            linked = any(parent.is_symlink() for parent in (path, *path.parents))
            if path.is_file() and not linked and "__pycache__" not in inside.parts:
                tree.add(f"{target}/{inside.as_posix()}")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert sorted(tree - packed) == [], "in the tree, not in the wheel: is its package or its data in pyproject.toml?"
    assert sorted(packed - tree) == [], "in the wheel, not in the tree"


def test_only_nfnet_eqx_is_importable_at_top_level(wheel: Path):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nfnet_eqx"}


def test_the_installed_library_is_imported_from_the_wheel(installed: Path, tmp_path: Path):
    # A user's own convert.py must not get in the way of ours.
    (tmp_path / "convert.py").write_text("raise ImportError('the wrong convert')\n")
    code = "import nfnet_eqx.convert, nfnet_eqx.zoo; print(nfnet_eqx.__file__, nfnet_eqx.convert.__file__)"
    for path in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert path.startswith(str(installed.parent)), f"{path} is not the installed one"


def test_the_installed_command_runs_in_an_empty_folder(installed: Path, tmp_path: Path):
    rows = json.loads(run(installed / "nfnet-eqx", "list", "dm_nfnet_f0", "--json", cwd=tmp_path))
    assert [row["name"] for row in rows] == ["dm_nfnet_f0"]


def test_the_installed_command_classifies_a_picture_with_the_shipped_checkpoint(installed: Path, tmp_path: Path):
    picture = next(path for path in sorted((ROOT / "examples/images").iterdir()) if path.suffix in {".jpg", ".png"})
    output = run(installed / "nfnet-eqx", "classify", picture, "--save", "out.png", cwd=tmp_path)
    assert picture.name in output
    assert (tmp_path / "out.png").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
