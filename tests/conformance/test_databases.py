"""The whole service on each database, by URL alone."""

from pathlib import Path

import pytest

from tests.service import Session, service


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_session_runs_and_its_interpreter_outlives_the_server(
    kind: str, request: pytest.FixtureRequest, new_data: Path
) -> None:
    settings: dict[str, str] = {}
    if kind == "postgresql":
        settings["FUMEHOOD_DATABASE_URL"] = request.getfixturevalue("postgresql").create_database("service")
    with service(new_data, settings) as first:
        control = first.client("bedrock-agentcore-control")
        made = control.create_code_interpreter(name="kept", networkConfiguration={"networkMode": "SANDBOX"})
        session = Session(first.client())
        assert session.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
        session.stop()
        first.stop()
        second = first.restarted()
    try:
        found = second.client("bedrock-agentcore-control").get_code_interpreter(
            codeInterpreterId=made["codeInterpreterId"]
        )
        assert found["name"] == "kept"
        ended = second.client().get_code_interpreter_session(
            codeInterpreterIdentifier="aws.codeinterpreter.v1", sessionId=session.id
        )
        assert ended["status"] == "TERMINATED"
    finally:
        second.stop()
