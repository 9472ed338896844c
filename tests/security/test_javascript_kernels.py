"""JavaScript that tampers with its kernel gets no further than its own call."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Service, Session, service

RUNTIMES = ("deno", "nodejs")
_LIMIT_SECONDS = 10
_SEND = """
const { Socket } = require('net');
function send(message) {
  const data = Buffer.from(typeof message === 'string' ? message : JSON.stringify(message));
  const size = Buffer.alloc(4); size.writeUInt32BE(data.length);
  new Socket({ fd: 4, readable: false, writable: true }).write(Buffer.concat([size, data]));
}
"""

# What lasts in the realm that kernel and user code share, and must not mislead later calls.
REPLACED = {
    "JSON": "JSON.parse = JSON.stringify = () => { throw 1 }",
    "arrays": "Array.prototype.push = Array.prototype.shift = Array.prototype.map = Array.prototype.flatMap = null",
    "promises": "Promise.prototype.then = () => { throw 2 }; Promise = null",
    "buffers": "Buffer.from = Buffer.concat = Buffer.prototype.readUInt32BE = Buffer.prototype.subarray = null;"
    "Uint8Array.prototype.subarray = Uint8Array.prototype.set = null",
    "the console": "console.log = console.error = null",
    "the streams": "process.stdout.write = process.stderr.write = () => true",
    "timers": "globalThis.setImmediate = globalThis.setTimeout = globalThis.queueMicrotask = null",
    "Object.prototype": "for (const name of ['id', 'op', 'exit_code', 'display', 'exceptionDetails'])"
    "  Object.defineProperty(Object.prototype, name, { get() { throw 3 }, set() { throw 3 }, configurable: true })",
    "maps": "Map.prototype.set = Map.prototype.delete = Map.prototype.forEach = Map.prototype.get = null",
    "stack traces": "Error.prepareStackTrace = () => { throw 1 }; Error.stackTraceLimit = -1",
    "Error": "Error = null",
    "process": "globalThis.process = null",
    "strings": "for (const name of ['replace', 'split', 'startsWith', 'padEnd']) String.prototype[name] = null;"
    "RegExp.prototype.exec = RegExp.prototype.test = null",
    "clocks": "Date.now = null; Date = null; performance.now = null",
    "reflection": "Reflect.apply = Symbol.for = Math.max = Object.keys = Object.entries = null",
    "the global object, frozen": "Object.freeze(globalThis)",
    "text encoding": "TextEncoder.prototype.encode = TextDecoder.prototype.decode = null",
    "sockets": "require('net').Socket.prototype.write = require('stream').Writable.prototype.write = null;"
    "require('stream').Readable.prototype.push = null",
    "the kernel's hooks": "try { __kernel__ = 1 } catch {}; try { delete globalThis.__kernel__ } catch {};"
    "try { __kernel__.interrupt = 1 } catch {}; try { __kernel__.import = 1 } catch {}",
    "handlers of errors": "process.removeAllListeners()",
    "the inspector": "require('inspector').Session.prototype.post = require('v8').promiseHooks.onInit = null",
    "inspection": "require('util').inspect = null; globalThis.Deno && (Deno.inspect = null)",
    "files": "require('fs').writeSync = null; globalThis.Deno && (Deno.stdout.writeSync = Deno.dlopen = null)",
    "exit": "process.exit = null; globalThis.Deno && (Deno.exit = null)",
}

# What the runtime itself cannot live without: the kernel may end with it.
BROKEN = {
    "functions": "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = null",
    "the global object, emptied": "for (const name of Object.getOwnPropertyNames(globalThis))"
    " { try { delete globalThis[name] } catch {} }",
    "iteration": "Array.prototype[Symbol.iterator] = null",
    "everything awaited": "Object.defineProperty(Object.prototype, 'then', { get() { throw 3 }, configurable: true })",
    "events": "require('events').prototype.emit = null",
}

# What ends the call, and perhaps the kernel with it.
FORGED = {
    "frames of the host's on stdout": "process.stdout.write('\\xfe\\r\\x06\\0'.repeat(1000), 'latin1')",
    "a result printed": """console.log('{"id": 1, "exit_code": 0}')""",
    "another call's answer": _SEND + "send({ id: '1', exit_code: 0 }); await new Promise(() => {})",
    "no JSON": _SEND + "send('nonsense'); await new Promise(() => {})",
    "an answer too large": _SEND + "send('x'.repeat(70000)); await new Promise(() => {})",
    "an inspector that is none": _SEND + "send({ inspector: 'ws://127.0.0.1:1/x' })",
    "an inspector elsewhere": _SEND + "send({ inspector: 'ws://192.0.2.1:9229/x' }); send({ inspector: [{}] })",
    "the kernel's pipes closed": "const fs = require('fs');"
    "for (const n of [3, 4]) { try { fs.closeSync(n) } catch {} }; process.kill(process.pid, 'SIGKILL')",
    "every descriptor closed": "const fs = require('fs');"
    "for (let n = 3; n < 256; n++) { try { fs.closeSync(n) } catch {} }; process.kill(process.pid, 'SIGKILL')",
    "the first process killed": "try { process.kill(1, 'SIGKILL') } catch (error) { console.log(error.code) }",
    "everything killed": "require('child_process').execSync('kill -9 -1')",
    "its inspector used to end it": "const { url } = require('inspector'); const socket = new WebSocket(url());"
    "await new Promise((opened) => socket.onopen = opened);"
    "socket.send(JSON.stringify({ id: 1, method: 'Runtime.terminateExecution' })); for (;;);",
    "a crash": "process.abort()",
}


@pytest.fixture(scope="module")
def brisk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose calls may take little time, because some of these wait for it."""
    settings = {"FUMEHOOD_CALL_TIMEOUT_SECONDS": str(_LIMIT_SECONDS)}
    with service(tmp_path_factory.mktemp("tampered") / "data", settings) as running:
        yield running


