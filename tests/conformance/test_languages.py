"""What a language does in a session: the same behaviours for every language and runtime, wherever they make sense."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from fumehood.settings import MIB
from tests.service import Service, Session, service


class Dialect(NamedTuple):
    """A language in a runtime."""

    language: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.language}/{self.runtime}"


DIALECTS = (
    Dialect("python", "python"),
    Dialect("javascript", "deno"),
    Dialect("javascript", "nodejs"),
    Dialect("typescript", "deno"),
    Dialect("typescript", "nodejs"),
)


@dataclass(frozen=True)
class Cell:
    """Code, and what must come of it: patterns of the whole of stdout and of stderr, and the exit code."""

    code: str
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


Cells = Sequence[Cell]
# Of each behaviour: cells run one after another, by language or by language and runtime. What is valid as JavaScript is
# as TypeScript, so that is written where it differs.
Table = Mapping[str, Mapping[str, Cells]]

_RAISED = r"-+\nZeroDivisionError .*\nCell In\[\d+\], line 2, in f\(\)\n.*ZeroDivisionError: division by zero"

BEHAVIOURS: Table = {
    "state stays": {
        "python": [Cell("state = 41"), Cell("print(state + 1)", "42")],
        "javascript": [Cell("const state = 41"), Cell("console.log(state + 1)", "42")],
        "typescript": [Cell("const typed: number = 41"), Cell("console.log(typed + 1)", "42")],
    },
    "functions and classes stay": {
        "python": [Cell("class Point:\n    def norm(self): return 5"), Cell("print(Point().norm())", "5")],
        "javascript": [Cell("class Point { norm() { return 5 } }"), Cell("console.log(new Point().norm())", "5")],
        "typescript": [
            Cell("class Typed { private n: number = 5; norm(): number { return this.n } }"),
            Cell("console.log(new Typed().norm())", "5"),
        ],
    },
    "names can be declared anew, as anything": {
        "python": [
            Cell("a = b = 1\ndef c(): pass\nclass d: pass"),
            Cell("def a(): return 2\nclass b: x = 2\nc, d = 2, 2\nprint(a(), b.x, c, d)", "2 2 2 2"),
        ],
        "javascript": [
            Cell("const a = 1; let b = 1; function c() {}; class d {}; var e = 1"),
            Cell(
                "let a = 2; function b() { return 2 }; const c = 2; var d = 2; class e { x = 2 }\n"
                "console.log(a, b(), c, d, new e().x)",
                "2 2 2 2 2",
            ),
            Cell("const {a, rest: [b, ...c]} = {a: 3, rest: [3, 3]}; console.log(a, b, c.length)", "3 3 1"),
        ],
    },
    "a constant is one in its own cell": {
        "javascript": [
            Cell("const PI = 3; try { PI = 4 } catch (e) { console.log(e.name) }; console.log(PI)", "TypeError\n3")
        ],
    },
    "the last expression is echoed": {
        "python": [
            Cell("6 * 7", "42"),
            Cell("x = 1\nx", "1"),
            Cell("'text'", "'text'"),
            Cell("[1, {'a': 2}]", r"\[.*\]"),
        ],
        "javascript": [
            Cell("6 * 7", "42"),
            Cell("let echoed = 1; echoed", "1"),
            Cell("'text'", "[\"']text[\"']"),
            Cell("[1, {a: 2}]", r"\[ 1, \{ a: 2 \} \]"),
            Cell("{a: 1}", r"\{ a: 1 \}"),
            Cell("10n", "10n"),
            Cell("-0", "-0"),
            Cell("null", "null"),
        ],
    },
    "nothing is echoed that is nothing": {
        "python": [Cell("None"), Cell("x = 5")],
        "javascript": [Cell("undefined"), Cell("const none = 5"), Cell("console.log.call(null)", "")],
    },
    "only the last expression is echoed": {
        "python": [Cell("1\n2", "2"), Cell("1;", "")],
        "javascript": [Cell("1\n2", "2"), Cell("const one = 1; one; 3", "3")],
    },
    "braces around statements are a block": {
        "javascript": [Cell("{ const inner = 3; console.log(inner) }\n", "3")],
    },
    "await works at the top level": {
        "python": [Cell("import asyncio\nawait asyncio.sleep(0)\nprint('done')", "done")],
        "javascript": [Cell("const v = await Promise.resolve(42)\nconsole.log(v)", "42"), Cell("await 43", "43")],
        "typescript": [Cell("const w: number = await Promise.resolve(42)\nconsole.log(w)", "42")],
    },
    "a promise that is the last value is waited for": {
        "python": [Cell("async def go():\n    print('done')\nawait go()", "done")],
        "javascript": [
            Cell(
                "async function go() { await new Promise(r => setTimeout(r, 20)); console.log('done') }\ngo()",
                "done",
            ),
            Cell("go().then(() => 44)", "done\n44"),
            Cell(
                "(async () => { throw new TypeError('late') })()", "", r"Uncaught \(in promise\) TypeError: late\n.*", 1
            ),
        ],
    },
    "timers that a cell leaves are waited for": {
        "javascript": [
            Cell("setTimeout(() => console.log('later'), 20); console.log('first')", "first\nlater"),
            Cell("setTimeout(console.log, 1, 'with', 'values')", "with values"),
            Cell("const never = setTimeout(() => console.log('never'), 20); clearTimeout(never); 1", "1"),
            Cell("const hour = setTimeout(() => {}, 3_600_000); 'at once'", ".at once."),
            Cell("clearTimeout(hour)", ""),
        ],
    },
    "an error has a stack of the user's lines alone": {
        "python": [Cell("def f():\n    return 1 / 0\n\nf()", "", _RAISED, 1)],
        "javascript": [
            Cell(
                "function f() {\n  throw new RangeError('boom')\n}\nf()",
                "",
                r"Uncaught RangeError: boom\n    at f \(cell-\d+\.[jt]s:2:9\)\n    at cell-\d+\.[jt]s:4:1",
                1,
            ),
            Cell(
                "async function g() {\n  await null\n  throw new Error('deep')\n}\nawait g()",
                "",
                r"Uncaught Error: deep\n    at g \(cell-\d+\.[jt]s:3:9\)\n    at async cell-\d+\.[jt]s:5:1",
                1,
            ),
            Cell("throw new Error('first line')", "", r"Uncaught Error: first line\n    at cell-\d+\.[jt]s:1:7", 1),
        ],
        "typescript": [
            Cell(
                "interface Shape {\n  a: string\n}\nfunction f(s: Shape): never {\n  throw new RangeError(s.a)\n}\n"
                "f({a: 'boom'})",
                "",
                r"Uncaught RangeError: boom\n    at f \(cell-\d+\.ts:5:9\)\n    at cell-\d+\.ts:7:1",
                1,
            ),
            # An enum becomes code, so that lines move; those that are told do not.
            Cell(
                "enum Level {\n  Low,\n  High,\n}\nfunction g(n: Level): never {\n  throw new Error(Level[n])\n}\n"
                "g(Level.High)",
                "",
                r"Uncaught Error: High\n    at g \(cell-\d+\.ts:6:9\)\n    at cell-\d+\.ts:8:1",
                1,
            ),
        ],
    },
    "what was printed before an error stays": {
        "python": [Cell("print('before')\n1 / 0", "before", r".*ZeroDivisionError: division by zero", 1)],
        "javascript": [Cell("console.log('before')\nnull.x", "before", r"Uncaught TypeError: .*null.*", 1)],
    },
    "an error's cause and other members are shown": {
        "python": [
            Cell(
                "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError('k') from e",
                "",
                ".*ZeroDivisionError.*direct cause.*KeyError: 'k'",
                1,
            )
        ],
        "javascript": [
            Cell(
                "throw Object.assign(new Error('a', {cause: new Error('b')}), {code: 'E1'})",
                "",
                ".*Error: a\n.*Error: b\n.*",
                1,
            ),
        ],
    },
    "things that are no errors can be thrown": {
        "javascript": [
            Cell("throw 5", "", "Uncaught 5", 1),
            Cell("throw null", "", "Uncaught null", 1),
            Cell("throw undefined", "", "Uncaught undefined", 1),
            Cell("throw {a: 1}", "", r"Uncaught \{ a: 1 \}", 1),
            Cell("throw {get stack() { throw 1 }, toString: null}", "", "Uncaught .*", 1),
        ],
    },
    "a syntax error is told as such, with its line": {
        "python": [Cell("x = 1\ny = = 2", "", r".*Cell In\[\d+\], line 2\n.*SyntaxError: invalid syntax", 1)],
        "javascript": [
            Cell(
                "let fine = 1\nlet y = = 2",
                "",
                r"cell-\d+\.js:2\nlet y = = 2\n        \^\nSyntaxError: Unexpected token '='",
                1,
            ),
            Cell("f(", "", r"cell-\d+\.js:1\nf\(\n  \^\nSyntaxError: .*", 1),
            Cell("return 5", "", r".*SyntaxError: Illegal return statement", 1),
            Cell("let twice = 1; let twice = 2", "", ".*SyntaxError: Identifier 'twice' has already been declared", 1),
            Cell("const z: number = 1", "", r".*SyntaxError: .*", 1),
        ],
        "typescript": [
            Cell("let fine: number = 1\nlet y: = 2", "", r"cell-\d+\.ts:2\nlet y: = 2\n       \^\nSyntaxError: .*", 1),
            Cell("let z: number =\n  ] 1", "", r"cell-\d+\.ts:2\n  \] 1\n  \^\nSyntaxError: Expression expected", 1),
            Cell("@decorated class D {}", "", r".*SyntaxError: .*decorators are not supported.*", 1),
        ],
    },
    "a syntax error at run time is an error like others": {
        "javascript": [Cell("JSON.parse('{')", "", r"Uncaught SyntaxError: .*JSON.*\n    at JSON.parse.*", 1)],
    },
    "output is split into stdout and stderr": {
        "python": [Cell("import sys\nprint('out')\nprint('err', file=sys.stderr)", "out", "err")],
        "javascript": [
            Cell(
                "console.log('log'); console.info('info'); console.debug('debug'); console.dir({d: 1})\n"
                "console.error('error'); console.warn('warn')",
                r"log\ninfo\ndebug\n\{ d: 1 \}",
                "error\nwarn",
            ),
            Cell("console.table([{a: 1}])", r"┌(.|\n)*│ a │(.|\n)*┘"),
            Cell("console.trace('here')", "", r"Trace: here\n    at cell-\d+\.[jt]s:1:9"),
            Cell("process.stdout.write('raw'); process.stderr.write('raw err'); undefined", "raw", "raw err"),
        ],
    },
    "what comes without end of line is kept in order": {
        "python": [Cell("print('a', end=''); print('b', end='')\n'c'", "ab'c'")],
        "javascript": [Cell("process.stdout.write('a'); console.log('b'); process.stdout.write('c'); 5", "ab\nc5")],
    },
    "output of child processes is captured, in order": {
        "python": [
            Cell(
                "import subprocess\nprint('before')\nsubprocess.run('echo child; echo bad >&2', shell=True)\n"
                "print('after')",
                "before\nchild\nafter",
                "bad",
            )
        ],
        "javascript": [
            Cell(
                "console.log('before')\n"
                "require('child_process').execSync('echo child; echo bad >&2', {stdio: 'inherit'})\n"
                "console.log('after')",
                "before\nchild\nafter",
                "bad",
            )
        ],
    },
    "bytes that are no text arrive as something": {
        "python": [Cell("import os; _ = os.write(1, b'\\xff\\xfeA')", "\ufffd\ufffdA")],
        "javascript": [Cell("process.stdout.write(new Uint8Array([255, 254, 65])); undefined", "\ufffd\ufffdA")],
    },
    "text of all scripts is kept": {
        "python": [Cell("naïve = 'héllo 🧪 漢字'\nprint(naïve, len(naïve))", "héllo 🧪 漢字 10")],
        "javascript": [
            Cell("const naïve = 'héllo 🧪 漢字'\nconsole.log(naïve, [...naïve].length)", "héllo 🧪 漢字 10")
        ],
    },
    "half a character does no harm": {
        "python": [Cell(r"print('\ud83d' + 'x')", r".*x")],
        "javascript": [Cell(r"console.log('\ud83d' + 'x')", "\ufffdx"), Cell(r"'\ud83d' + 'x'", ".*x.")],
    },
    "nobody answers questions": {
        "python": [Cell("input('name? ')", "", ".*EOFError: .*", 1)],
        "javascript": [
            Cell("require('fs').readFileSync(0, 'utf8').length", "0"),
            Cell("for await (const line of process.stdin) console.log(line)\n'end'", ".end."),
        ],
        "javascript/deno": [Cell("prompt('name?')", "null"), Cell("confirm('sure?')", "false")],
    },
    "errors nobody handles are told, and end only the call": {
        "javascript": [
            Cell("let kept = 7"),
            Cell(
                "Promise.reject(new Error('unhandled')); 5",
                "5",
                r"Uncaught \(in promise\) Error: unhandled\n    at cell-\d+\.[jt]s:1:16",
                1,
            ),
            Cell(
                "setTimeout(() => { throw new Error('in a timer') }, 5); undefined",
                "",
                "Uncaught Error: in a timer\n.*",
                1,
            ),
            Cell("Promise.reject(5).catch(() => {}); kept", "7"),
        ],
        "python": [
            Cell(
                "kept = 7\nimport threading\nt = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
                "",
                ".*Zero.*",
            ),
            Cell("kept", "7"),
        ],
    },
    "exit ends the call with its code, and nothing else": {
        "python": [
            Cell("kept = 8\nimport sys\nsys.exit(3)\nprint('no')", "", "", 3),
            Cell("kept", "8"),
            Cell("exit()", "", "", 0),
        ],
        "javascript": [
            Cell("let left = 8; process.exit(3); console.log('no')", "", "", 3),
            Cell("left", "8"),
            Cell("try { process.exit() } catch { console.log('no') } finally { console.log('no') }"),
            Cell("setTimeout(() => process.exit(4), 10); await new Promise(() => {})", "", "", 4),
            Cell("process.exitCode = 5; process.exit()", "", "", 5),
            Cell("left", "8"),
        ],
        "javascript/deno": [Cell("Deno.exit(6)", "", "", 6)],
    },
    "an end of the process is told, and a new one follows": {
        "python": [
            Cell("lost = 1\nimport os; os._exit(0)", "", r"The python process ended \(exit code 0\).*fresh one\.", 1),
            Cell("'lost' in globals()", "False"),
            Cell("import ctypes; ctypes.string_at(0)", "", r".*The python process ended \(SIGSEGV\).*", 139),
            Cell("1", "1"),
        ],
        "javascript": [
            Cell("let lost = 1"),
            Cell("process.kill(process.pid, 'SIGKILL')", "", r".*The \w+ process ended \(SIGKILL\).*fresh one\.", 137),
            Cell("typeof lost", ".undefined."),
            Cell("process.abort()", "", r".*The \w+ process ended \(SIGABRT\).*", 134),
            Cell("1", "1"),
        ],
    },
    "a recursion without end is an error": {
        "python": [Cell("def f(): return f()\nf()", "", ".*RecursionError: .*", 1)],
        "javascript": [Cell("function f() { return f() }\nf()", "", "Uncaught RangeError: Maximum call stack .*", 1)],
    },
    "modules of the runtime can be imported in every way": {
        "python": [
            Cell("import json as j\nfrom os import path\nprint(j.dumps([1]), path.join('a', 'b'))", r"\[1\] a/b")
        ],
        "javascript": [
            Cell("const path = require('path'); path.join('a', 'b')", ".a/b."),
            Cell("import fs from 'fs'\nimport * as os from 'node:os'\nfs.existsSync('/') && os.EOL.length", "1"),
            Cell("import { join as j, dirname } from 'node:path'\nj(dirname('/a/b'), 'c')", "./a/c."),
            Cell("const { readFile } = await import('node:fs/promises'); typeof readFile", ".function."),
            Cell("import 'node:url'"),
            Cell("import { nothing } from 'fs'", "", "Uncaught SyntaxError: .*'nothing'\n.*", 1),
            Cell("require.main === module", "true"),
            Cell("import.meta.dirname", "./home/sandbox."),
        ],
        "typescript": [
            Cell("import type { PathLike } from 'node:fs'\nimport { sep } from 'node:path'\nsep", "./."),
        ],
    },
    "files of the session are modules": {
        "python": [
            Cell("_ = open('mine.py', 'w').write('value = 9')"),
            Cell("import mine; mine.value", "9"),
        ],
        "javascript": [
            Cell(
                "require('fs').writeFileSync('mine.mjs', 'export const value = 9')\n"
                "require('fs').writeFileSync('mine.cjs', 'exports.value = 10')\n"
                "require('fs').writeFileSync('data.json', '{\"value\": 11}')",
            ),
            Cell("import { value } from './mine.mjs'\nvalue", "9"),
            Cell("require('./mine.cjs').value", "10"),
            Cell("import data from './data.json' with { type: 'json' }\ndata.value", "11"),
            Cell("(await import('./mine.mjs')).value", "9"),
        ],
    },
    "exports are no errors": {
        "javascript": [Cell("export const out = 1\nexport default out", "1"), Cell("export { out }\nout", "1")],
    },
    "the documented npm packages are there": {
        "javascript": [
            Cell("import _ from 'lodash'\n_.chunk([1, 2, 3], 2).length", "2"),
            Cell("import { v4 } from 'uuid'\nv4().length", "36"),
            Cell("import { z } from 'zod'\nz.number().safeParse('x').success", "false"),
            Cell("import * as cheerio from 'cheerio'\ncheerio.load('<b>hi</b>')('b').text()", ".hi."),
            Cell("import axios from 'axios'\ntypeof axios.get", ".function."),
            Cell("typeof require('lodash').map + typeof require('axios').get", ".functionfunction."),
            Cell("require('uuid').v4().length + require('zod').z.number().parse(1)", "37"),
            Cell("require('cheerio').load('<i>x</i>')('i').text()", ".x."),
        ],
        "javascript/deno": [
            Cell("import l from 'npm:lodash@4'\nl.sum([1, 2])", "3"),
            Cell("(await import('npm:zod')).z.string().parse('ok')", ".ok."),
        ],
    },
    "packages that are not there are missed at once": {
        "python": [Cell("import nowhere_to_be_found", "", ".*ModuleNotFoundError: .*nowhere_to_be_found.*", 1)],
        "javascript": [
            Cell("import x from 'nowhere-to-be-found'", "", "Uncaught .*nowhere-to-be-found.*", 1),
            Cell("require('nowhere-to-be-found')", "", "Uncaught .*nowhere-to-be-found.*", 1),
        ],
        "javascript/deno": [
            Cell("import x from 'npm:nowhere-to-be-found'", "", "Uncaught .*nowhere-to-be-found.*", 1),
            Cell("import x from 'https://example.com/x.js'", "", "Uncaught .*example.com.*", 1),
        ],
    },
    "there is no network, at once": {
        "python": [Cell("import urllib.request\nurllib.request.urlopen('http://example.com')", "", ".*URLError.*", 1)],
        "javascript": [Cell("await fetch('http://example.com')", "", "Uncaught TypeError: fetch failed.*", 1)],
    },
    "a server can listen on loopback": {
        "javascript": [
            Cell(
                "const http = require('http')\n"
                "const server = http.createServer((_, answer) => answer.end('served')).listen(0)\n"
                "await (await fetch(`http://127.0.0.1:${server.address().port}`)).text()",
                ".served.",
            ),
            Cell("server.close(); server.closeAllConnections(); 1", "1"),
        ],
    },
    "types are stripped, and what is more than a type becomes code": {
        "typescript": [
            Cell("type Id = string | number; let id: Id = 5; const same = <T,>(x: T): T => x; same<Id>(id)", "5"),
            Cell("let maybe: {a?: number} | null = {a: 1}; maybe!.a as number", "1"),
            Cell("const checked = {a: 1} satisfies Record<string, number>; checked.a", "1"),
            Cell("enum Colour { Red, Green = 'g' }; Colour.Green", ".g."),
            Cell("namespace Space { export const deep = 3 }\nSpace.deep", "3"),
            Cell("class Held { constructor(public readonly x: number) {} }\nnew Held(3).x", "3"),
            Cell(
                "abstract class Base { abstract f(): number }\nclass Sub extends Base { f() { return 4 } }\n"
                "new Sub().f()",
                "4",
            ),
            Cell("let wrong: number = 'types are not checked' as any; wrong", ".types are not checked."),
            Cell("enum Colour { Blue = 7 }; Colour.Blue", "7"),
        ],
    },
}


def _cells(table: Table, name: str, dialect: Dialect) -> list[Cell]:
    """The cells of a behaviour in that dialect."""
    of = table[name]
    own = of.get(dialect.language)
    if own is None and dialect.language == "typescript":
        own = of.get("javascript")
    more = of.get(f"javascript/{dialect.runtime}", ()) if dialect.language != "python" else ()
    return [*(own or ()), *more]


def _rows(table: Table) -> list[Any]:
    return [
        pytest.param(dialect, _cells(table, name, dialect), id=f"{name}: {dialect}")
        for name in table
        for dialect in DIALECTS
        if _cells(table, name, dialect)
    ]


def _run(session: Session, dialect: Dialect, code: str) -> dict[str, Any]:
    result = session.invoke("executeCode", language=dialect.language, runtime=dialect.runtime, code=code)
    assert result["isError"] is (result["structuredContent"]["exitCode"] != 0)
    return result["structuredContent"]


def _check(session: Session, dialect: Dialect, cells: Sequence[Cell]) -> None:
    for cell in cells:
        told = _run(session, dialect, cell.code)
        assert told["exitCode"] == cell.exit_code, (cell.code, told)
        for stream in ("stdout", "stderr"):
            pattern = getattr(cell, stream)
            assert re.fullmatch(pattern, told[stream], re.DOTALL), (cell.code, pattern, told[stream])


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Session]:
    """One session for all rows: they run in the kernels that the rows before them left."""
    session = Session(client, sessionTimeoutSeconds=3600)
    yield session
    session.stop()


@pytest.mark.parametrize(("dialect", "cells"), _rows(BEHAVIOURS))
def test_language_behaviour(shared: Session, dialect: Dialect, cells: list[Cell]) -> None:
    _check(shared, dialect, cells)


_LINES = 100_000
_FLOODS: Table = {
    "many lines": {
        "python": [Cell(f"for n in range({_LINES}): print('line', n)")],
        "javascript": [Cell(f"for (let n = 0; n < {_LINES}; n++) console.log('line', n)")],
    },
    "one long line": {
        "python": [Cell("print('x' * 3_000_000)")],
        "javascript": [Cell("console.log('x'.repeat(3_000_000))")],
    },
    "a long value": {
        "python": [Cell("'x' * 3_000_000")],
        "javascript": [Cell("'x'.repeat(3_000_000)")],
    },
}
_FLOODED = {
    "many lines": "\n".join(f"line {n}" for n in range(_LINES)),
    "one long line": "x" * 3_000_000,
    "a long value": "x" * 3_000_000,
}


@pytest.mark.parametrize("name", _FLOODS)
@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_large_output_is_whole(shared: Session, dialect: Dialect, name: str) -> None:
    [cell] = _cells(_FLOODS, name, dialect)
    told = _run(shared, dialect, cell.code)
    assert told["exitCode"] == 0
    # Not by pytest's own comparison, which would describe the difference of millions of characters.
    assert (told["stdout"].strip("'\"") == _FLOODED[name]) is True


def test_javascript_and_typescript_of_a_runtime_share_its_state(shared: Session) -> None:
    for runtime in ("deno", "nodejs"):
        script, typed = Dialect("javascript", runtime), Dialect("typescript", runtime)
        _check(shared, script, [Cell(f"let shared = '{runtime}'")])
        _check(shared, typed, [Cell("const seen: string = shared; seen", f".{runtime}.")])


def test_clear_context_is_ignored_by_javascript(shared: Session) -> None:
    dialect = Dialect("javascript", "deno")
    _check(shared, dialect, [Cell("let uncleared = 1")])
    arguments = {"language": "javascript", "code": "uncleared", "clearContext": True}
    assert shared.invoke("executeCode", **arguments)["structuredContent"]["stdout"] == "1"


# Code that does not end by itself

_LIMIT_SECONDS = 5


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session whose calls may take little time."""
    settings = {"FUMEHOOD_CALL_TIMEOUT_SECONDS": str(_LIMIT_SECONDS)}
    with service(tmp_path_factory.mktemp("brisk") / "data", settings) as running:
        session = Session(running.client())
        yield session
        session.stop()


