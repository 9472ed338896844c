"""What a forked child does first: it lets go of all that is its parent's, and takes its orders.

It still has its parent's privileges, where user code can neither see into it nor signal it, and gives them up before it
acts. An order is 4 bytes of length and JSON: what to do, and its arguments.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

Work = Callable[[dict[str, Any]], None]
ORDER = 3
"""The descriptor that a child reads its order from."""
_FAILED = 70


def run_child(run: Callable[[], None], descriptors: Mapping[int, int]) -> NoReturn:
    """In a child that was just forked: call `run`, with `descriptors` (number → the parent's) and no others, and end.

    `run` must `become_user` before it touches anything of the user's.
    """
    code = _FAILED
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        _take_descriptors(descriptors)
        run()
        code = 0
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _take_descriptors(wanted: Mapping[int, int]) -> None:
    """Make the child's descriptors exactly `wanted`; the agent's own pipes must not survive into user code."""
    above = max([*wanted.keys(), *wanted.values(), 2]) + 1
    parked = {number: os.dup2(ours, above + index) for index, (number, ours) in enumerate(wanted.items())}
    for number, copy in parked.items():
        os.dup2(copy, number, inheritable=True)
    if 0 not in wanted:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0, inheritable=True)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in wanted:
            with suppress(OSError):
                os.close(number)


def obey(works: Mapping[str, Work]) -> None:
    """Wait for an order and do it; nothing if there comes none."""
    with os.fdopen(ORDER, "rb") as orders:
        size = orders.read(4)
        if len(size) < 4:
            return
        order = json.loads(orders.read(int.from_bytes(size, "big")))
    works[order["work"]](order["arguments"])
