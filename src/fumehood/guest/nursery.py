"""The nursery: a small process that forks children for the agent.

Forking takes as long as the process that forks is large, tens of milliseconds for the agent in a sandbox, and nothing
else of it goes on meanwhile. This one imports little. It has the agent's privileges, where user code can neither see
into it nor signal it, and ends when the agent does.

The agent sends one byte and the descriptors that the child is to have, in the order of their numbers there. It is told
of each child that was born, or why none was, and of each that ended.
"""

import ctypes
import os
import select
import signal
import socket
import struct
from contextlib import suppress

from fumehood.guest.child import obey, run_child
from fumehood.guest.file_operations import run_file_operation
from fumehood.guest.shell import run_shell

MESSAGE = struct.Struct(">cii")
"""What happened, the process it is about (the error's number where none was born), and its exit code at its end."""
BORN, FAILED, ENDED = b"b", b"f", b"e"
REQUEST = b"+"
_DESCRIPTORS_MAX = 8
_WORKS = {"shell": run_shell, "file": run_file_operation}
_PR_SET_DUMPABLE = 4


def _bear(agent: socket.socket) -> bool:
    """Fork the child that the agent asks for. False if the agent is gone."""
    request, descriptors, _, _ = socket.recv_fds(agent, 1, _DESCRIPTORS_MAX)
    if not request:
        return False
    try:
        pid = os.fork()
    except OSError as error:
        agent.send(MESSAGE.pack(FAILED, error.errno or 0, 0))
    else:
        if pid == 0:
            run_child(lambda: obey(_WORKS), dict(enumerate(descriptors)))
        agent.send(MESSAGE.pack(BORN, pid, 0))
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def _reap(agent: socket.socket) -> None:
    """Tell the agent of every child that has ended."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            agent.send(MESSAGE.pack(ENDED, pid, os.waitstatus_to_exitcode(status)))


def main() -> None:
    """Serve the agent, on the socket that is standard input, until it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    agent = socket.socket(fileno=0)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    poll = select.poll()
    poll.register(agent, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if woken in ready:
            os.read(woken, 4096)
            _reap(agent)
        if agent.fileno() in ready and not _bear(agent):
            return


if __name__ == "__main__":
    main()