ENDLESS: Mapping[str, Mapping[str, str]] = {
    "a loop": {"python": "while True: pass", "javascript": "for (;;);"},
    "a loop that catches everything": {
        "python": "while True:\n  try:\n    while True: pass\n  except ValueError: pass",
        "javascript": "for (;;) { try { for (;;); } catch {} finally { keep = 0 } }",
    },
    "a wait": {"python": "import time; time.sleep(3600)", "javascript": "await new Promise(() => {})"},
    "a loop after a wait": {
        "python": "import asyncio\nawait asyncio.sleep(0.01)\nwhile True: pass",
        "javascript": "await new Promise((done) => setTimeout(done, 10)); for (;;);",
    },
    "a loop in a timer": {"javascript": "setTimeout(() => { for (;;); }, 10); await new Promise(() => {})"},
    "a loop of promises": {"javascript": "async function turn() { for (;;) await null }\nawait turn()"},
    "a loop while the value is shown": {
        "python": "class C:\n  def __repr__(self):\n    while True: pass\nC()",
        "javascript/deno": "({ [Symbol.for('Deno.customInspect')]() { for (;;); } })",
        "javascript/nodejs": "({ [Symbol.for('nodejs.util.inspect.custom')]() { for (;;); } })",
    },
}


def _endless(dialect: Dialect, name: str) -> str | None:
    of = ENDLESS[name]
    if dialect.language == "python":
        return of.get("python")
    return of.get(f"javascript/{dialect.runtime}", of.get("javascript"))


