"""The Python kernel: IPython's InteractiveShell in a process of its own, run by the template's Python as the user.

Runs as a script, before any of the user's code; imports nothing of fumehood, as its interpreter is not the agent's.
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
_READ_BYTES = 1024 * 1024
# Bound here, because the user's code may replace them where they come from, as tests with mocks do.
_dumps, _loads, _readv, _write = json.dumps, json.loads, os.readv, os.write
_WARM_MODULES = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot", "ssl")


class _Requests:
    """Messages from the agent. Reads ahead, because each read is a journey out of the sandbox's kernel and back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        # One buffer for all reads: `os.read` would map and unmap its own at each call, which is slow in a sandbox.
        self._landing = bytearray(_READ_BYTES)

    def receive(self) -> dict[str, Any]:
        """The next message; the process ends when the agent has closed the pipe."""
        self._fill(4)
        size = int.from_bytes(self._buffer[:4], "big")
        self._fill(4 + size)
        message = _loads(bytes(self._buffer[4 : 4 + size]))
        del self._buffer[: 4 + size]
        return message  # type: ignore[no-any-return]

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            read = _readv(self._descriptor, [self._landing])
            if not read:
                os._exit(0)
            self._buffer += memoryview(self._landing)[:read]


def _send(descriptor: int, message: dict[str, Any]) -> None:
    encoded = _dumps(message).encode("ascii")
    data = memoryview(len(encoded).to_bytes(4, "big") + encoded)
    while data:
        data = data[_write(descriptor, data) :]


def _refuse_input(prompt: object = "") -> NoReturn:
    raise EOFError(f"input() is not available here: nobody can answer {str(prompt)!r}. Put the value into the code.")


class _Interrupts:
    """SIGINT stops the cell that runs; between cells it comes too late and is ignored."""

    def __init__(self) -> None:
        self.in_cell = False
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        if self.in_cell:
            raise KeyboardInterrupt


def _make_shell() -> Any:
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

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
    # The history would be written by a thread of its own, which takes turns with every cell.
    without_history = Config({"HistoryManager": {"enabled": False}})
    shell: Any = KernelShell.instance(config=without_history, colors="nocolor")
    # The other forms of a value would be made and thrown away.
    shell.display_formatter.active_types = ["text/plain"]
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


def _execute(shell: Any, interrupts: _Interrupts, code: str, clear: bool) -> int:
    """Run one cell; the exit code the caller is told: 0, 1 for an exception, or what `sys.exit` was given."""
    if clear:
        shell.reset(new_session=True, aggressive=False)
    try:
        interrupts.in_cell = True
        result = shell.run_cell(code, store_history=True)
    except KeyboardInterrupt:
        return 1
    finally:
        interrupts.in_cell = False
    error = result.error_before_exec or result.error_in_exec
    if isinstance(error, SystemExit):
        return _exit_code(error.code)
    return 0 if result.success else 1


def _renew_randomness() -> None:
    """Make this process's generators its own again after a restore; clones of one checkpoint share them until then."""
    import random
    import ssl
    import tempfile

    random.seed(os.urandom(64))
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    # Mixed into OpenSSL's generator, which is otherwise where the checkpoint's was.
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
    interrupts = _Interrupts()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.path.insert(0, "")
    shell = _make_shell()
    messages = _Requests(requests)
    while True:
        message = messages.receive()
        answer: dict[str, Any] = {"id": message["id"]}
        if message["op"] == "execute":
            answer["exit_code"] = _execute(shell, interrupts, message["code"], message["clear"])
        elif message["op"] == "renew":
            _renew_randomness()
        elif message["op"] == "warm":
            _warm()
        _flush()
        _send(results, answer)


if __name__ == "__main__":
    main()
