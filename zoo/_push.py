"""`push_to_hub`: a checkpoint and its card to a repository of the Hub, in one commit."""

import contextlib
import logging
import os
import re
import tempfile
from pathlib import Path

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import read_json
from nfnet_eqx.checkpoints import (
    CARD_NAME,
    CONFIG_NAME,
    FOREIGN_SUFFIXES,
    Checkpoint,
    History,
    card_on_hub,
    checkpoint_files,
    exported_by,
    load_checkpoint,
    load_run,
    run_of,
    save_pretrained,
    write_card,
)
from nfnet_eqx.zoo._client import Client, Listing, check_revision
from nfnet_eqx.zoo._fetch import forget

# Our own weights, in one file or in shards; those of other formats.
_OURS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_OTHERS = (".safetensors", *FOREIGN_SUFFIXES)

_log = logging.getLogger(__name__)


def push_to_hub(
    ckpt: Checkpoint | str | os.PathLike[str],
    repo_id: str,
    *,
    history: History | None = None,
    overwrite: bool = False,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Publish a checkpoint on the Hub: its config, its weights and its card, in one commit and nothing else.

    Anyone then opens it by `nfx.from_pretrained("org/name")` and, where timm has the architecture, by
    `timm.create_model("hf-hub:org/name", pretrained=True)`.

    Args:
        ckpt: a checkpoint, the folder of one or of a training run, or a state of a run. A folder's own card is
            published as it is, with the repository's name in its examples; where there is none, and for a checkpoint,
            one is written. It takes the place of the repository's, which belongs to other weights.
        repo_id: `"org/name"`, or `"name"` for one of your own; it is made where there is none.
        history: what the written card tells.
        overwrite: replace a checkpoint of another architecture, which is refused otherwise.
        private: whether a new repository is private.
        revision: the branch to commit to, made where there is none; by default `main`.
        create_pr: propose the commit as a pull request instead.
        commit_message: by default it names the architecture.
        token: by default the one of `hf auth login`.
        endpoint: another Hub than huggingface.co.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        InputError: the checkpoint is broken, the repository may not be written or holds another architecture, or the
            Hub cannot be reached. A new repository or branch may be there then, without the checkpoint; nothing else
            has changed, unless the connection broke while the Hub answered the commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if not isinstance(ckpt, Checkpoint | str | os.PathLike):
        raise InputError(
            f"ckpt: a Checkpoint or the folder of one is needed, this is of type {type(ckpt).__name__}; a network "
            "needs its preprocessing beside it: Checkpoint(model=..., preprocess=..., labels=..., architecture=...)"
        )
    revision = revision or None
    if token is False:
        raise InputError("token=False: nothing is published without one; leave it out (`hf auth login`), or give one")
    if revision is not None:
        check_revision(revision)
    if create_pr and revision is not None:
        raise InputError(f"revision (={revision!r}): a pull request is one to main; leave out revision or create_pr")
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        raise InputError(f"revision (={revision!r}): is a commit, and nothing is added to one; name a branch")
    client = Client.make(token, endpoint)
    api = client.api
    with tempfile.TemporaryDirectory(prefix="nfnet-eqx-push-") as temporary:
        opened, files, card = _prepare(ckpt, history or History(), Path(temporary))
        names = {file.name for file in files}
        try:
            # Who is nobody is told so here; further on the Hub would say that there is no such repository.
            me = client.ask(lambda: api.whoami()["name"])
            repo_id = repo_id if "/" in repo_id else f"{me}/{repo_id}"
            there, new_branch = _look(client, repo_id, revision, private, create_pr)
            if not overwrite:
                _check_architecture(client, repo_id, there, opened.architecture, temporary)
            if new_branch:
                client.ask(lambda: api.create_branch(repo_id, branch=revision, revision=there.commit, exist_ok=True))
            stale = [name for name in there.hashes if _OURS.fullmatch(name) and name not in names]
            _note_other_weights(repo_id, there, names)
            operations = [
                *(CommitOperationAdd(file.name, file) for file in files),
                CommitOperationAdd(CARD_NAME, card_on_hub(card, repo_id).encode()),
                *(CommitOperationDelete(name) for name in stale),  # else they, and not the new ones, could be opened
            ]
            if not create_pr:
                forget(repo_id, revision)  # before, since what became of a commit whose answer is lost is not known

            def commit() -> str:
                try:
                    made = api.create_commit(
                        repo_id,
                        operations,
                        commit_message=commit_message or f"{opened.architecture}, pushed by nfnet-eqx",
                        revision=revision,
                        create_pr=create_pr,
                        parent_commit=there.commit,
                    )
                except ValueError as error:
                    if type(error) is ValueError and "metadata" in str(error):  # the client looks at the card
                        raise InputError(f"{repo_id}: {CARD_NAME}: {' '.join(str(error).split())}") from None
                    raise
                return str(made.pr_url or made.commit_url)

            return client.redacted(client.ask_once(commit))  # once, for the same reason
        except Exception as error:
            raise client.explained(error, repo_id) from None


def _prepare(
    ckpt: Checkpoint | str | os.PathLike[str], history: History, temporary: Path
) -> tuple[Checkpoint, list[Path], str]:
    """The checkpoint, its files and the text of its card; what is not yet written goes to a temporary folder."""
    if not isinstance(ckpt, Checkpoint):
        ckpt = exported_by(ckpt)  # of a training run
        if run_of(ckpt) is not None:
            ckpt = load_run(ckpt)  # one of its states
    if isinstance(ckpt, Checkpoint):
        folder = temporary
        save_pretrained(ckpt, folder)
    else:
        folder = Path(ckpt)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folder of a checkpoint")
        ckpt = load_checkpoint(folder)  # what cannot be opened is not published
    card = folder / CARD_NAME
    if not card.is_file():
        write_card(temporary, ckpt, history)
        card = temporary / CARD_NAME
    try:
        return ckpt, checkpoint_files(folder), card.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{card}: is not UTF-8 text; write it again") from None


def _look(
    client: Client, repo_id: str, revision: str | None, private: bool | None, create_pr: bool
) -> tuple[Listing, bool]:
    """What the Hub says of the branch that is committed to, or of main; and whether the branch has to be made first.

    A repository is made where there is none.
    """
    from huggingface_hub import errors

    try:
        there = client.listing(repo_id)
    except errors.RepositoryNotFoundError:
        if create_pr:
            raise
        client.ask(lambda: client.api.create_repo(repo_id, private=private, exist_ok=True))
        there = client.listing(repo_id)
    if private and not there.private:
        raise InputError(f"{repo_id}: exists and is public; make it private on its settings page, or leave out private")
    if revision is None:
        return there, False
    try:
        return client.listing(repo_id, revision), False
    except errors.RevisionNotFoundError:
        return there, True


def _check_architecture(client: Client, repo_id: str, there: Listing, architecture: str, temporary: str) -> None:
    """Refuse to replace the checkpoint of another architecture, or of another library."""
    theirs = None
    if CONFIG_NAME in there.hashes:
        client.check_answers(repo_id, CONFIG_NAME, there.commit, there.commit)
        path = client.ask(
            lambda: client.api.hf_hub_download(repo_id, CONFIG_NAME, revision=there.commit, cache_dir=temporary)
        )
        with contextlib.suppress(InputError, AttributeError):
            settings = read_json(Path(path))
            theirs = (settings.get("nfnet_eqx") or settings).get("architecture")
    elif not any(name.endswith(_OTHERS) for name in there.hashes):
        return
    if theirs != architecture:
        raise InputError(
            f"{repo_id}: holds {theirs or 'something else'!r}, and this is {architecture!r}; push to another "
            "repository, or replace it with overwrite"
        )


def _note_other_weights(repo_id: str, there: Listing, ours: set[str]) -> None:
    known = [name for name in there.hashes if name in ours or _OURS.fullmatch(name)]
    others = [name for name in there.hashes if name.endswith(_OTHERS) and name not in known]
    if others:
        _log.warning("%s also holds %s, which stay as they are", repo_id, ", ".join(map(repr, others[:5])))
