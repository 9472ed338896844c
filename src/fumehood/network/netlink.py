"""The kernel's own interface for links, addresses and routes, in the namespace of the thread that opens it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def opened() -> Generator[Any]:
    """pyroute2's IPRoute, whose requests have no types. What the kernel refuses is an OSError."""
    # 9 MiB, and a quarter of a second once: for servers that make networks only, and in a thread of theirs.
    from pyroute2 import IPRoute, NetlinkError  # pyright: ignore[reportMissingTypeStubs]

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise OSError(cast(int, error.code), str(error)) from error
