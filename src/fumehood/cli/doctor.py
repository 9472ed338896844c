"""`fumehood doctor`: what this machine lacks for sandboxes, or is wrong in the operator's files, and what mends it."""

import asyncio
from collections.abc import Iterable

from fumehood import operator_files
from fumehood.sandbox import machine
from fumehood.sandbox.machine import Check
from fumehood.settings import Settings


def doctor() -> None:
    """Check this machine and the operator's files: one line for each thing, exit code 1 if any is not well."""
    checks = asyncio.run(_checks(Settings()))
    for line in doctor_lines(checks):
        print(line)
    if not all(check.ok for check in checks):
        raise SystemExit(1)


async def _checks(settings: Settings) -> list[Check]:
    checks = await machine.check(settings)
    checks += await asyncio.to_thread(operator_files.check, settings)
    if all(check.ok for check in checks if check.is_essential):
        checks.append(await machine.check_network(settings))
    return checks


def doctor_lines(checks: Iterable[Check]) -> list[str]:
    """A line for each check: its name, what was found, and the command that mends it where it is not well."""
    return [_line(check) for check in checks]


def _line(check: Check) -> str:
    # What other programs said may be of several lines.
    detail = " ".join(check.detail.split())
    if check.ok:
        return f"ok    {check.name}: {detail}"
    return f"FAIL  {check.name}: {detail}. To mend: {check.remedy}"
