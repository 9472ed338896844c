"""A client of the API on nothing but botocore, and what a session's life takes through it, each answer checked."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import botocore.session  # pyright: ignore[reportMissingTypeStubs]
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

BUILT_IN = "aws.codeinterpreter.v1"
SECONDS = 300
"""Longest wait for one answer."""


def data_plane(variables: Mapping[str, str], connections: int = 10) -> Any:
    """A client of the data plane for what `fumehood env` exports. It repeats nothing: what fails has failed."""
    return _client(variables, "bedrock-agentcore", "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE", connections)


def control_plane(variables: Mapping[str, str]) -> Any:
    """A client of the control plane, likewise."""
    return _client(variables, "bedrock-agentcore-control", "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", 10)


def _client(variables: Mapping[str, str], service: str, endpoint: str, connections: int) -> Any:
    config = Config(max_pool_connections=connections, read_timeout=SECONDS, retries={"total_max_attempts": 1})
    # Its own session each: making clients of one is not safe in threads.
    return cast(Any, botocore.session.Session()).create_client(
        service,
        endpoint_url=variables[endpoint],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=variables.get("AWS_SESSION_TOKEN"),
        verify=variables.get("AWS_CA_BUNDLE"),
        config=config,
    )


def start(client: Any, interpreter: str = BUILT_IN, **parameters: Any) -> str:
    """Start a session; its id."""
    answer = client.start_code_interpreter_session(codeInterpreterIdentifier=interpreter, **parameters)
    return str(answer["sessionId"])


def stop(client: Any, session_id: str, interpreter: str = BUILT_IN) -> None:
    """Stop a session."""
    client.stop_code_interpreter_session(codeInterpreterIdentifier=interpreter, sessionId=session_id)


@contextmanager
def session(client: Any, interpreter: str = BUILT_IN) -> Generator[str]:
    """The id of a new session, stopped at the end."""
    session_id = start(client, interpreter)
    try:
        yield session_id
    finally:
        stop(client, session_id, interpreter)


def invoke(
    client: Any, session_id: str, name: str, arguments: dict[str, Any], interpreter: str = BUILT_IN
) -> dict[str, Any]:
    """The result of a tool, with the stream read to its end, so that the connection is used again."""
    answer = client.invoke_code_interpreter(
        codeInterpreterIdentifier=interpreter, sessionId=session_id, name=name, arguments=arguments
    )
    results = [event["result"] for event in answer["stream"]]
    if len(results) != 1 or results[0]["isError"]:
        raise RuntimeError(f"{name} gave {results}")
    return results[0]


def run(client: Any, session_id: str, code: str, wanted: str, interpreter: str = BUILT_IN) -> None:
    """Run Python code. RuntimeError unless it says `wanted`: a wrong answer is no success."""
    expect_text(invoke(client, session_id, "executeCode", {"language": "python", "code": code}, interpreter), wanted)


def expect_text(result: dict[str, Any], text: str) -> None:
    """RuntimeError unless the text of the result is that."""
    if result["content"][0].get("text") != text:
        raise RuntimeError(f"not {text!r} but {result['content']}")
