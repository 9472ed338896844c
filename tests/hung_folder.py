"""A folder on a real file system that does not answer, as one of a network whose server is gone."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung(folder: Path) -> Iterator[None]:
    """Meanwhile nothing that looks at `folder` gets an answer: it is a FUSE file system whose program says nothing."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if _libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "no FUSE file system can be mounted")
        try:
            yield
        finally:
            _libc.umount2(os.fsencode(folder), _DETACH)
    finally:
        # Whoever waits gets an error with this.
        os.close(device)
