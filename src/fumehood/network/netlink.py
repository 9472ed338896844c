"""The kernel's own interface for links, addresses and routes, in the namespace of the thread that opens it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute, NetlinkError  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["NetlinkError", "opened"]


@contextmanager
def opened() -> Generator[Any]:
    """pyroute2's IPRoute, whose requests have no types. They raise NetlinkError or OSError."""
    with IPRoute() as route:
        yield route
