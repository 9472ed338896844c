"""Sessions used, ended, put to sleep and robbed of their processes in any order: each is right, or truly over."""

import os
import signal
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fumehood.store.sessions import SessionStatus
from tests.faults.conftest import INTERPRETER, Servers, code_of, refusal, status_of
from tests.host_traces import sandbox_processes
from tests.service import Service, Session
from tests.waiting import wait_until

_SETTINGS = {"FUMEHOOD_HIBERNATE_AFTER_SECONDS": "3", "FUMEHOOD_HEALTH_CHECK_SECONDS": "10"}
_ALIVE_MAX = 3
_LONG, _SHORT = 900, 15
_LATE_SECONDS = 2.0
"""How much later than its deadline a session may seem to live: what a busy machine's clocks and answers take."""
_COUNT = "x = globals().get('x', 0) + 1; print(x)"


@dataclass
class Known:
    """What must be true of a session."""

    session: Session
    over_after: float
    """By the monotonic clock: not before this has it expired,"""
    over_before: float
    """and after this it surely has."""
    count: int = 0
    lines: int = 0
    tasks: list[str] = field(default_factory=list[str])
    told: str | None = None
    """What its end is told as, once it is over."""

    @property
    def may_have_expired(self) -> bool:
        return time.monotonic() >= self.over_after


