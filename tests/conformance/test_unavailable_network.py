"""A machine that cannot give sandboxes a network says so, with what mends it, and never gives a weaker one."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import internet as net
from tests.service import Service, Session, service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"FUMEHOOD_UPLINK_NAMESPACE": "there-is-no-such-namespace"}
    with service(tmp_path_factory.mktemp("no-uplink") / "data", settings) as running:
        yield running


def refusal(action: Any, **parameters: Any) -> tuple[str, str]:
    """The code and message that a call is refused with."""
    with pytest.raises(ClientError) as refused:
        action(**parameters)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_creation_is_refused_naming_the_setting(server: Service) -> None:
    create = server.client("bedrock-agentcore-control").create_code_interpreter
    code, message = refusal(create, name="public", networkConfiguration={"networkMode": "PUBLIC"})
    assert code == "ValidationException"
    assert message.startswith("networkConfiguration.networkMode: PUBLIC cannot be had on this server")
    assert "FUMEHOOD_UPLINK_NAMESPACE" in message


def test_sessions_without_a_network_start_as_ever(server: Service) -> None:
    session = Session(server.client())
    assert session.run("print(1 + 1)")["structuredContent"]["stdout"] == "2"
    session.stop()


def test_a_start_is_refused_where_the_network_went_away_since(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("went-away")
    with net.internet(data / "internet") as internet:
        settings = {"FUMEHOOD_UPLINK_NAMESPACE": internet.router, "FUMEHOOD_POOL_MAX": "0"}
        with service(data / "data", settings) as first:
            made = first.client("bedrock-agentcore-control").create_code_interpreter(
                name="public", networkConfiguration={"networkMode": "PUBLIC"}
            )
            first.stop()
    after = first.restarted()
    try:
        start = after.client().start_code_interpreter_session
        code, message = refusal(start, codeInterpreterIdentifier=made["codeInterpreterId"])
        assert (code, "can start no session" in message) == ("ConflictException", True)
        assert "FUMEHOOD_UPLINK_NAMESPACE" in message
    finally:
        after.stop()
