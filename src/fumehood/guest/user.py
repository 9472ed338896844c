"""The sandbox's user: what makes a process the user's, with no privilege, and runs a program as it."""

import ctypes
import os
import resource
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

USER_ID = 1000
HOME = "/home/sandbox"
_ENVIRONMENT_BYTES_MAX = 64 * 1024
_NOT_THE_TEMPLATE_S = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TERM"})


def template_environment(file: Path) -> dict[str, str]:
    """The variables that a template gives to user code, from its /etc/environment: a `NAME=value` on each line.

    They never come through the agent's own environment: a template could name code there for its loader to load.
    """
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        lines = stream.read(_ENVIRONMENT_BYTES_MAX).decode(errors="replace").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier() and name not in _NOT_THE_TEMPLATE_S and "\0" not in value:
            found[name] = f"{HOME}/.local/bin:{value}" if name == "PATH" else value
    return found


# What the host puts into the agent's environment is the user's; nothing else is in it.
USER_ENVIRONMENT = {
    **os.environ,
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
    # OpenMP's threads would spin while they wait, on processors that a sandbox shares.
    "OMP_WAIT_POLICY": "PASSIVE",
    **template_environment(Path("/etc/environment")),
}
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES = 64
_libc = ctypes.CDLL(None, use_errno=True)


class Limits(NamedTuple):
    """Soft limits of user code: what it runs into is an error of its own, not the end of the sandbox."""

    processes: int
    """Processes and threads of the user, all together."""
    memory_bytes: int | None = None
    """Address space of each process. Not for commands: some runtimes reserve far more than they use."""
    open_files: int = 16_384


def become_user(limits: Limits | None = None) -> None:
    """Give up every privilege for good, and be in the working folder; at the root, where code has locked that up."""
    if limits is not None:
        _apply_limits(limits)
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(USER_ID, USER_ID, USER_ID)
    os.setresuid(USER_ID, USER_ID, USER_ID)
    os.umask(0o022)
    os.chdir("/")
    with suppress(OSError):
        os.chdir(HOME)


@contextmanager
def as_user() -> Generator[None]:
    """Look at files with the user's rights alone, for a moment: nothing may be awaited in it.

    The real and saved ids stay the agent's, so that user code can neither signal nor trace it meanwhile.
    """
    os.setegid(USER_ID)
    os.seteuid(USER_ID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


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


def execute(argv: Sequence[str], path: str, environment: Mapping[str, str] = USER_ENVIRONMENT) -> NoReturn:
    """Become the program at `path`; where that cannot be, end with 126 or 127, as in a shell."""
    # The agent ignores it, and a program would go on doing so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        os.execve(path, list(argv), environment)
    except FileNotFoundError:
        os.write(2, f"{argv[0]}: not found\n".encode())
        os._exit(127)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(126)
