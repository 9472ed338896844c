"""Fixtures for attacks: a session to attack from, and a server with small sandboxes to fill."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fumehood.identity import credentials_file
from fumehood.settings import MIB
from tests.service import Service, Session, service
from tests.signing import Caller
from tests.waiting import wait_until

SMALL_MEMORY_BYTES = 1024 * MIB
SMALL_DISK_BYTES = 96 * MIB
SMALL_PROCESSES = 48
SMALL_CALL_SECONDS = 10
STRANGERS_ACCOUNT = "999988887777"


@pytest.fixture(scope="module")
def inside(client: Any) -> Iterator[Session]:
    """A session in which all attacks of a file are made, one after another: each must leave it usable."""
    session = Session(client, sessionTimeoutSeconds=1800)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def caller(server: Service) -> Caller:
    """The ordinary principal, signing by hand."""
    return Caller(server)


def add_stranger(server: Service, **config: Any) -> Any:
    """A client of another account, added while the server runs, once it is known there."""
    credentials_file.add(server.data / "credentials", "stranger", STRANGERS_ACCOUNT, None)
    made = server.client(principal="stranger", **config)

    def is_known() -> bool:
        try:
            made.list_code_interpreter_sessions(codeInterpreterIdentifier="aws.codeinterpreter.v1")
        except ClientError:
            return False
        return True

    wait_until(is_known, "the new principal to be known")
    return made


@pytest.fixture(scope="session")
def stranger(server: Service) -> Any:
    """A client of another account than the server's own."""
    return add_stranger(server)


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose sandboxes are so small that they are quickly full."""
    settings = {
        "FUMEHOOD_SANDBOX_MEMORY_BYTES": str(SMALL_MEMORY_BYTES),
        "FUMEHOOD_SANDBOX_DISK_BYTES": str(SMALL_DISK_BYTES),
        "FUMEHOOD_SANDBOX_PROCESSES": str(SMALL_PROCESSES),
        "FUMEHOOD_CALL_TIMEOUT_SECONDS": str(SMALL_CALL_SECONDS),
    }
    with service(tmp_path_factory.mktemp("small") / "data", settings) as running:
        yield running


@pytest.fixture
def small(small_server: Service) -> Iterator[Session]:
    """A session in a small sandbox, which may end by itself."""
    session = Session(small_server.client())
    yield session
    session.stop()
