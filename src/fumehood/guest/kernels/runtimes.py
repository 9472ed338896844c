"""The runtimes that kernels run in: where each is in a template, and the script that serves its calls."""

from pathlib import Path
from typing import NamedTuple

_SCRIPTS = "/.fumehood/lib/fumehood/guest/kernels"


class Runtime(NamedTuple):
    """One program that runs a kernel script."""

    path: str
    """Where the template has it."""
    argv: tuple[str, ...]
    limits_address_space: bool
    """False for V8's, which reserve far more addresses than they use memory; their heap has a limit of its own."""

    @property
    def is_there(self) -> bool:
        """Whether this template has it."""
        return Path(self.path).exists()


RUNTIMES = {
    "python": Runtime("/usr/bin/python3", ("python3", "-B", f"{_SCRIPTS}/python.py"), limits_address_space=True),
}
