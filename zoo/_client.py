"""Talking to the Hub through huggingface_hub: what is tried again, and what its exceptions mean for the user."""

import errno
import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nfnet_eqx._errors import InputError

# Seconds between two tries where the Hub is at fault; the client itself repeats some of its requests and not others.
_PAUSES = (1, 2, 4)

# What may hold the next time: a connection that broke. One that is not made at all, or stays silent, is told at once.
_BROKEN = ("ReadError", "RemoteProtocolError", "WriteError")

# Whose own words say why there is no connection. Those of others can quote what was sent, a token among it.
_HARMLESS = (*_BROKEN, "ConnectError", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout")

NO_HUB = "does not answer as a Hub does; check the connection, and endpoint= or HF_ENDPOINT"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def make_api(token: str | bool | None, endpoint: str | None) -> Any:
    """The client's `HfApi`.

    Raises:
        InputError: the token cannot be one.
    """
    from huggingface_hub import HfApi

    if isinstance(token, str) and not (token.isascii() and token.split() == [token]):
        raise InputError("token: is empty or holds spaces, line ends or letters that no token has; give it alone")
    return HfApi(endpoint=endpoint, token=token, library_name="nfnet-eqx")


def patiently(call: Callable[[], _T]) -> _T:
    """The result of a request, repeated a few times while the Hub itself is at fault or the connection breaks."""
    for pause in _PAUSES:
        try:
            return call()
        except Exception as error:
            if not (_status(error) >= 500 or type(error).__name__ in _BROKEN and _is_transport(error)):
                raise
            _log.warning("the Hub: %s; once more in %d s", _reason(error), pause)
        time.sleep(pause)
    return call()


def ask(question: Callable[[], _T]) -> _T:
    """The answer to a question, put `patiently`.

    Raises:
        OSError: it is none that a Hub gives: the address is that of something else.
    """
    from huggingface_hub import errors

    try:
        return patiently(question)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        raise
    except UnicodeEncodeError:
        raise OSError("the token of HF_TOKEN or `hf auth login` holds letters that no token has; set it anew") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _log.debug("the client could not read the answer: %s", type(error).__name__)  # its text may quote anything
        raise OSError(NO_HUB) from None


def explained(error: Exception, where: str) -> InputError:
    """What the client's exception means for the user: the repository, the reason and the remedy in one line.

    An exception that is none of the client's, the network's or the disk's is raised again: it is our fault.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why it had to be in the cache
    if isinstance(error, errors.LocalTokenNotFoundError):
        return InputError(f"{where}: a token is needed; `hf auth login`, or give token=")
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{where}: access must be granted on its page first; then `hf auth login`, or give token=")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{where}: no such repository on the Hub (or a private one: `hf auth login`, or give token=)")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{where}: the repository has no such revision")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return InputError(f"{where}: the Hub is not asked while HF_HUB_OFFLINE is set; unset it to reach it")
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(f"{where}: the repository lost a file meanwhile; try again")
    if status := _status(error):
        remedies = {
            401: "the token was not accepted; `hf auth login` with a valid one, or give token=",
            403: "the token does not allow this; give one of a user who may",
            412: "the repository was changed meanwhile; try again",
            429: "too many requests; wait a few minutes",
        }
        remedy = remedies.get(status, "the Hub is at fault; try again later" if status >= 500 else "check the request")
        return InputError(f"{where}: the Hub answers {_reason(error)}: {remedy}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{where}: the disk is full; free some of it, or give cache_dir= (HF_HOME) on another one")
    if _is_transport(error):
        return InputError(f"{where}: the Hub cannot be reached ({_reason(error)}); check the connection and try again")
    if isinstance(error, json.JSONDecodeError):
        return InputError(f"{where}: {NO_HUB}")
    if isinstance(error, OSError | errors.HFValidationError):
        return InputError(f"{where}: {_reason(error)}")
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
