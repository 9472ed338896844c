"""Processes that run user code: started as the user with no privilege, waited for, ended with all their descendants.

The agent is the sandbox's first process, so it also reaps whatever is orphaned.
"""

import asyncio
import ctypes
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

USER_ID = 1000
HOME = "/home/sandbox"
USER_ENVIRONMENT = {
    "HOME": HOME,
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "SHELL": "/bin/bash",
    "PATH": f"{HOME}/.local/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES = 64
_libc = ctypes.CDLL(None, use_errno=True)
_exits: dict[int, asyncio.Future[int]] = {}


class Limits(NamedTuple):
    """Soft limits of user code: what it runs into is an error of its own, not the end of the sandbox."""

    processes: int
    """Processes and threads of the user, all together."""
    memory_bytes: int | None = None
    """Address space of each process. Not for commands: some runtimes reserve far more than they use."""
    open_files: int = 16_384


def become_user(limits: Limits | None = None) -> None:
    """Give up every privilege for good, and be in the working folder."""
    if limits is not None:
        _apply_limits(limits)
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(USER_ID, USER_ID, USER_ID)
    os.setresuid(USER_ID, USER_ID, USER_ID)
    os.umask(0o022)
    os.chdir(HOME)


def give_output_to_user() -> None:
    """Make the pipes on 1 and 2 the user's, so that programs can open /dev/stdout and /dev/stderr."""
    for descriptor in (1, 2):
        os.fchown(descriptor, USER_ID, USER_ID)


def _apply_limits(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.open_files, limits.open_files))
    if limits.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def reap_children() -> None:
    """Have the running loop collect every child that ends; call once, before the first `fork_child`."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        exited = _exits.pop(pid, None)
        if exited is not None and not exited.done():
            exited.set_result(os.waitstatus_to_exitcode(status))


class Process:
    """A child of the agent in a session of its own. `exit_code` is negative for a signal, as in subprocess."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        _exits[pid] = self._exit

    async def wait(self) -> int:
        """The exit code, once it ended."""
        return await asyncio.shield(self._exit)

    @property
    def ended(self) -> bool:
        """Whether it has ended and been reaped."""
        return self._exit.done()

    def on_exit(self, run: Callable[[], None]) -> None:
        """Call `run` once it has ended."""
        self._exit.add_done_callback(lambda _: run())

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_tree(self) -> None:
        """End it and everything that descends from it or shares a session with what does."""
        kill_descendants(self.pid)
        self.signal(signal.SIGKILL)


def fork_child(run: Callable[[], None], descriptors: Mapping[int, int]) -> Process:
    """Fork a child that calls `run`, with `descriptors` (number in the child → ours) and no others.

    It still has the agent's privileges: `run` must `become_user` before it touches anything of the user's. OSError if
    there can be no more processes. The agent has one thread, so forking it is safe.
    """
    pid = os.fork()
    if pid:
        return Process(pid)
    code = 70
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
    raise AssertionError("unreachable")


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


def execute(argv: Sequence[str], path: str) -> NoReturn:
    """Become the program at `path`; where that cannot be, end with 126 or 127, as in a shell."""
    try:
        os.execve(path, list(argv), USER_ENVIRONMENT)
    except FileNotFoundError:
        os.write(2, f"{argv[0]}: not found\n".encode())
        os._exit(127)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(126)


def _process_table() -> dict[int, tuple[int, int]]:
    """pid → (parent, session) of every process."""
    table: dict[int, tuple[int, int]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
            table[int(process.name)] = (int(fields[1]), int(fields[3]))
    return table


def _descendants(root: int, known: set[int]) -> set[int]:
    """`root`, what descends from it, and what is in a session that one of these (or of `known`) leads."""
    table = _process_table()
    found = {root} | known
    grew = True
    while grew:
        more = {pid for pid, (parent, session) in table.items() if parent in found or session in found} - found - {1}
        grew = bool(more)
        found |= more
    return found & table.keys()


def kill_descendants(root: int) -> None:
    """Stop, then kill, all that descends from `root`; stopping first keeps a tree from growing while it is walked."""
    known: set[int] = set()
    for _ in range(16):
        found = _descendants(root, known)
        if found <= known:
            break
        for pid in found - known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        known |= found
    for pid in known - {os.getpid(), 1}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
