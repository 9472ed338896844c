"""A call that takes minutes, made beside all other tests; and code that counts how often it has run."""

import concurrent.futures
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Service, Session, service

LONG_SECONDS = 150
LongCall = concurrent.futures.Future[tuple[dict[str, Any], int]]
"""The result of the long call, and how often its code ran."""


def counting(path: str, seconds: float) -> str:
    """Code that leaves a line each time it runs, and takes that long."""
    return f"import time\nopen({path!r}, 'a').write('ran\\n')\ntime.sleep({seconds})\nprint('the result')"


def runs(session: Session, path: str) -> int:
    """How often that code has run."""
    return int(session.sh(f"cat {path} 2>/dev/null | wc -l")["structuredContent"]["stdout"])


@pytest.fixture(scope="session", autouse=True)
def long_call(request: pytest.FixtureRequest) -> Iterator[LongCall | None]:
    """A call of 150 s by boto3 as it is by default, begun with the first test here if one of the tests wants it."""
    functions = [item.function for item in request.session.items if isinstance(item, pytest.Function)]
    if not any("long_call" in inspect.signature(function).parameters for function in functions):
        yield None
        return
    # Just what boto3 does by default: 60 s until a read times out, three attempts.
    session = Session(request.getfixturevalue("server").client())

    def call() -> tuple[dict[str, Any], int]:
        return session.run(counting("long", LONG_SECONDS)), runs(session, "long")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        yield calling
        # Also ends a call that nobody came to wait for.
        session.stop()


@pytest.fixture(scope="session")
def standard_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose sessions start from the template `standard`; shared as `server` is."""
    with service(tmp_path_factory.mktemp("standard") / "data", {"FUMEHOOD_TEMPLATE": "standard"}) as running:
        yield running


@pytest.fixture(scope="session")
def standard_client(standard_server: Service) -> Any:
    """A boto3 data-plane client of that server."""
    return standard_server.client()


@pytest.fixture(scope="session")
def standard_variables(standard_server: Service) -> dict[str, str]:
    """What `fumehood env` sets for clients of that server."""
    return standard_server.environment()