class Lives(RuleBasedStateMachine):
    """Some sessions on one server after another."""

    servers: Servers
    server: Service | None = None
    client: Any = None
    """Of every server: each is at the same address."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Known] = []

    @initialize()
    def have_a_server(self) -> None:
        if Lives.server is None:
            Lives.server = self.servers.start(**_SETTINGS)
            Lives.client = Lives.server.client(max_pool_connections=4)
        Lives.start(self, _LONG)

    @property
    def _running(self) -> Service:
        assert Lives.server is not None
        return Lives.server

    def _start_another_server(self) -> None:
        Lives.server = self.servers.start(self._running.port, **_SETTINGS)

    @property
    def alive(self) -> list[Known]:
        return [each for each in self.known if each.told is None]

    def _pick(self, number: int) -> Known:
        return self.alive[number % len(self.alive)]

    def _rows(self) -> dict[str, tuple[SessionStatus, str | None, str | None]]:
        """Of each session: status, sandbox, image."""
        with sqlite3.connect(
            f"file:{self.servers.data / 'fumehood.sqlite3'}?mode=ro", uri=True, timeout=30
        ) as database:
            rows = database.execute("SELECT id, status, sandbox_id, image_id FROM sessions")
            mine = {each.session.id for each in self.known}
            return {id: (SessionStatus(status), sandbox, image) for id, status, sandbox, image in rows if id in mine}

    def _is_over(self, each: Known) -> bool:
        return status_of(self.client, each.session.id) == "TERMINATED"

    def _used(self, each: Known, use: Any) -> Any:
        """What a use of the session gives; None if it turns out that its time was up."""
        try:
            return use()
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException" or not each.may_have_expired:
                raise
            assert "has expired" in str(error)
            each.told = "has expired"
            return None

    # Using

    @precondition(lambda self: len(self.alive) < _ALIVE_MAX)
    @rule(life=st.sampled_from([_LONG, _SHORT]))
    def start(self, life: int) -> None:
        before = time.monotonic()
        session = Session(self.client, sessionTimeoutSeconds=life)
        self.known.append(Known(session, before + life, time.monotonic() + life + _LATE_SECONDS))

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def run_code(self, number: int) -> None:
        each = self._pick(number)
        result = self._used(each, lambda: each.session.run(_COUNT))
        if result is not None:
            each.count += 1
            assert result["structuredContent"]["stdout"] == str(each.count)

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def append_to_a_file(self, number: int) -> None:
        each = self._pick(number)
        result = self._used(each, lambda: each.session.sh("echo >> lines; wc -l < lines"))
        if result is not None:
            each.lines += 1
            assert result["structuredContent"]["stdout"] == f"{each.lines}\n"

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def start_a_task(self, number: int) -> None:
        each = self._pick(number)
        start = lambda: each.session.invoke("startCommandExecution", command="sleep 4; echo told")  # noqa: E731
        result = self._used(each, start)
        if result is not None:
            each.tasks.append(result["structuredContent"]["taskId"])

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def see_tasks_end(self, number: int) -> None:
        each = self._pick(number)

        def ended() -> bool:
            for task in each.tasks:
                told = each.session.invoke("getTask", taskId=task)["structuredContent"]
                assert told["taskStatus"] in ("submitted", "working", "completed")
                if told["taskStatus"] != "completed":
                    return False
                assert told["stdout"] == "told\n"
            return True

        self._used(each, lambda: wait_until(ended, "the tasks", 60))

    # Ending

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def stop(self, number: int) -> None:
        each = self._pick(number)
        each.session.stop()
        each.told = "has expired" if each.may_have_expired else "was stopped"

    @precondition(lambda self: any(each.over_before - time.monotonic() < 2 * _SHORT for each in self.alive))
    @rule()
    def let_time_pass_until_one_expires(self) -> None:
        for each in self.alive:
            if each.over_before - time.monotonic() < _SHORT + _LATE_SECONDS:
                wait_until(lambda each=each: self._is_over(each), "the expiry", 60)
                assert each.may_have_expired
                each.told = "has expired"
                return

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def let_it_fall_asleep(self, number: int) -> None:
        each = self._pick(number)
        session_id = each.session.id
        wait_until(
            lambda: self._rows()[session_id][0] is not SessionStatus.READY or self._is_over(each), "its hibernation", 90
        )
        status, _, image = self._rows()[session_id]
        if status is SessionStatus.HIBERNATED:
            assert image is not None
        else:
            assert each.may_have_expired, self._rows()
            each.told = "has expired"

    # Killing

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5))
    def kill_the_kernel(self, number: int) -> None:
        each = self._pick(number)
        result = self._used(each, lambda: each.session.run("import os; os.kill(os.getpid(), 9)"))
        if result is not None:
            assert "variables are lost" in result["structuredContent"]["stderr"]
            each.count = 0

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 5), word=st.sampled_from([" boot ", "supervise.sh"]))
    def kill_its_sandbox(self, number: int, word: str) -> None:
        each = self._pick(number)
        sandbox = self._rows()[each.session.id][1]
        if sandbox is None:
            return
        for pid, line in sandbox_processes(self.servers.data).items():
            if word in line and sandbox in line:
                os.kill(pid, signal.SIGKILL)
        # It may have been on its way into an image, which outlives the sandbox.
        wait_until(lambda: self._is_over(each) or self._rows()[each.session.id][1] != sandbox, "an end", 60)
        if self._is_over(each):
            each.told = "has expired" if each.may_have_expired else "crashed"

    @precondition(lambda self: self.alive)
    @rule(is_told=st.sampled_from([False, False, True]))
    def end_the_server(self, is_told: bool) -> None:
        if is_told:
            assert self._running.stop() == 0
            self._note_what_ended_with_it()
        else:
            self._running.kill()
        self._start_another_server()

    def _note_what_ended_with_it(self) -> None:
        rows = self._rows()
        for each in self.alive:
            status = rows[each.session.id][0]
            assert status in (SessionStatus.HIBERNATED, SessionStatus.TERMINATED), rows
            if status is SessionStatus.TERMINATED:
                each.told = "has expired" if each.may_have_expired else "ended with the server"

    # What must always hold

    @invariant()
    def get_and_list_say_what_is_so(self) -> None:
        if not self.known:
            return
        listed: dict[str, str] = {}
        page: dict[str, Any] = {}
        while True:
            answer = self.client.list_code_interpreter_sessions(codeInterpreterIdentifier=INTERPRETER, **page)
            listed |= {each["sessionId"]: each["status"] for each in answer["items"]}
            if "nextToken" not in answer:
                break
            page = {"nextToken": answer["nextToken"]}
        for each in self.known:
            got = status_of(self.client, each.session.id)
            if each.told is None and got == "TERMINATED":
                assert each.may_have_expired, f"{each} is over: {refusal(each.session)}"
                each.told = "has expired"
            elif each.told is not None:
                assert got == "TERMINATED", each
                assert listed[each.session.id] == "TERMINATED", each
            else:
                assert time.monotonic() <= each.over_before, f"{each} lives for ever"
                assert listed[each.session.id] == got or each.may_have_expired

    @invariant()
    def nothing_is_there_of_what_is_over(self) -> None:
        def is_settled() -> bool:
            rows = [row for row in self._rows().values() if row[0] is not SessionStatus.TERMINATED]
            sandboxes, images = ({row[place] for row in rows if row[place] is not None} for place in (1, 2))
            return self._folders("sandboxes") == sandboxes and self._folders("images") == images

        if self.known:
            wait_until(is_settled, "only what sessions need", 60)

    def _folders(self, name: str) -> set[str]:
        folder = self.servers.data / name
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def teardown(self) -> None:
        if sys.exc_info()[1] is not None:
            # What was found is told, and not what comes of it.
            self._running.kill()
            self._start_another_server()
            assert self._running.stop() == 0
            Lives.server = None
            return
        for each in self.alive:
            each.session.stop()
            each.told = "has expired" if each.may_have_expired else "was stopped"
        for each in self.known:
            assert each.told is not None
            told = refusal(each.session)
            assert each.told in told or (each.may_have_expired and "has expired" in told), (each, told)
        self.servers.wait_until_nothing_is_left(60)
        assert self._folders("images") == set()


def test_whatever_happens_to_sessions_each_is_right_or_over_for_the_reason_told(servers: Servers) -> None:
    Lives.servers, Lives.server = servers, None
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=5,
            stateful_step_count=18,
            deadline=None,
            # To try again is to wait again: a failure is told as it was found.
            phases=[Phase.generate],
            database=None,
            print_blob=True,
            suppress_health_check=[*HealthCheck],
        ),
    )
