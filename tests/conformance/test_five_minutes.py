"""The scripts people start with, in a process that has only what `fumehood env` gives it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.service import Service

_SDK = """
from bedrock_agentcore.tools.code_interpreter_client import CodeInterpreter
client = CodeInterpreter("us-east-1")
client.start()
code = "import pandas as pd\\nprint(pd.Series([1, 2, 3]).sum())"
response = client.invoke("executeCode", {"language": "python", "code": code})
for event in response["stream"]:
    print(event["result"]["structuredContent"]["stdout"])
client.stop()
"""

_CODE_SESSION = """
from bedrock_agentcore.tools.code_interpreter_client import code_session
with code_session("us-east-1") as client:
    client.invoke("executeCode", {"language": "python", "code": "x = 41"})
    for event in client.invoke("executeCode", {"language": "python", "code": "print(x + 1)"})["stream"]:
        print(event["result"]["content"][0]["text"])
"""

_BOTO3 = """
import boto3
control = boto3.client("bedrock-agentcore-control")
data = boto3.client("bedrock-agentcore")
made = control.create_code_interpreter(name="five_minutes", networkConfiguration={"networkMode": "SANDBOX"})
interpreter = made["codeInterpreterId"]
session = data.start_code_interpreter_session(codeInterpreterIdentifier=interpreter)["sessionId"]
answer = data.invoke_code_interpreter(
    codeInterpreterIdentifier=interpreter, sessionId=session, name="executeCommand", arguments={"command": "echo hello"}
)
for event in answer["stream"]:
    print(event["result"]["structuredContent"]["stdout"], end="")
data.stop_code_interpreter_session(codeInterpreterIdentifier=interpreter, sessionId=session)
print(control.delete_code_interpreter(codeInterpreterId=interpreter)["status"])
"""


def _run(server: Service, script: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", script], env=server.environment(), capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_sdk_s_code_interpreter_runs_pandas(server: Service) -> None:
    assert _run(server, _SDK) == "6\n"


def test_the_sdk_s_code_session_keeps_state(server: Service) -> None:
    assert _run(server, _CODE_SESSION) == "42\n"


def test_boto3_with_both_clients_makes_uses_and_deletes_an_interpreter(server: Service) -> None:
    assert _run(server, _BOTO3) == "hello\nDELETING\n"


def test_the_script_of_the_docs_calls_the_extension(server: Service) -> None:
    script = Path(__file__).parents[2] / "docs" / "call_extension.py"
    for request in (["GET", "/fumehood/v1/pool"], ["POST", "/fumehood/v1/snapshots/list", "{}"]):
        command = [sys.executable, str(script), *request]
        finished = subprocess.run(command, env=server.environment(), capture_output=True, text=True, timeout=120)
        assert finished.returncode == 0, finished.stderr
        assert {"pools", "snapshots"} & json.loads(finished.stdout).keys()
