"""How far a build is, told to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Receives a build's phases, one after another. Calls come from the event loop and must not block."""

    def phase(self, title: str, total: int | None = None) -> None:
        """A phase begins; it ends when the next does. `total` is its number of steps where that is known."""
        ...

    def advance(self, done: int, total: int, detail: str) -> None:
        """`done` of `total` steps of the phase are behind; `detail` names the present one."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def phase(self, title: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, done: int, total: int, detail: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
