"""What a command is, in the child that becomes it: the shell, run as the user."""

import ctypes
import os
from pathlib import Path
from typing import Any

from fumehood.guest.user import Limits, become_user, execute, give_output_to_user

# The service's /bin/sh is bash: scripts written for it, and its messages ("line 1: x: command not found"), expect that.
_SHELLS = ("/bin/bash", "/bin/sh")
_ARGUMENT_BYTES_MAX = 96 * 1024
_SCRIPT = 3
_PR_SET_CHILD_SUBREAPER = 36


def run_shell(arguments: dict[str, Any]) -> None:
    """In a child: become the shell that runs `text`, under `limits`."""
    give_output_to_user()
    become_user(Limits(*arguments["limits"]))
    # What it orphans stays below it, however it was started, so that the whole tree can be found and ended with it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    path = next((shell for shell in _SHELLS if Path(shell).exists()), _SHELLS[-1])
    text: str = arguments["text"]
    if len(text) * 4 <= _ARGUMENT_BYTES_MAX and "\0" not in text:
        execute(["/bin/sh", "-c", text], path)
    # A command longer than one argument may be is read from a file instead.
    script = os.memfd_create("command")
    with os.fdopen(os.dup(script), "wb") as file:
        file.write(text.encode(errors="surrogateescape"))
    os.lseek(script, 0, os.SEEK_SET)
    os.dup2(script, _SCRIPT, inheritable=True)
    execute(["/bin/sh", f"/dev/fd/{_SCRIPT}"], path)
