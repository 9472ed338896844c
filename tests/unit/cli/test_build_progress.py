"""A build tells how far it is: bars with the time left on a terminal, a line for each phase elsewhere."""

import io
import re

from rich.console import Console

from fumehood.cli import build_progress


def shown(*, terminal: bool) -> str:
    """What appears of a build of two phases."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=160, color_system=None)
    with build_progress.shown(console) as progress:
        progress.phase("Debian packages", 4)
        progress.advance(3, 4, "Fetching jq, 1.5 of 2.0 MB")
        progress.note("another build is running")
        progress.phase("settling")
    return screen.getvalue()


def test_a_terminal_gets_a_full_bar_for_each_phase_in_the_end_and_the_time_left() -> None:
    text = shown(terminal=True)
    assert re.search(r"Debian packages .* 4/4 .* left 0:00:00", text)
    assert re.search(r"settling .* 1/1 .* left 0:00:00", text)
    assert "another build is running" in text


def test_a_log_gets_a_line_when_a_phase_begins_and_one_with_its_time() -> None:
    assert re.sub(r"\d+ s", "N s", shown(terminal=False)).splitlines() == [
        "build: Debian packages (4)",
        "build: another build is running",
        "build: Debian packages: N s",
        "build: settling",
        "build: settling: N s",
    ]
