"""Tasks: commands that run on after the call that started them. Their output is kept here and fetched, never pushed."""

import asyncio
import secrets
from typing import Any

from fumehood.guest.capture import FileStore
from fumehood.guest.commands import Command
from fumehood.guest.outputs import Outputs
from fumehood.guest.spares import Child
from fumehood.guest.user import Limits

TASKS_MAX = 256
_SUBMITTED, _WORKING, _COMPLETED, _CANCELED, _FAILED = "submitted", "working", "completed", "canceled", "failed"
_TERMINAL = frozenset({_COMPLETED, _CANCELED, _FAILED})


class UnknownTaskError(Exception):
    """There is no task of that id in this session."""


class TooManyTasksError(Exception):
    """As many tasks run as may."""


class Task:
    """One task: its command, its status, and how it ended."""

    def __init__(self, command: Command, timeout_seconds: float) -> None:
        self.task_id = secrets.token_hex(16)
        self.status = _SUBMITTED
        self.stopped = False
        self.command = command
        self.watcher = asyncio.ensure_future(self._watch(timeout_seconds))

    async def _watch(self, timeout_seconds: float) -> None:
        if not self.stopped:
            self.status = _WORKING
        in_time = await self.command.wait(timeout_seconds)
        if not self.stopped:
            self.status = _COMPLETED if self.command.exit_code == 0 and in_time else _FAILED

    def describe(self) -> tuple[dict[str, Any], list[bytes]]:
        """The task as it is now, and its two outputs so far."""
        result, outputs = self.command.describe()
        return {"task_id": self.task_id, "status": self.status} | result, outputs


class Tasks:
    """All tasks of the session. The oldest that have ended are forgotten when there are more than TASKS_MAX."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._tasks: dict[str, Task] = {}

    async def start(self, child: Child, text: str, limits: Limits, timeout_seconds: float) -> Task:
        """Start a command. TooManyTasksError if TASKS_MAX of them still run."""
        if len(self._tasks) >= TASKS_MAX:
            ended = next((task for task in self._tasks.values() if task.status in _TERMINAL), None)
            if ended is None:
                child.discard()
                raise TooManyTasksError
            ended.command.close()
            del self._tasks[ended.task_id]
        task = Task(await Command.start(child, text, limits, self._outputs, FileStore), timeout_seconds)
        self._tasks[task.task_id] = task
        return task

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(task.status not in _TERMINAL for task in self._tasks.values())

    def get(self, task_id: str) -> Task:
        """The task of that id. UnknownTaskError if there is none."""
        try:
            return self._tasks[task_id]
        except KeyError:
            raise UnknownTaskError(task_id) from None

    async def stop(self, task_id: str) -> Task:
        """End a task and all its processes. One that has ended stays as it ended."""
        task = self.get(task_id)
        if task.status not in _TERMINAL:
            task.stopped = True
            task.status = _CANCELED
            task.command.process.kill_tree()
            await asyncio.wait({task.watcher})
        return task
