"""The Python kernel: IPython's InteractiveShell in a process of its own, run by the template's Python as the user.

Runs as a script, before any of the user's code; imports of fumehood only what is made for the template's Python too.
"""

import builtins
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, NoReturn, cast

# Where fumehood is; the user's code finds the working folder in this place.
sys.path[0] = __file__.partition("/fumehood/guest/")[0]
from fumehood.guest.kernels.python_cells import ends_with_semicolon, is_plain_python, may_await  # noqa: E402
from fumehood.guest.kernels.python_displays import MEDIA_TYPES, Displays, fit_players  # noqa: E402
from fumehood.guest.kernels.python_plots import close_figures, draw_once, fit_plots  # noqa: E402

sys.path[0] = ""

_OWN_FILES = __file__.rpartition("/")[0]
_REQUESTS, _RESULTS = 3, 4
_IPYTHON = __file__.partition("/fumehood/guest/")[0] + "/ipython"
"""The guest's own IPython."""
_READ_BYTES = 1024 * 1024
# Bound here, because the user's code may replace them where they come from, as tests with mocks do.
_dumps, _loads, _readv, _write = json.dumps, json.loads, os.readv, os.write
_exit, _print = os._exit, print
_PLAIN = frozenset((int, float, complex, bool, str, bytes))
"""Types whose values have a text form and no other."""
# IPython takes the two away while a cell runs, and an interrupted `await` leaves its cell running a little longer.
_BUILTINS = frozenset(name for name, value in vars(builtins).items() if value is not None) - {"exit", "quit"}
_WARM_MODULES = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "ssl")


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


def _answer(descriptor: int, answer: dict[str, Any], displays: list[tuple[str, bytes]]) -> None:
    parts: list[bytes] = []
    for kind, data in displays:
        parts += [_message({"id": answer["id"], "display": {kind: len(data)}}), data]
    unsent = memoryview(b"".join((*parts, _message(answer))))
    while unsent:
        unsent = unsent[_write(descriptor, unsent) :]


def _message(content: dict[str, Any]) -> bytes:
    encoded = _dumps(content).encode("ascii")
    return len(encoded).to_bytes(4, "big") + encoded


def _refuse_input(prompt: object = "") -> NoReturn:
    raise EOFError(f"input() is not available here: nobody can answer {str(prompt)!r}. Put the value into the code.")


class _Interrupts:
    """SIGINT stops the cell that runs; between cells it comes too late and is ignored."""

    def __init__(self) -> None:
        self.in_cell = False
        self.restore()

    def restore(self) -> None:
        """Be what SIGINT does, whatever an earlier call left."""
        # Asking for the handler costs nothing; setting it is a system call.
        if signal.getsignal(signal.SIGINT) != self._on_signal:
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        if self.in_cell:
            raise KeyboardInterrupt


class _Streams:
    """The kernel's stdout and stderr. The user's code may put others in their place, for as long as its call lasts."""

    def __init__(self) -> None:
        self._own: list[Any] = [sys.stdout, sys.stderr]
        self._pipes = [os.dup(number) for number in (1, 2)]
        self._broken = False
        for stream in self._own:
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
        # Half lines would otherwise come after what a child process writes, or twice.
        os.register_at_fork(before=self.flush)
        for module, name in ((subprocess, "_fork_exec"), (os, "system")):
            if hasattr(module, name):
                setattr(module, name, self._flushing(getattr(module, name)))
        with contextlib.suppress(Exception):
            self._buffer_lines_of_c()
        self._flush_c = ctypes.CDLL(None).fflush

    def _flushing(self, start: Any) -> Any:
        @functools.wraps(start)
        def flushed(*arguments: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            self.flush()
            return start(*arguments, **options)

        return flushed

    def _buffer_lines_of_c(self) -> None:
        """Have C's `stdout` written at each line, as on a terminal, so that it keeps its place in the output."""
        library = ctypes.CDLL(None)
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, 1, 0)

    def restore(self) -> None:
        """Have the kernel's own again, whatever an earlier call left."""
        if self._broken:
            self._broken = False
            for number, pipe in zip((1, 2), self._pipes, strict=True):
                os.dup2(pipe, number)
        if sys.stdout is self._own[0] and sys.stderr is self._own[1] and not self._any_closed():
            return
        sys.stdout, sys.stderr = self._own
        if self._any_closed():
            self._own = [
                io.TextIOWrapper(
                    io.BufferedWriter(io.FileIO(number, "wb", closefd=False)),
                    encoding="utf-8",
                    errors="backslashreplace",
                    line_buffering=True,
                )
                for number in (1, 2)
            ]
            sys.stdout, sys.stderr = self._own

    def _any_closed(self) -> bool:
        output, errors = self._own
        try:
            return bool(output.closed or errors.closed)
        except ValueError:
            # Its buffer was detached.
            return True

    def flush(self) -> None:
        """Write out what they hold."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                self._broken = True

    def flush_all(self) -> None:
        """Also what C's own hold."""
        self.flush()
        self._flush_c(None)


