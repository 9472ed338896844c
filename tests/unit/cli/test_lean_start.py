"""A server with no sessions has nothing in memory that only some of them need."""

import os
import subprocess
import sys
from pathlib import Path

from tests.service import make_data_folder

from fumehood.sandbox.machine import LATE_LIBRARIES

# As `fumehood serve` does, but for listening.
_START_AND_STOP = """
import asyncio, sys
import fumehood.cli.main, fumehood.cli.serve
from fumehood.operator_files import OperatorFiles
from fumehood.sandbox import machine
from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.progress import Silent
from fumehood.server import running
from fumehood.settings import Settings

async def main():
    settings = Settings()
    assert all(check.ok for check in await machine.check(settings))
    files = OperatorFiles.load(settings)
    async with running(settings, files, await catalog.ensure(settings.template, settings, Silent())):
        print(*sys.modules)

asyncio.run(main())
"""
_OTHERS_TOO = ("botocore.loaders", "botocore.session", "boto3", "urllib3", "jinja2", "starlette", "psycopg")


def _modules_of_a_server(data: Path) -> set[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "FUMEHOOD_DATA": str(data),
        "FUMEHOOD_TEMPLATE": "base",
        "FUMEHOOD_POOL_MIN": "0",
        "FUMEHOOD_POOL_MAX": "0",
    }
    command = [sys.executable, "-c", _START_AND_STOP]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    return {*finished.stdout.splitlines()[-1].split()}


def test_a_start_loads_no_library_that_only_some_features_need(tmp_path: Path) -> None:
    data = make_data_folder(tmp_path / "data")
    first = _modules_of_a_server(data)
    assert first & {*LATE_LIBRARIES, *_OTHERS_TOO} == {"alembic"}, "it makes the database, and nothing else"
    assert "fumehood.gateway.gateway" in first and "fumehood.gateway.requests" not in first
    assert _modules_of_a_server(data) & {*LATE_LIBRARIES, *_OTHERS_TOO} == set()
