"""The Python kernel: IPython's InteractiveShell in a process of its own, run by the template's Python as the user.

Runs as a script, before any of the user's code; imports nothing of the rest of fumehood (its interpreter is not the agent's).
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import warnings
from types import FrameType
from typing import Any, NoReturn

_REQUESTS, _RESULTS = 3, 4
_WARM_MODULES = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot")


def _read_exactly(descriptor: int, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        piece = os.read(descriptor, min(size, 1 << 20))
        if not piece:
            os._exit(0)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _receive(descriptor: int) -> dict[str, Any]:
    size = int.from_bytes(_read_exactly(descriptor, 4), "big")
    return json.loads(_read_exactly(descriptor, size))  # type: ignore[no-any-return]


def _send(descriptor: int, message: dict[str, Any]) -> None:
    encoded = json.dumps(message).encode("ascii")
    data = memoryview(len(encoded).to_bytes(4, "big") + encoded)
    while data:
        data = data[os.write(descriptor, data) :]


def _refuse_input(prompt: object = "") -> NoReturn:
    raise EOFError(f"input() is not available here: nobody can answer {str(prompt)!r}. Put the value into the code.")


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _make_shell() -> Any:
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell

    class EchoingDisplayHook(DisplayHook):
        """The last expression's value, without the `Out[n]:` before it."""

        def write_output_prompt(self) -> None:
            """Nothing: the service's output carries no prompts."""

        def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
            """The text form on stdout."""
            del md_dict
            text = format_dict.get("text/plain")
            if text is not None:
                print(text)

    class KernelShell(InteractiveShell):
        """Tracebacks go to stderr, as the service has them."""

        displayhook_class = EchoingDisplayHook

        def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
            del evalue
            sys.stdout.flush()
            if issubclass(etype, SystemExit):
                return
            print(self.InteractiveTB.stb2text(stb), file=sys.stderr)

    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D.")
    shell = KernelShell.instance(colors="nocolor")
    shell.history_manager.enabled = False
    shell.system = shell.system_raw
    shell.builtin_trap.auto_builtins["input"] = _refuse_input
    shell.user_ns["exit"] = shell.user_ns["quit"] = sys.exit
    return shell


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _execute(shell: Any, code: str, clear: bool) -> int:
    """Run one cell; the exit code the caller is told: 0, 1 for an exception, or what `sys.exit` was given."""
    if clear:
        shell.reset(new_session=True, aggressive=False)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        result = shell.run_cell(code, store_history=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    error = result.error_before_exec or result.error_in_exec
    if isinstance(error, SystemExit):
        return _exit_code(error.code)
    return 0 if result.success else 1


def _renew_randomness() -> None:
    """Make this process's generators its own again after a restore; clones of one checkpoint share them until then."""
    import random
    import ssl

    random.seed(os.urandom(64))
    ssl.RAND_add(os.urandom(64), 64.0)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(list(os.urandom(64)))


def _warm() -> None:
    for name in _WARM_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Serve calls until the agent closes the pipe."""
    # Moved out of the way of programs that think 3 and 4 are theirs; not inherited by what user code starts.
    requests, results = (os.dup(descriptor) for descriptor in (_REQUESTS, _RESULTS))
    os.close(_REQUESTS)
    os.close(_RESULTS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.path.insert(0, "")
    shell = _make_shell()
    while True:
        message = _receive(requests)
        answer: dict[str, Any] = {"id": message["id"]}
        if message["op"] == "execute":
            try:
                answer["exit_code"] = _execute(shell, message["code"], message["clear"])
            except KeyboardInterrupt:
                answer["exit_code"] = 1
        elif message["op"] == "renew":
            _renew_randomness()
        elif message["op"] == "warm":
            _warm()
        _flush()
        _send(results, answer)


if __name__ == "__main__":
    main()