@pytest.mark.parametrize(
    ("dialect", "code"),
    [
        pytest.param(dialect, _endless(dialect, name), id=f"{name}: {dialect}")
        for name in ENDLESS
        for dialect in DIALECTS[:3]
        if _endless(dialect, name) is not None
    ],
)
def test_code_that_does_not_end_is_interrupted_and_its_state_kept(brisk: Session, dialect: Dialect, code: str) -> None:
    assert _run(brisk, dialect, "keep = 7")["exitCode"] == 0
    told = _run(brisk, dialect, code)
    note = f"Interrupted: the code ran longer than the {_LIMIT_SECONDS} seconds a call may take. Its state is kept."
    assert told["stderr"].endswith(note), told
    assert "Debugger" not in told["stderr"]
    assert told["exitCode"] != 0
    assert _run(brisk, dialect, "keep")["stdout"] == "7"


# Between calls


@pytest.mark.parametrize(
    ("dialect", "name"),
    [*zip(DIALECTS[:3], ("python.py", "deno.mjs", "node.mjs"), strict=True)],
    ids=str,
)
def test_a_kernel_that_ends_between_two_calls_is_told_by_the_next_and_only_by_that(
    brisk: Session, dialect: Dialect, name: str
) -> None:
    assert _run(brisk, dialect, "kept = 1")["exitCode"] == 0
    # Its entry is gone once the agent knows.
    brisk.sh(f"""
for process in /proc/[0-9]*; do
    grep -aq 'kernels/[{name[0]}]{name[1:]}' $process/cmdline || continue
    kill -9 "${{process#/proc/}}"
    while [ -e $process ]; do sleep 0.05; done
done
""")
    told = _run(brisk, dialect, "6 * 7")
    note = f"The {dialect.runtime} process ended between two calls (SIGKILL). All variables of earlier calls are lost."
    assert (told["stdout"], told["stderr"], told["exitCode"]) == ("42", note, 0)
    assert _run(brisk, dialect, "6 * 7")["stderr"] == ""


