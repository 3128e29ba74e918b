"""What a class may be called, and when two names are one: the same rule for data sets and for checkpoints."""

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from nfnet_eqx._errors import InputError, first

# A longer name is cut in messages.
_LONG = 100
# Far above any name (ImageNet's longest has 121), and a thousand of these still fit into a config.json.
_LONGEST = 5_000


def check_class_names(names: Sequence[Any], source: str, remedy: str = "give it another name") -> tuple[str, ...]:
    """The names in Unicode's composed form (NFC), the only one in which equal names are equal strings.

    macOS writes "Löwe" with a separate accent, Linux and Windows without: one class may come with both. A name goes
    into `config.json`, into the card and to terminals, so it must be plain text. It may stand for several classes:
    ImageNet has two cranes.

    Args:
        names: by class.
        source: what they come from, for the message.
        remedy: what to do about a name that is refused.

    Raises:
        InputError: naming every name that is no text, is not UTF-8 or holds control characters, and every two names
            that differ only in their Unicode form.
    """
    faults = [fault for i, name in enumerate(names) if (fault := _fault(i, name))]
    if faults:
        raise InputError(f"{source}: {first(faults)}; {remedy}")
    composed = tuple(map(nfc, names))
    if twins := [f"{spelled(a)} and {spelled(b)}" for a, b in same_but_for_form(names)]:
        raise InputError(f"{source}: the same name in two Unicode forms: {first(twins)}; {remedy}")
    return composed


def nfc(name: str) -> str:
    """The name in the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def same_but_for_form(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different strings that are one name."""
    seen: dict[str, str] = {}
    return [(other, name) for name in names if (other := seen.setdefault(nfc(name), name)) != name]


def spelled(name: str) -> str:
    """A name with the code points that a reader cannot tell from others: `'Löwe' (L<U+00F6>we)`."""
    name = name if len(name) <= _LONG else name[:_LONG] + "..."
    points = re.sub(r"[^\x20-\x7e]", lambda found: f"<U+{ord(found[0]):04X}>", name)
    return repr(name) if points == name else f"{name!r} ({points})"


def told_apart(name: str, others: Iterable[str]) -> str:
    """A name that is none of `others`, beside the one that it could be mistaken for."""
    looks = {_look(other): other for other in others if len(other) <= _LONG}
    near = difflib.get_close_matches(_look(name), looks, n=1, cutoff=0.75) if len(name) <= _LONG else []
    return f"{spelled(name)}, which is not {spelled(looks[near[0]])}," if near else spelled(name)


def _fault(index: int, name: Any) -> str:
    if isinstance(name, str) and len(name) > _LONGEST:
        return f"the name of class {index} has {len(name):,} characters, more than {_LONGEST:,} ({name[:40]!r}...)"
    kinds = {unicodedata.category(character) for character in name} if isinstance(name, str) else {"no text"}
    if not kinds & {"no text", "Cc", "Cs"}:
        return ""
    hint = ""
    if "Cs" in kinds:  # how Python shows the bytes of a file name that are no UTF-8
        with contextlib.suppress(UnicodeEncodeError):
            hint = f" (not UTF-8; as Latin-1 it is {name.encode('utf-8', 'surrogateescape').decode('latin-1')!r})"
    return f"the name of class {index} must be plain text, got {name!r}{hint}"


def _look(name: str) -> str:
    """The name without case and invisible characters, and with compatible forms as one."""
    visible = (c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c) != "Cf")
    return "".join(visible)
