"""One session's life in a soak: random calls, each answer checked against what the session must hold by then."""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, EventStreamError  # pyright: ignore[reportMissingTypeStubs]

from fumehood.cli.bench import calls, extension
from fumehood.cli.bench.extension import NotAvailableError, Signed

_TASK_SECONDS = 120.0
_POLL_SECONDS = 0.05
_RUNTIMES = (
    ("python", "python"),
    ("javascript", "deno"),
    ("javascript", "nodejs"),
    ("typescript", "deno"),
    ("typescript", "nodejs"),
)
_SET = {
    "python": "kept = {value}",
    "javascript": "var kept = {value}; kept",
    "typescript": "var kept: number = {value}; kept",
}
_CRASH = {
    "python": "import os; os.kill(os.getpid(), 9)",
    "javascript": "process.kill(process.pid, 'SIGKILL')",
    "typescript": "process.kill(process.pid, 'SIGKILL')",
}
_FILES_MAX = 8
EXPIRES_AFTER_SECONDS = 20


class WrongAnswerError(Exception):
    """An answer that was not what it had to be; the message has both."""


@dataclass
class Tally:
    """What was done: calls and expected errors by kind, and every error that nothing explains, in full."""

    calls: Counter[str] = field(default_factory=Counter[str])
    expected_errors: Counter[str] = field(default_factory=Counter[str])
    unexplained: list[str] = field(default_factory=list[str])
    not_available: set[str] = field(default_factory=set[str])
    endings: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: "Tally") -> None:
        """Take over what another counted."""
        self.calls += other.calls
        self.expected_errors += other.expected_errors
        self.unexplained += other.unexplained
        self.not_available |= other.not_available
        self.endings += other.endings