# Memory

_MEMORY_BYTES = 640 * MIB


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose sandboxes have little memory."""
    settings = {"FUMEHOOD_SANDBOX_MEMORY_BYTES": str(_MEMORY_BYTES)}
    with service(tmp_path_factory.mktemp("narrow") / "data", settings) as running:
        yield running


_EXHAUSTING = {
    "python": Cell("x = [bytearray(10**7) for _ in range(1000)]", "", ".*MemoryError.*", 1),
    "javascript": Cell(
        "const held = []; for (;;) held.push(new Array(10_000).fill(0.5))",
        "",
        r".*(?:heap|Memory ran out).*The \w+ process ended \(SIG\w+\)\. All its variables are lost; "
        r"the next call gets a fresh one\.",
        134,
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS[:3], ids=str)
def test_code_that_exhausts_memory_ends_no_more_than_its_kernel(narrow_server: Service, dialect: Dialect) -> None:
    session = Session(narrow_server.client())
    try:
        other = DIALECTS[0] if dialect.language != "python" else DIALECTS[2]
        _run(session, other, "other = 5")
        cell = _EXHAUSTING[dialect.language]
        told = _run(session, dialect, cell.code)
        assert re.fullmatch(cell.stderr, told["stderr"], re.DOTALL), told
        # By V8's own end for want of heap, or by the sandbox's watch over its memory.
        assert told["exitCode"] in (cell.exit_code, 133, 137), told
        assert _run(session, dialect, "6 * 7")["stdout"] == "42"
        assert _run(session, other, "other")["stdout"] == "5"
    finally:
        session.stop()
