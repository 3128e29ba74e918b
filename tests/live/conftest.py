"""Says at the end how close the comparison came."""

import pytest

from tests.live import measured


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The largest differences of the whole run: tolerances say what may be, these what was."""
    for line in measured.summary():
        terminalreporter.write_line(line)
