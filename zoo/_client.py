"""Talking to the Hub through huggingface_hub: what is tried again, and what its exceptions mean for the user."""

import dataclasses
import errno
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from nfnet_eqx._errors import InputError

# Seconds between two tries where the Hub is at fault; the client itself repeats some of its requests and not others.
_PAUSES = (1, 2, 4)

# What may hold the next time: a connection that broke. One that is not made at all, or stays silent, is told at once.
_BROKEN = ("ReadError", "RemoteProtocolError", "WriteError")

# Whose own words say why there is no connection. Those of others can quote what was sent, a token among it.
_HARMLESS = (*_BROKEN, "ConnectError", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout")

NO_HUB = "does not answer as a Hub does; check the connection and the endpoint (HF_ENDPOINT)"

# An ETag that can be the name of a file, on any system.
_ETAG = re.compile(r"[\w+=-][\w.+=-]{0,127}", re.ASCII)

_COMMIT = re.compile("[0-9a-f]{40}")
# git's hash of a small file, the sha256 of a large one.
_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
# What git allows as the name of a branch or tag, and commits.
_REVISION = re.compile(r"(?!/)(?!.*\.\.)[^\s~^:?*\[\\\x00-\x1f\x7f]+")

# Right for who types a command and for who writes Python.
_LOGIN = "`hf auth login`, or set HF_TOKEN (in Python also: token=)"

# What tokens look like; a server may repeat one that it was sent, or somebody else's.
_TOKEN = re.compile("hf_[A-Za-z0-9]{20,}")

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Listing(NamedTuple):
    """What the Hub's API says of a revision of a repository.

    Attributes:
        commit: which it is.
        hashes: of its files by name: sha256 of large ones, git's hash of others; empty where a mirror does not tell.
        private: whether others may not see the repository.
    """

    commit: str
    hashes: dict[str, str]
    private: bool


def is_hash(text: object) -> bool:
    """Whether this is a hash as the Hub tells them: git's, or a sha256."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def check_revision(revision: str) -> None:
    """Raises where this names no branch, tag or commit: the client takes it for the name of a file in its cache."""
    if not _REVISION.fullmatch(revision):
        raise InputError(f"revision (={revision!r}): can be no branch, tag or commit; see the repository's page")


def redacted(text: str, token: str | bool | None = None) -> str:
    """`text` without a token or anything that looks like one: a server may repeat what it was sent.

    Args:
        text: what a server may have had a hand in.
        token: which one; by default the one of `hf auth login` or HF_TOKEN.
    """
    from huggingface_hub import get_token

    token = token if isinstance(token, str) else get_token()
    return _TOKEN.sub("[token]", text.replace(token, "[token]") if token else text)


@dataclasses.dataclass(frozen=True)
class Client:
    """The Hub's client, for one user and one Hub.

    Attributes:
        api: its `HfApi`.
    """

    api: Any

    @classmethod
    def make(cls, token: str | bool | None, endpoint: str | None) -> "Client":
        """The client for a token (by default the one of `hf auth login`) and a Hub (by default huggingface.co).

        Raises:
            InputError: the token cannot be one.
        """
        from huggingface_hub import HfApi

        if isinstance(token, str) and not (token.isascii() and token.split() == [token]):
            raise InputError("token: is empty or holds spaces, line ends or letters that no token has; give it alone")
        return cls(HfApi(endpoint=endpoint, token=token, library_name="nfnet-eqx"))

    def ask(self, question: Callable[[], _T]) -> _T:
        """The answer to a request, repeated a few times while the Hub itself is at fault or the connection breaks.

        Raises:
            OSError: it is none that a Hub gives: the address is that of something else.
            Exception: any of the client's, for `explained`.
        """
        for pause in _PAUSES:
            try:
                return self.ask_once(question)
            except Exception as error:
                if not (_status(error) >= 500 or type(error).__name__ in _BROKEN and _is_transport(error)):
                    raise
                _log.warning("the Hub: %s; once more in %d s", self.redacted(_reason(error)), pause)
            time.sleep(pause)
        return self.ask_once(question)

    def ask_once(self, question: Callable[[], _T]) -> _T:
        """The same without repetition: for what must not be done twice."""
        from huggingface_hub import errors

        try:
            return question()
        except (InputError, errors.HfHubHTTPError, errors.HFValidationError):
            raise
        except UnicodeEncodeError:
            raise OSError(
                "the token of HF_TOKEN or `hf auth login` has letters that no token has; set it anew"
            ) from None
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            _log.debug("the client could not read the answer: %s", type(error).__name__)  # its text may quote anything
            raise OSError(NO_HUB) from None

    def listing(self, repo_id: str, revision: str | None = None) -> Listing:
        """What the Hub says of a revision, by default of `main`.

        Raises:
            OSError: the answer is none that a Hub gives.
            Exception: any of the client's, for `explained`.
        """

        def read() -> Listing:
            info = self.api.model_info(repo_id, revision=revision, files_metadata=True, timeout=10)
            files = info.siblings or ()
            hashes = {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in files}
            if not all(isinstance(name, str) and (value == "" or is_hash(value)) for name, value in hashes.items()):
                raise TypeError
            if not _COMMIT.fullmatch(info.sha):
                raise ValueError
            return Listing(info.sha, hashes, bool(info.private))

        return self.ask(read)

    def redacted(self, text: str) -> str:
        """`text` without this user's token or anything that looks like one."""
        return redacted(text, self.api.token)

    def explained(self, error: Exception, where: str) -> InputError:
        """What an exception means for the user: the repository, the reason and the remedy in one line, without a token.

        An exception that is none of ours, the client's, the network's or the disk's is raised again: it is our fault.
        """
        return InputError(self.redacted(str(error) if isinstance(error, InputError) else _explained(error, where)))

    def check_answers(self, repo_id: str, filename: str, revision: str | None, commit: str) -> None:
        """Look at what the Hub answers about a file, before the client makes names of files out of it.

        The client writes to its cache under the ETag and the commit that it is told, without a look at either: with
        `../` in them, anywhere on the disk. It asks for them once more itself, which cannot be had otherwise: a Hub
        that gives another answer then is not found out here.

        Raises:
            InputError: the ETag can be no name of a file, or the revision is not, or no longer, this commit.
            Exception: any of the client's, for `explained`.
        """
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repo_id, filename, revision=revision, endpoint=self.api.endpoint)
        found = self.ask(lambda: self.api.get_hf_file_metadata(url=url))
        if found.commit_hash is None or found.etag is None:
            raise OSError(NO_HUB)
        if found.commit_hash != commit:
            raise InputError(f"{repo_id}: changed while it was fetched; try again")
        if not _ETAG.fullmatch(found.etag):
            raise InputError(
                f"{repo_id}: the Hub's ETag of {filename}, {found.etag[:100]!r}, can be no name of a file; refused"
            )


