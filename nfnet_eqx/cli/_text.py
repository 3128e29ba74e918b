"""Text for a terminal."""


def printable(text: str) -> str:
    """`text` as one line without control characters: it may quote a stranger's file, which could repaint the screen."""
    return "".join(c if c.isprintable() else " " if c == "\n" else repr(c)[1:-1] for c in text)
