"""A retry never runs code twice, and a call longer than the client's patience still arrives."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import node_clients
from tests.conformance.conftest import LONG_SECONDS, LongCall, counting, runs
from tests.service import Service, Session, service
from tests.waiting import wait_until

SYSTEM = "aws.codeinterpreter.v1"


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that sends a keep-alive frame each second."""
    with service(tmp_path_factory.mktemp("chatty") / "data", {"FUMEHOOD_KEEP_ALIVE_SECONDS": "1"}) as running:
        yield running


def test_boto3_s_read_timeout_of_3_seconds_outlives_a_call_of_12(chatty: Service) -> None:
    session = Session(chatty.client(read_timeout=3))
    assert session.run(counting("boto3", 12))["structuredContent"]["stdout"] == "the result"
    assert runs(session, "boto3") == 1
    session.stop()


_JAVASCRIPT = """
const { BedrockAgentCoreClient, StartCodeInterpreterSessionCommand, InvokeCodeInterpreterCommand,
        StopCodeInterpreterSessionCommand } = require('@aws-sdk/client-bedrock-agentcore');
const given = JSON.parse(require('fs').readFileSync(0));
(async () => {
  const client = new BedrockAgentCoreClient({ endpoint: given.url, region: given.region,
    credentials: { accessKeyId: given.key, secretAccessKey: given.secret },
    requestHandler: { requestTimeout: 3000, socketTimeout: 3000, throwOnRequestTimeout: true } });
  const interpreter = { codeInterpreterIdentifier: 'aws.codeinterpreter.v1' };
  const { sessionId } = await client.send(new StartCodeInterpreterSessionCommand(interpreter));
  const invoke = async (name, args) => {
    const request = { ...interpreter, sessionId, name, arguments: args };
    const answer = await client.send(new InvokeCodeInterpreterCommand(request));
    const events = [];
    for await (const event of answer.stream) events.push(event);
    return events;
  };
  const events = await invoke('executeCode', { language: 'python', code: given.code });
  const counted = await invoke('executeCommand', { command: 'cat javascript | wc -l' });
  await client.send(new StopCodeInterpreterSessionCommand({ ...interpreter, sessionId }));
  console.log(JSON.stringify({ events, runs: counted[0].result.structuredContent.stdout }));
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_javascript_s_socket_timeout_of_3_seconds_outlives_a_call_of_12(chatty: Service) -> None:
    variables = chatty.environment()
    found = node_clients.run(
        _JAVASCRIPT,
        {
            "url": chatty.url,
            "region": variables["AWS_REGION"],
            "key": variables["AWS_ACCESS_KEY_ID"],
            "secret": variables["AWS_SECRET_ACCESS_KEY"],
            "code": counting("javascript", 12),
        },
    )
    [result] = [event["result"] for event in found["events"] if "result" in event]
    assert result["structuredContent"]["stdout"] == "the result"
    assert found["runs"] == "1\n"


_CLIENT = """
import sys, boto3
url, interpreter, session, invocation, code = sys.argv[1:]
client = boto3.client("bedrock-agentcore", endpoint_url=url)
def name_it(request, **kwargs):
    request.headers["amz-sdk-invocation-id"] = invocation
client.meta.events.register("before-send.bedrock-agentcore.InvokeCodeInterpreter", name_it)
answer = client.invoke_code_interpreter(
    codeInterpreterIdentifier=interpreter, sessionId=session, name="executeCode",
    arguments={"language": "python", "code": code},
)
print("headers", flush=True)
for event in answer["stream"]:
    print(event["result"]["structuredContent"]["stdout"], flush=True)
"""
_INVOCATION = "6b1f5c1e-7d0a-4c3b-9f6e-2b9f1f6f0c11"


def _start_client(
    server: Service, session: Session, code: str, invocation: str = _INVOCATION
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _CLIENT, server.url, SYSTEM, session.id, invocation, code],
        env=server.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(client: "subprocess.Popen[str]") -> str:
    output, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    return output


def test_a_client_killed_in_mid_call_and_tried_again_gets_the_result_of_the_one_run(
    server: Service, session: Session
) -> None:
    code = counting("killed", 8)
    with _start_client(server, session, code) as first:
        wait_until(lambda: runs(session, "killed") == 1, "the code to run")
        first.kill()
    with _start_client(server, session, code) as again:
        assert _finish(again) == "headers\nthe result\n"
    assert runs(session, "killed") == 1
    # And once more, when it is over: the answer is kept.
    with _start_client(server, session, code) as late:
        assert _finish(late) == "headers\nthe result\n"
    assert runs(session, "killed") == 1


def test_the_same_invocation_id_with_another_body_or_session_runs_anew(server: Service, session: Session) -> None:
    other = Session(session.client)
    for target, code in ((session, "print(1)"), (session, "print(2)"), (other, "print(1); x = 3")):
        with _start_client(server, target, code) as client:
            assert _finish(client) == f"headers\n{code[6]}\n"
    with _start_client(server, other, counting("mine", 0)) as client:
        _finish(client)
    with _start_client(server, session, counting("mine", 0)) as client:
        _finish(client)
    assert (runs(session, "mine"), runs(other, "mine")) == (1, 1)
    other.stop()


def test_another_invocation_with_the_same_body_runs_again(session: Session) -> None:
    for _ in range(3):
        session.run(counting("again", 0))
    assert runs(session, "again") == 3


def test_two_clients_attached_to_one_invocation_both_get_its_result(server: Service, session: Session) -> None:
    code = counting("both", 4)
    with _start_client(server, session, code) as first, _start_client(server, session, code) as second:
        assert [_finish(first), _finish(second)] == ["headers\nthe result\n"] * 2
    assert runs(session, "both") == 1


def test_a_call_goes_on_when_its_client_is_gone_for_good(server: Service, session: Session) -> None:
    with _start_client(server, session, counting("gone", 2) + "\nopen('finished', 'w')") as client:
        wait_until(lambda: runs(session, "gone") == 1, "the code to run")
        client.kill()
    wait_until(
        lambda: session.sh("test -e finished")["structuredContent"]["exitCode"] == 0, "the code to run to its end"
    )
    assert session.run("print('next')")["structuredContent"]["stdout"] == "next"


def test_default_boto3_gets_the_result_of_a_call_of_150_seconds_that_ran_once(
    long_call: LongCall,
) -> None:
    result, times = long_call.result(LONG_SECONDS + 60)
    assert result["structuredContent"]["stdout"] == "the result"
    assert result["structuredContent"]["executionTime"] >= LONG_SECONDS
    assert times == 1
