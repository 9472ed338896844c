"""Shows how far a build is: bars on a terminal, plain lines elsewhere."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fumehood import clock
from fumehood.sandbox.template.progress import Progress


@contextmanager
def shown(console: Console) -> Generator[Progress]:
    """Progress that appears on `console` for as long as the context lasts."""
    if not console.is_terminal:
        lines = _Lines(console)
        yield lines
        lines.end()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Bars(*columns, console=console) as bars:
        progress = _Bars(bars)
        yield progress
        progress.end()


class _Bars:
    """A bar for each phase; those behind stay, full, with the time they took."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def phase(self, title: str, total: int | None = None) -> None:
        """As `Progress.phase`."""
        self.end()
        self._task = self._bars.add_task(title, total=total, detail="")

    def advance(self, done: int, total: int, detail: str) -> None:
        """As `Progress.advance`."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, detail=escape(detail))

    def note(self, text: str) -> None:
        """As `Progress.note`."""
        self._bars.console.print(escape(text))

    def end(self) -> None:
        """The present phase is over."""
        if self._task is not None:
            total = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, total=total, completed=total, detail="")
            self._bars.stop_task(self._task)


class _Lines:
    """A line for each phase when it begins, and one with the time it took when it is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._begun_at = 0.0

    def phase(self, title: str, total: int | None = None) -> None:
        """As `Progress.phase`."""
        self.end()
        self._title, self._begun_at = title, clock.monotonic_seconds()
        self.note(title if total is None else f"{title} ({total})")

    def advance(self, done: int, total: int, detail: str) -> None:
        """Not shown: a log of every package helps nobody."""

    def note(self, text: str) -> None:
        """As `Progress.note`."""
        self._console.print(f"build: {text}", markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """The present phase is over."""
        if self._title:
            self.note(f"{self._title}: {clock.monotonic_seconds() - self._begun_at:.0f} s")
            self._title = ""
