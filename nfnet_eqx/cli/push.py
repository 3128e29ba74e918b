"""`nfnet-eqx push`: a checkpoint to the Hub."""

from pathlib import Path
from typing import Annotated

import tyro

from nfnet_eqx.cli._text import printable
from nfnet_eqx.zoo import push_to_hub


def push(
    folder: Annotated[Path, tyro.conf.Positional],
    repo: Annotated[str, tyro.conf.Positional],
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    overwrite: bool = False,
    endpoint: str | None = None,
) -> None:
    """Publish the checkpoint in a folder on the Hub, with its card, in one commit; print its address.

    The folder's config.json, weights and README.md go there, and nothing else that lies in it; a card is written where
    there is none. It takes the token of `hf auth login`, or of the variable HF_TOKEN, with the right to write.

    Example:
        nfnet-eqx push runs/flowers me/flowers-nfnet --private

    Args:
        folder: the checkpoint: what `train`, `convert` or save_pretrained wrote; or a training run, whose export it is,
            or one of its states.
        repo: org/name, or name for one of your own; it is made where there is none.
        private: make the new repository private.
        revision: the branch to commit to, made where there is none; by default main.
        create_pr: propose it as a pull request instead.
        commit_message: by default it names the architecture.
        overwrite: replace a checkpoint of another architecture.
        endpoint: another Hub than huggingface.co.

    Raises:
        InputError: the checkpoint is broken, or the repository may not be written or holds another architecture.
    """
    address = push_to_hub(
        folder,
        repo,
        private=private or None,
        revision=revision,
        create_pr=create_pr,
        commit_message=commit_message,
        overwrite=overwrite,
        endpoint=endpoint,
    )
    print(printable(address))