def _explained(error: Exception, where: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why it had to be in the cache
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"{where}: a token is needed; {_LOGIN}"
    if isinstance(error, errors.GatedRepoError):
        return f"{where}: access must be granted on its page first; then {_LOGIN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where}: no such repository on the Hub (or a private one: {_LOGIN})"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the repository has no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"{where}: the Hub is not asked while HF_HUB_OFFLINE is set; unset it to reach it"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{where}: the repository lost a file meanwhile; try again"
    if status := _status(error):
        remedies = {
            401: "the token was not accepted; `hf auth login` with a valid one, or set it in HF_TOKEN",
            403: "the token does not allow this; give one of a user who may",
            412: "the repository was changed meanwhile; try again",
            429: "too many requests; wait a few minutes",
        }
        remedy = remedies.get(status, "the Hub is at fault; try again later" if status >= 500 else "check the request")
        return f"{where}: the Hub answers {_reason(error)}: {remedy}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: the disk is full; free some of it, or set HF_HOME (cache_dir) to a folder on another one"
    if _is_transport(error):
        return f"{where}: the Hub cannot be reached ({_reason(error)}); check the connection and try again"
    if isinstance(error, json.JSONDecodeError):
        return f"{where}: {NO_HUB}"
    if isinstance(error, OSError | errors.HFValidationError):
        return f"{where}: {_reason(error)}"
    raise error


def _status(error: Exception) -> int:
    """The HTTP status that an exception of the client stands for; 0: none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _is_transport(error: Exception) -> bool:
    # The client's HTTP library differs from version to version (httpx, httpx2), and so do its classes.
    return type(error).__module__.split(".")[0].startswith("httpx")


def _reason(error: Exception) -> str:
    """The Hub's own words where there are some; never an address or a header, which could hold a secret."""
    name = type(error).__name__
    if status := _status(error):
        message = " ".join((getattr(error, "server_message", None) or "").split())
        return f"{status} ({message[:200]})" if message else str(status)
    if _is_transport(error) and name not in _HARMLESS:
        return name
    return " ".join(str(error).split())[:300] or name
