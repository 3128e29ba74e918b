"""`from_pretrained`: a checkpoint by one line, from the package, from a folder, or from the Hub.

From the Hub only `config.json` and safetensors files are fetched: never a pickle, never code.
"""

import os
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from jax.typing import DTypeLike

from nfnet_eqx._errors import InputError
from nfnet_eqx._variants import VARIANTS
from nfnet_eqx.convert._tensors import read_index
from nfnet_eqx.zoo.checkpoint import CONFIG_NAME, INDEX_NAME, WEIGHTS_NAME, Checkpoint, load_checkpoint

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def bundled() -> dict[str, Path]:
    """The folders of the checkpoints that ship with the package, by name."""
    weights = Path(str(resources.files("nfnet_eqx.zoo"))) / "weights"
    return {folder.name: folder for folder in sorted(weights.glob("*")) if (folder / CONFIG_NAME).is_file()}


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Checkpoint:
    """Open a checkpoint.

    Args:
        source: in this order: the name of a bundled checkpoint (`bundled()` lists them); a folder, ours or timm's, or a
            `.safetensors` file with its `config.json` beside it; the id of a repository on the Hub: `"org/name"`,
            `"org/name@revision"`, `"hf-hub:org/name"`, or timm's short form `"dm_nfnet_f0.dm_in1k"`.
        num_classes: another number of classes: the classifier starts afresh (from a fixed seed), and the log says so.
        in_channels: another number of input channels: the first convolution is adapted by timm's rule.
        dtype: what to keep the parameters in; `None` is float32.
        revision: a branch, tag or commit of the repository; by default `main`.
        cache_dir: where downloads are kept; by default where huggingface_hub keeps them (`HF_HOME`).
        token: for a private or gated repository; by default the one of `hf auth login`.
        local_files_only: use what the cache holds and do not touch the network (so does `HF_HUB_OFFLINE=1`).
        endpoint: another Hub than huggingface.co.

    Raises:
        InputError: there is no such checkpoint, it cannot be reached, or it is broken; the message says which.
    """
    kwargs: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "dtype": dtype}
    name = os.fspath(source)
    if name in bundled():
        return load_checkpoint(bundled()[name], source=name, **kwargs)
    if os.path.exists(name):
        return load_checkpoint(name, **kwargs)
    repo_id, revision = _parse_hub_id(name, revision)
    folder = _download(
        repo_id,
        revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        endpoint=endpoint,
    )
    return load_checkpoint(folder, source=f"{repo_id}@{folder.name}", **kwargs)


def _parse_hub_id(name: str, revision: str | None) -> tuple[str, str | None]:
    """Repository and revision of a Hub id, in any of its spellings."""
    repo_id, _, at_revision = name.removeprefix("hf-hub:").removeprefix("hf_hub:").partition("@")
    if at_revision and revision not in (None, at_revision):
        raise InputError(f"{name!r} names the revision {at_revision!r}, and revision={revision!r} another; give one")
    revision = at_revision or revision
    architecture, dot, _ = repo_id.partition(".")
    if dot and architecture in VARIANTS:
        repo_id = f"timm/{repo_id}"
    if _REPO_ID.fullmatch(repo_id) and not name.startswith(("./", "../")):
        return repo_id, revision
    if name in VARIANTS:
        raise InputError(
            f"{name!r} is an architecture, and which of its weights are meant is not clear: give a Hub id such as "
            f"'timm/{name}.<tag>', or use create_model for random ones"
        )
    raise InputError(
        f"{name!r} is no bundled checkpoint ({', '.join(bundled()) or 'none'}), no existing folder, and no Hub id such "
        "as 'timm/dm_nfnet_f0.dm_in1k'"
    )


def _download(
    repo_id: str,
    revision: str | None,
    *,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    local_files_only: bool,
    endpoint: str | None,
) -> Path:
    """The folder of the cache that holds one commit of a repository: its config.json and its weights."""
    from huggingface_hub import errors, hf_hub_download

    def fetch(filename: str, revision: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo_id,
                filename,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                local_files_only=local_files_only,
                endpoint=endpoint,
                library_name="nfnet-eqx",
            )
        )

    where = repo_id if revision is None else f"{repo_id}@{revision}"
    try:
        folder = fetch(CONFIG_NAME, revision).parent
        # From here on by commit: all files are of one version, and those in the cache need no request.
        _fetch_weights(lambda filename: fetch(filename, folder.name), errors.EntryNotFoundError)
        return folder
    except errors.GatedRepoError:
        raise InputError(f"{where}: access must be granted on its page first; then log in or give token=") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{where}: no such repository on the Hub (or a private one, which needs token=)") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{where}: the repository has no such revision") from None
    except errors.LocalEntryNotFoundError:
        raise InputError(
            f"{where}: not in the cache, and the Hub was not asked or not reached; connect, and unset HF_HUB_OFFLINE "
            "and local_files_only"
        ) from None
    except errors.EntryNotFoundError as error:
        missing = f"no {CONFIG_NAME}" if CONFIG_NAME in str(error) else f"no {WEIGHTS_NAME}"
        raise InputError(f"{where}: the repository has {missing}; other formats are never fetched") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from None


def _fetch_weights(fetch: Callable[[str], Path], absent: type[Exception]) -> None:
    """Fetch the weights, in one file or in shards."""
    try:
        fetch(WEIGHTS_NAME)
        return
    except absent as error:
        nothing = error
    try:
        index = fetch(INDEX_NAME)
    except absent:
        raise nothing from None
    for shard in read_index(index):
        fetch(shard)