class Life:
    """A session and what it must hold: variables by runtime, files, tasks."""

    def __init__(self, variables: Mapping[str, str], client: Any, seed: int, tally: Tally) -> None:
        self._variables = variables
        self._client = client
        self._random = random.Random(seed)
        self._tally = tally
        self._kept: dict[str, int] = {}
        self._files: dict[str, bytes] = {}
        self._tasks: dict[str, str] = {}
        self._serial = 0
        self._session_id = ""

    def live(self, goes_on: Callable[[], bool]) -> None:
        """Start, make some calls while `goes_on`, and end in one of the ways there are."""
        ending = self._random.choices(("stop", "stop twice", "expire"), (6, 3, 1))[0]
        seconds = EXPIRES_AFTER_SECONDS if ending == "expire" else 3_600
        try:
            began = time.monotonic()
            self._session_id = calls.start(self._client, sessionTimeoutSeconds=seconds)
            self._tally.calls["start"] += 1
        except Exception as error:
            self._tell("start", error)
            return
        acts, weights = zip(*self._acts(), strict=True)
        for _ in range(self._random.randint(30, 90)):
            # An expiring session is left in peace well before its end, so that any error until then is one.
            if not goes_on() or (ending == "expire" and time.monotonic() - began > seconds / 4):
                break
            act = self._random.choices(acts, weights)[0]
            try:
                act()
            except NotAvailableError as error:
                self._tally.not_available.add(str(error).replace(self._session_id, "{id}"))
            except Exception as error:
                self._tell(act.__name__.strip("_"), error)
        self._end(ending, began + seconds)

    def _tell(self, what: str, error: Exception) -> None:
        self._tally.unexplained.append(f"{self._session_id or 'no session'} {what}: {type(error).__name__}: {error}")

    def _acts(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self._set_variable, 20),
            (self._read_variable, 20),
            (self._raise, 5),
            (self._command, 8),
            (self._write, 8),
            (self._read, 8),
            (self._list, 3),
            (self._remove, 2),
            (self._file_from_code, 6),
            (self._put, 2),
            (self._get, 2),
            (self._start_task, 3),
            (self._check_task, 5),
            (self._cancel_task, 1),
            (self._crash, 1),
            (self._pause, 2),
            (self._resume, 1),
            (self._refused, 2),
        )

    def _invoke(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = self._client.invoke_code_interpreter(
            codeInterpreterIdentifier=calls.BUILT_IN, sessionId=self._session_id, name=tool, arguments=arguments
        )
        results = [event["result"] for event in answer["stream"]]
        self._tally.calls[tool] += 1
        _expect(len(results), 1)
        return results[0]

    def _code(self, runtime: tuple[str, str], code: str) -> dict[str, Any]:
        return self._invoke("executeCode", language=runtime[0], runtime=runtime[1], code=code)

    def _next(self) -> int:
        self._serial += 1
        return self._random.randrange(10**6, 10**9) * 1_000 + self._serial % 1_000

    def _some_runtime(self) -> tuple[str, str]:
        # A node or deno process takes its second to start: most sessions have one of them at most.
        return self._random.choices(_RUNTIMES, (20, 1, 1, 1, 1))[0]

    def _set_variable(self) -> None:
        runtime, value = self._some_runtime(), self._next()
        result = self._code(runtime, _SET[runtime[0]].format(value=value))
        _expect(result["isError"], False, result)
        self._kept[runtime[1]] = value

    def _read_variable(self) -> None:
        runtime = self._some_runtime()
        result = self._code(runtime, "print(kept)" if runtime[1] == "python" else "console.log(kept)")
        if runtime[1] in self._kept:
            _expect(result["structuredContent"]["stdout"], str(self._kept[runtime[1]]), result)
        else:
            self._expected(result, "kept", "a variable that is not set")

    def _raise(self) -> None:
        self._expected(self._code(_RUNTIMES[0], "1 / 0"), "ZeroDivisionError", "code that raises")

    def _crash(self) -> None:
        runtime = self._some_runtime()
        result = self._code(runtime, _CRASH[runtime[0]])
        self._expected(result, "All its variables are lost", "a kernel that is killed")
        self._kept.pop(runtime[1], None)

    def _command(self) -> None:
        value = self._next()
        result = self._invoke("executeCommand", command=f"echo {value} | tee last-command; echo {value} >&2; exit 3")
        told = result["structuredContent"]
        _expect((told["stdout"], told["stderr"], told["exitCode"]), (f"{value}\n", f"{value}\n", 3), result)
        self._files["last-command"] = f"{value}\n".encode()

    def _write(self) -> None:
        written = {self._name(): self._content() for _ in range(self._random.randint(1, 3))}
        content = [{"path": path, "blob": data} for path, data in written.items()]
        result = self._invoke("writeFiles", content=content)
        _expect(result["isError"], False, result)
        self._files |= written

    def _read(self) -> None:
        if path := self._some_file():
            resource = self._invoke("readFiles", paths=[path])["content"][0]["resource"]
            data = resource["blob"] if "blob" in resource else resource["text"].encode()
            _expect(_digest(data), _digest(self._files[path]))

    def _list(self) -> None:
        links = self._invoke("listFiles", directoryPath="")["content"]
        sizes = {link["name"]: link.get("size") for link in links if link["description"] == "File"}
        _expect(sizes, {path: len(data) for path, data in self._files.items()})

    def _remove(self) -> None:
        if path := self._some_file():
            _expect(self._invoke("removeFiles", paths=[path])["isError"], False)
            del self._files[path]
            self._expected(self._invoke("readFiles", paths=[path]), path, "a file that was removed")

    def _file_from_code(self) -> None:
        if path := self._some_file():
            code = f"import hashlib; print(hashlib.sha256(open({path!r}, 'rb').read()).hexdigest())"
            result = self._code(_RUNTIMES[0], code)
            _expect(result["structuredContent"]["stdout"], _digest(self._files[path]), result)

    def _put(self) -> None:
        path, data = self._name(), self._content()
        request = Signed(
            self._variables,
            "PUT",
            self._route(f"files/{path}"),
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
        )
        request.fetch(data)
        self._tally.calls["PUT file"] += 1
        self._files[path] = data

    def _get(self) -> None:
        if path := self._some_file():
            found = Signed(self._variables, "GET", self._route(f"files/{path}")).fetch()
            self._tally.calls["GET file"] += 1
            _expect(_digest(found), _digest(self._files[path]))

    def _start_task(self) -> None:
        if len(self._tasks) < _FILES_MAX:
            value = self._next()
            result = self._invoke("startCommandExecution", command=f"sleep 0.2; echo {value}")
            self._tasks[result["structuredContent"]["taskId"]] = f"{value}\n"

    def _check_task(self) -> None:
        if self._tasks:
            task_id, wanted = self._tasks.popitem()
            deadline = time.monotonic() + _TASK_SECONDS
            while (told := self._task("getTask", task_id))["taskStatus"] in ("submitted", "working"):
                if time.monotonic() > deadline:
                    raise WrongAnswerError(f"a task of 0.2 s has not ended after {_TASK_SECONDS:g} s: {told}")
                time.sleep(_POLL_SECONDS)
            _expect((told["taskStatus"], told["stdout"]), ("completed", wanted), told)

    def _cancel_task(self) -> None:
        result = self._invoke("startCommandExecution", command="sleep 600")
        _expect(self._task("stopTask", result["structuredContent"]["taskId"])["taskStatus"], "canceled")

    def _task(self, tool: str, task_id: str) -> dict[str, Any]:
        return self._invoke(tool, taskId=task_id)["structuredContent"]

    def _pause(self) -> None:
        extension.post(self._variables, f"sessions/{self._session_id}/pause")
        self._tally.calls["pause"] += 1

    def _resume(self) -> None:
        extension.post(self._variables, f"sessions/{self._session_id}/resume")
        self._tally.calls["resume"] += 1

    def _refused(self) -> None:
        """A request that is not right is refused, and changes nothing."""
        self._expect_error(lambda: self._invoke("executeCode", language="python"), "ValidationException", "no code")

    def _end(self, ending: str, expires_at: float) -> None:
        try:
            if ending == "expire":
                self._wait_for_expiry(expires_at)
            else:
                for _ in range(2 if ending == "stop twice" else 1):
                    calls.stop(self._client, self._session_id)
                    self._tally.calls["stop"] += 1
                self._expect_ended("was stopped")
            self._tally.endings[ending] += 1
        except Exception as error:
            self._tell(f"end by {ending}", error)

    def _wait_for_expiry(self, expires_at: float) -> None:
        time.sleep(max(expires_at + 1 - time.monotonic(), 0))
        self._expect_ended("has expired")

    def _expect_ended(self, why: str) -> None:
        self._expect_error(lambda: self._invoke("executeCommand", command="true"), why, f"a session that {why}")

    def _expect_error(self, call: Callable[[], object], words: str, what: str) -> None:
        try:
            answer = call()
        except (ClientError, EventStreamError) as error:
            if words not in str(error):
                raise
            self._tally.calls["refused"] += 1
            self._tally.expected_errors[what] += 1
            return
        raise WrongAnswerError(f"{what} was answered: {answer}")

    def _expected(self, result: dict[str, Any], words: str, what: str) -> None:
        """The result must be an error that says these words."""
        text = "\n".join(block.get("text", "") for block in result["content"])
        if not result["isError"] or words not in text:
            raise WrongAnswerError(f"{what} gave {result}")
        self._tally.expected_errors[what] += 1

    def _name(self) -> str:
        return f"file-{self._random.randrange(_FILES_MAX)}.bin"

    def _content(self) -> bytes:
        size = self._random.choice((0, 1, 100, 5_000, 200_000, 2_000_000))
        return self._random.randbytes(size)

    def _some_file(self) -> str | None:
        return self._random.choice(sorted(self._files)) if self._files else None

    def _route(self, path: str) -> str:
        return f"/fumehood/v1/sessions/{self._session_id}/{path}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _expect(found: object, wanted: object, whole: object = None) -> None:
    if found != wanted:
        raise WrongAnswerError(f"not {wanted!r} but {found!r}" + (f" in {whole}" if whole is not None else ""))
