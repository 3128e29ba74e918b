"""Imports go one way, from the core up to the command, and `import nfnet_eqx` stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# layer: the layers it may import, beside itself; and the packages from elsewhere.
LAYERS = {
    "core": set(),
    "optim": {"core"},
    "convert": {"core"},
    "data": {"core"},
    "zoo": {"core", "convert"},
    "train": {"core", "optim", "data", "convert", "zoo"},
    "cli": {"core", "optim", "data", "convert", "zoo", "train"},
}
NUMERICS = {"equinox", "jax", "jaxtyping", "numpy"}
PACKAGES = {
    "core": NUMERICS,
    "optim": NUMERICS | {"optax"},
    "convert": NUMERICS | {"timm", "torch", "torchvision"},  # these three: verify, where installed
    "zoo": NUMERICS | {"huggingface_hub", "PIL", "tqdm"},
    "data": NUMERICS | {"PIL", "absl", "array_record", "cv2", "datasets", "grain", "simplejpeg", "sklearn"},
    "train": NUMERICS | {"PIL", "matplotlib", "optax", "orbax", "tensorboardX", "tqdm"},
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


def layer(module: str) -> str:
    """`nfnet_eqx.zoo.hub` -> `zoo`; `nfnet_eqx` and its private modules are the core, `python -m nfnet_eqx` is not."""
    parts = module.split(".")
    second = parts[1] if len(parts) > 1 else ""
    if second == "__main__":
        return "cli"
    return "core" if second == "" or second.startswith("_") else second


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
                # `from nfnet_eqx import zoo` imports a layer, `from nfnet_eqx import fold` a name of the core.
                submodule = f"{module}.{alias.name}"
                yield node.lineno, submodule if submodule in MODULES else module


def test_every_package_has_a_layer():
    assert {layer(name) for name in MODULES} == set(LAYERS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_the_layers_below_it(name: str):
    faults = []
    for line, imported in imports(MODULES[name]):
        where = f"{MODULES[name].relative_to(ROOT)}:{line} imports {imported}"
        top = imported.split(".")[0]
        if top == "nfnet_eqx":
            # nfnet_eqx/__init__.py resolves the public names of the zoo on their first use; the test below holds that.
            allowed = {"zoo"} if name == "nfnet_eqx" else LAYERS[layer(name)]
            if layer(imported) not in {layer(name), *allowed}:
                faults.append(f"{where}: {layer(name)} may use {sorted(allowed)}")
        elif top not in sys.stdlib_module_names and top not in PACKAGES[layer(name)]:
            faults.append(f"{where}: {layer(name)} may use {sorted(PACKAGES[layer(name)])}")
    assert not faults, "\n".join(faults)


def test_importing_the_library_loads_neither_the_hub_nor_pictures_nor_the_command_line():
    code = f"import sys, nfnet_eqx; print(*(set({LAZY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
