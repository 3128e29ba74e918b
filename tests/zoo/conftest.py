"""A Hub with two repositories, and no waiting."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nfnet_eqx import save_pretrained
from nfnet_eqx.zoo import _client
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, files_of, published, tiny


@pytest.fixture(scope="session")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of one repository of ours and of one of timm's, by name."""
    whole = tmp_path_factory.mktemp("whole")
    save_pretrained(tiny(), whole)
    return {"me/x": files_of(whole), TIMM: published(tmp_path_factory.mktemp("published"))}


@pytest.fixture
def hub(repos: dict[str, dict[str, bytes]], tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        for name, files in repos.items():
            hub.add(name, files)
        yield hub


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "_PAUSES", (0, 0, 0))