def _cut_own_frames(traceback: TracebackType | None) -> None:
    """Cut a traceback after the last frame that is not of the kernel."""
    last = None
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
            last = traceback
        traceback = traceback.tb_next
    if last is not None:
        last.tb_next = None


def _make_shell(displays: Displays) -> Any:
    if importlib.util.find_spec("IPython") is None:
        # A template that was not made for this: the guest brings its own, behind all that the template has.
        sys.path.append(_IPYTHON)
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.error import UsageError
    from IPython.core.history import HistoryManager
    from IPython.lib import pretty
    from traitlets.config import Config

    # Imported so, it has no types: its own are half known.
    interactive_shell: Any = importlib.import_module("IPython.core.interactiveshell").InteractiveShell

    as_repr = vars(pretty)["_repr_pprint"]

    class EchoingDisplayHook(DisplayHook):
        """The last expression's value, without the `Out[n]:` before it."""

        plain: Any = None
        # What is set and looked at in every call, and watched by nobody, is no trait: those are slow.
        exec_result: Any = None

        def quiet(self) -> bool:
            """Whether the cell's end says that its value is not to be shown."""
            cells: list[str] = cast("Any", self).shell.history_manager.input_hist_parsed
            told = ends_with_semicolon(cells[-1]) if cells else False
            return bool(super().quiet()) if told is None else told

        def write_output_prompt(self) -> None:
            """Nothing: the service's output carries no prompts."""

        def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            """The text form alone of values that have no other, which are not asked for one."""
            if type(result) in _PLAIN:
                # What pretty-printing comes to, unless the user's code wants something else of it.
                is_repr = self.plain.type_printers.get(type(result)) is as_repr
                return {"text/plain": repr(result) if is_repr else self.plain(result)}, {}
            return super().compute_format_data(result)  # type: ignore[no-any-return]

        def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
            """The text form on stdout, another in the answer."""
            del md_dict
            displays.show(format_dict)

        def log_output(self, format_dict: dict[str, Any]) -> None:
            """Nothing: a history that nobody sees would keep every picture."""

    class KeepingDisplayPublisher(DisplayPublisher):
        """What `display()` shows."""

        def publish(
            self,
            data: Mapping[str, Any],
            metadata: Any = None,
            source: Any = None,
            *,
            transient: Mapping[str, Any] | None = None,
            update: bool = False,
            **options: Any,
        ) -> None:
            """As the last expression's value."""
            del metadata, source, options
            displays.show(data, (transient or {}).get("display_id"), update)

        def clear_output(self, wait: bool = False) -> None:
            """Forget what the call displayed; what it printed has gone out."""
            del wait
            displays.clear()

    class Inputs(HistoryManager):
        """The cells of the session."""

        _i = _ii = _iii = _i00 = ""

    class KernelShell(interactive_shell):
        """Tracebacks go to stderr, as the service has them."""

        displayhook_class = EchoingDisplayHook
        display_pub_class = KeepingDisplayPublisher
        execution_count = 1
        last_execution_succeeded = True
        last_execution_result: Any = None

        def init_history(self) -> None:
            """The history, which is not written anywhere."""
            self.history_manager = Inputs(shell=self, parent=self)
            self.configurables.append(self.history_manager)

        def _tee(self, channel: str) -> contextlib.AbstractContextManager[None]:
            """Nothing: what is printed goes out, and is not kept here a second time."""
            del channel
            return contextlib.nullcontext()

        def should_run_async(self, raw_cell: str, **options: Any) -> bool:
            """Whether the cell awaits something; it is compiled for that only if it may."""
            return may_await(raw_cell) and interactive_shell.should_run_async(self, raw_cell, **options)

        def init_user_ns(self) -> None:
            """`exit` and `quit` end a cell, as `sys.exit` does."""
            interactive_shell.init_user_ns(self)
            for names in (self.user_ns, self.user_ns_hidden):
                names["exit"] = names["quit"] = sys.exit

        def transform_cell(self, raw_cell: str) -> str:
            """The cell with IPython's syntax made Python's."""
            if is_plain_python(self, raw_cell):
                return raw_cell if raw_cell.endswith("\n") else f"{raw_cell}\n"
            return interactive_shell.transform_cell(self, raw_cell)  # type: ignore[no-any-return]

        def _get_exc_info(self, exc_tuple: Any = None) -> Any:
            """The exception to show, without the kernel's own frames at its end."""
            shown = interactive_shell._get_exc_info(self, exc_tuple)
            _cut_own_frames(shown[2])
            return shown

        def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
            del evalue
            sys.stdout.flush()
            if issubclass(etype, SystemExit):
                return
            _print(self.InteractiveTB.stb2text(stb), file=sys.stderr)

        def enable_gui(self, gui: str | None = None) -> None:
            """`%matplotlib inline` needs nothing, and there is no screen for others."""
            if gui is not None:
                raise UsageError(f"there is no screen here for {gui}: figures are shown inline")

    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D.")
    # The history would be written by a thread of its own, which takes turns with every cell.
    without_history = Config({"HistoryManager": {"enabled": False}})
    shell: Any = KernelShell.instance(config=without_history, colors="nocolor")
    formatter = shell.display_formatter
    formatter.active_types = [kind for kind in formatter.formatters if kind == "text/plain" or kind in MEDIA_TYPES]
    shell.displayhook.plain = formatter.formatters["text/plain"]
    fit_players(formatter.mimebundle_formatter)
    fit_plots(shell)
    shell.system = shell.system_raw
    shell.builtin_trap.auto_builtins["input"] = _refuse_input
    _fix(shell, "history_manager", "builtin_trap", "display_trap", "magics_manager", "input_transformer_manager")
    _fix(shell.displayhook, "shell")
    _fix(shell.history_manager, "shell")
    return shell


