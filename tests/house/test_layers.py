"""The house: seven floors, imports run down, each package has one face, and `import nfnet_eqx` stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up. A room imports from the floors below its own; on one floor, only what NEIGHBOURS names.
FLOORS = [
    {"ground"},
    {"models", "images"},
    {"checkpoints", "optim", "data"},
    {"convert", "zoo"},
    {"train"},
    {"scaling"},
    {"cli"},
]
NEIGHBOURS = {("zoo", "convert")}  # a file of DeepMind's opens as any checkpoint does
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What each room needs from elsewhere.
NUMERICS = {"equinox", "jax", "jaxtyping", "numpy"}
PACKAGES = {
    "ground": NUMERICS | {"orbax"},
    "models": NUMERICS,
    "images": {"PIL", "jaxtyping", "numpy", "simplejpeg"},
    "checkpoints": NUMERICS | {"huggingface_hub"},  # the front matter of a card
    "optim": NUMERICS | {"optax"},
    "data": NUMERICS | {"PIL", "absl", "array_record", "cv2", "datasets", "grain", "pyarrow", "sklearn"},
    "convert": NUMERICS | {"timm", "torch", "torchvision"},  # these three: verify, where installed
    "zoo": NUMERICS | {"huggingface_hub", "tqdm"},
    "train": NUMERICS | {"PIL", "matplotlib", "optax", "tensorboardX", "tqdm"},
    "scaling": NUMERICS | {"matplotlib", "scipy", "tqdm"},
    "cli": NUMERICS | {"PIL", "tqdm", "tyro"},
}
# Not one of these belongs to what `import nfnet_eqx` needs.
LAZY = [
    "PIL",
    "cv2",
    "gradio",
    "grain",
    "huggingface_hub",
    "matplotlib",
    "orbax",
    "safetensors",
    "tensorflow",
    "torch",
    "tqdm",
    "tyro",
]


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the library by its import name."""
    for package, folder in {"nfnet_eqx": "nfnet_eqx", "nfnet_eqx.convert": "convert", "nfnet_eqx.zoo": "zoo"}.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                yield ".".join((package, *parts)).removesuffix(".__init__"), path


MODULES = dict(modules())
# Seen from outside, a package is this one module.
FACES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def room(module: str) -> str:
    """`nfnet_eqx.zoo._hub` -> `zoo`; what lies directly under `nfnet_eqx` is the ground, but for `__main__`."""
    parts = module.split(".")
    second = parts[1] if len(parts) > 1 else ""
    if second == "__main__":
        return "cli"
    return second if f"nfnet_eqx.{second}" in FACES else "ground"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it from nfnet_eqx on"
            module = node.module or ""
            for alias in node.names:
                # `from nfnet_eqx import zoo` imports a room, `from nfnet_eqx.models import fold` a name of a face.
                submodule = f"{module}.{alias.name}"
                yield node.lineno, submodule if submodule in MODULES else module


def may_import(upper: str, lower: str) -> bool:
    """Whether a module of the room `upper` may import one of `lower`."""
    return upper == lower or FLOOR[lower] < FLOOR[upper] or (upper, lower) in NEIGHBOURS


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} == set(FLOOR) == set(PACKAGES)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "nfnet_eqx"])
def test_a_module_imports_only_from_the_floors_below_it(name: str):
    faults = []
    for line, imported in imports(MODULES[name]):
        where = f"{MODULES[name].relative_to(ROOT)}:{line} imports {imported}"
        top = imported.split(".")[0]
        if imported == "nfnet_eqx":
            faults.append(f"{where}: the public face is for users; import from the room itself")
        elif top == "nfnet_eqx" and not may_import(room(name), room(imported)):
            faults.append(f"{where}: {room(name)} stands on {FLOORS[: FLOOR[room(name)]]}")
        elif top != "nfnet_eqx" and top not in sys.stdlib_module_names and top not in PACKAGES[room(name)]:
            faults.append(f"{where}: {room(name)} may use {sorted(PACKAGES[room(name)])}")
    assert not faults, "\n".join(faults)


EXAMPLES = {f"examples.{path.stem}": path for path in sorted((ROOT / "examples").rglob("*.py"))}


@pytest.mark.parametrize("name", [*MODULES, *EXAMPLES])
def test_a_module_imports_from_the_faces_of_other_packages(name: str):
    path = (MODULES | EXAMPLES)[name]
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}, behind the face of {room(imported)}"
        for line, imported in imports(path)
        if imported.startswith("nfnet_eqx.") and imported not in FACES
        if room(imported) not in ({"ground"} if name in EXAMPLES else {"ground", room(name)})
    ]
    assert not faults, "\n".join(faults)


def test_importing_the_library_loads_neither_the_hub_nor_images_nor_the_command_line():
    code = f"import sys, nfnet_eqx; print(*(set({LAZY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_the_public_face_offers_its_names_and_nothing_else():
    code = "import nfnet_eqx as n; a, b = set(dir(n)), set(n.__all__); print(*a - b - set(n._PACKAGES)); print(*b - a)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    extra, missing = result.stdout.splitlines()
    assert [name for name in extra.split() if not name.startswith("__")] == []
    assert missing == ""


def test_the_packages_are_there_after_the_import_of_the_library_alone():
    code = "import nfnet_eqx as nfx; print(nfx.convert.convert, nfx.zoo.pull, nfx.models.NFNet, nfx.optim.agc)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
