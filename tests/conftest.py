"""Fixtures for tests that need the real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from databases import postgresql as postgresql
from tests.service import Service, Session, service


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that many tests share; none of them may stop it or fill it."""
    with service(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Service) -> Any:
    """A boto3 data-plane client of the ordinary principal, as boto3 makes it by default."""
    return server.client()


@pytest.fixture
def session(client: Any) -> Iterator[Session]:
    """A new session, stopped afterwards."""
    started = Session(client)
    yield started
    started.stop()


@pytest.fixture
def new_data(tmp_path: Path) -> Path:
    """Where a test may make a server's data folder of its own."""
    return tmp_path / "data"
