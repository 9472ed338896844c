"""Helper processes that end with this one, however it ends: by the kernel's parent-death signal.

It is set after the process has begun, so this one may be gone by then, and nobody is told of that: whose parent is
another already does not begin. A process of a new thread would end with that thread: start them from the event loop.
"""

import os
import signal

# Not sh, which loses variables that are no names of its own, as npm's are; -p: no code that the environment names.
_BEGIN = ("bash", "-p", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


def command(*argv: str, by: signal.Signals = signal.SIGKILL) -> tuple[str, ...]:
    """The command to start a program by, which gets the signal `by` when this process ends.

    It becomes that program, with its process id and exit status; 127 if there is none of that name.
    """
    return ("setpriv", "--pdeathsig", by.name.removeprefix("SIG"), "--", *_BEGIN, str(os.getpid()), *argv)
