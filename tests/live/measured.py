"""The largest differences that a run of these tests has seen."""

_worst: dict[str, tuple[float, str]] = {}


def note(what: str, value: float, where: str) -> float:
    """Remember `value` if it is the largest of its kind so far; returns it."""
    if not value <= _worst.get(what, (-1.0, ""))[0]:
        _worst[what] = (value, where)
    return value


def summary() -> list[str]:
    """A line for each kind."""
    return [f"largest {what}: {value:.1e} ({where})" for what, (value, where) in sorted(_worst.items())]