@pytest.fixture(scope="module")
def tampered(brisk_server: Service) -> Iterator[Session]:
    """A session in which all attacks are made, one after another."""
    session = Session(brisk_server.client(), sessionTimeoutSeconds=3600)
    yield session
    session.stop()


def _run(session: Session, runtime: str, code: str) -> dict[str, Any]:
    result = session.invoke("executeCode", language="javascript", runtime=runtime, code=code)
    structured = result["structuredContent"]
    assert result["isError"] is (structured["exitCode"] != 0)
    assert -(2**31) <= structured["exitCode"] < 2**31
    return structured


def _renew(session: Session) -> None:
    """End all kernels: what the attacks of one test replaced is not there in the next.

    One that is killed has no command line any more while its threads still end, so what is waited for is its number.
    """
    kernels = "$(pgrep -f '[k]ernels/(deno|node)')"
    session.sh(f"for id in {kernels}; do kill -9 $id; while [ -e /proc/$id ]; do :; done; done")


def _check_true(session: Session, runtime: str) -> None:
    done = _run(session, runtime, "6 * 7")
    assert done["stdout"] == "42", done
    failed = _run(session, runtime, "throw 'told'")
    assert failed["exitCode"] == 1
    assert "told" in failed["stderr"]
    syntax = _run(session, runtime, "let = = 1")
    assert syntax["exitCode"] == 1
    assert "Syntax" in syntax["stderr"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("code", REPLACED.values(), ids=REPLACED)
def test_what_user_code_replaces_does_not_mislead_later_calls(tampered: Session, runtime: str, code: str) -> None:
    _renew(tampered)
    assert _run(tampered, runtime, "let kept = 5")["exitCode"] == 0
    _run(tampered, runtime, code)
    _check_true(tampered, runtime)
    assert _run(tampered, runtime, "kept")["stdout"] == "5"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN)
def test_user_code_that_breaks_its_runtime_breaks_no_more(tampered: Session, runtime: str, code: str) -> None:
    _renew(tampered)
    _run(tampered, runtime, code)
    _run(tampered, runtime, "6 * 7")
    assert tampered.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
    _renew(tampered)
    _check_true(tampered, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("code", FORGED.values(), ids=FORGED)
def test_forged_answers_and_dead_kernels_reach_no_other_call(tampered: Session, runtime: str, code: str) -> None:
    _run(tampered, runtime, code)
    assert tampered.sh("echo $((6 * 7)); exit 3")["structuredContent"]["stdout"] == "42\n"
    _check_true(tampered, runtime)
    assert tampered.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_user_code_that_handles_the_interrupt_itself_is_ended(tampered: Session, runtime: str) -> None:
    told = _run(
        tampered,
        runtime,
        "process.on('SIGINT', () => {}); require('inspector').close(); await new Promise(() => {})",
    )
    assert told["exitCode"] != 0
    assert f"longer than the {_LIMIT_SECONDS} seconds" in told["stderr"]
    _check_true(tampered, runtime)