def _fix(owner: Any, *names: str) -> None:
    """Take what never changes, and is looked at in every call, for no trait any more: to look those up is slow.

    For the one object of a class of our own.
    """
    for name in names:
        setattr(owner.__class__, name, getattr(owner, name))


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _print(code, file=sys.stderr)
    return 1


def _execute(shell: Any, run_cell: Any, interrupts: _Interrupts, code: str, clear: bool) -> int:
    """Run one cell; the exit code the caller is told: 0, 1 for an exception, or what `sys.exit` was given."""
    if clear:
        shell.reset(new_session=True, aggressive=False)
        close_figures()
    try:
        interrupts.in_cell = True
        result = run_cell(code, store_history=True)
    except KeyboardInterrupt:
        return 1
    finally:
        interrupts.in_cell = False
    error = result.error_before_exec or result.error_in_exec
    if isinstance(error, SystemExit):
        return _exit_code(error.code)
    return 0 if result.success else 1


def _is_damaged() -> bool:
    """Whether the user's code has taken away what any code needs, so that no call can go well any more."""
    present = builtins.__dict__
    for name in _BUILTINS:
        if present.get(name) is None:
            return True
    # Not the same module: all were dropped, and this one has been imported again.
    return sys.modules.get("functools") is not functools


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


def _warm(shell: Any) -> None:
    for name in _WARM_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    try:
        raise ValueError
    except ValueError:
        # The first traceback loads what colours and quotes code, which takes longer than most calls.
        shell.InteractiveTB.structured_traceback(*sys.exc_info())
    with contextlib.suppress(ImportError):
        draw_once()


def _forget_what_is_loaded() -> None:
    """The first is loaded (runtimes.py), and is not for the programs that code starts."""
    others = os.environ.pop("LD_PRELOAD", "").partition(":")[2]
    if others:
        os.environ["LD_PRELOAD"] = others


def main() -> None:
    """Serve calls until the agent closes the pipe."""
    _forget_what_is_loaded()
    # Moved out of the way of programs that think 3 and 4 are theirs; not inherited by what user code starts.
    requests, results = (os.dup(descriptor) for descriptor in (_REQUESTS, _RESULTS))
    os.close(_REQUESTS)
    os.close(_RESULTS)
    interrupts = _Interrupts()
    streams = _Streams()
    displays = Displays()
    shell = _make_shell(displays)
    run_cell = shell.run_cell
    forked: list[bool] = []
    os.register_at_fork(after_in_child=lambda: forked.append(True))
    messages = _Requests(requests)
    while True:
        message = messages.receive()
        answer: dict[str, Any] = {"id": message["id"]}
        streams.restore()
        interrupts.restore()
        if message["op"] == "execute":
            answer["exit_code"] = _execute(shell, run_cell, interrupts, message["code"], message["clear"])
            if answer["exit_code"] and _is_damaged():
                _write(2, b"The code has damaged its interpreter beyond use.\n")
                _exit(1)
        elif message["op"] == "renew":
            _renew_randomness()
        elif message["op"] == "warm":
            _warm(shell)
        elif message["op"] == "rehearse":
            # Restored memory is slow to touch for the first time: better now than in the first call.
            run_cell("None", store_history=False)
        streams.flush_all()
        if forked:
            # The user's code forked, and its child came to the end of the code too: it is not the kernel.
            _exit(answer.get("exit_code", 0))
        _answer(results, answer, displays.take())


if __name__ == "__main__":
    main()
