"""Network namespaces that have no name: they live as long as a descriptor or a process of theirs, and leave nothing."""

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_NAMED = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class Thread:
    """What a function that runs in a namespace may do: move on to another one, or to a new one."""

    def enter(self, namespace: int) -> None:
        """Go into the namespace of a descriptor."""
        if _libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")

    def enter_new(self) -> int:
        """Go into a new namespace; a descriptor of it."""
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no network namespace can be made")
        return open_own()


def open_own() -> int:
    """A descriptor of the namespace that this thread is in."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def open_named(name: str) -> int:
    """A descriptor of a namespace that the machine's operator made by `ip netns add`. OSError if there is none."""
    if "/" in name or name in ("", ".", ".."):
        raise FileNotFoundError(f"{name!r} is no name of a network namespace")
    return os.open(_NAMED / name, os.O_RDONLY | os.O_CLOEXEC)


def open_of_process(pid: int) -> int:
    """A descriptor of a process's namespace. OSError if it does not live."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


async def run(function: Callable[[Thread], T], namespace: int | None = None) -> T:
    """Run a function in the namespace of a descriptor; None: of this process. What it raises is raised here.

    It has a thread of its own, which ends with it: no other work ever finds itself in the wrong namespace.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value: T | None = None
        problem: BaseException | None = None
        try:
            thread = Thread()
            if namespace is not None:
                thread.enter(namespace)
            value = function(thread)
        except BaseException as error:
            problem = error
        loop.call_soon_threadsafe(finish, value, problem)

    threading.Thread(target=work, name="fumehood-network", daemon=True).start()
    return await done
