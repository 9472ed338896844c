"""The official clients beside boto3, each with what `fumehood env` sets and nothing else."""

import subprocess
import sys

import pytest

from tests import node_clients
from tests.service import Service

_SDK_PRELUDE = """
import json
from bedrock_agentcore.tools.code_interpreter_client import CodeInterpreter
client = CodeInterpreter("us-east-1")
client.start(name="sdk", session_timeout_seconds=600)
"""
_SDK = {
    "a text file": (
        'client.upload_file("dir/data.csv", "a,b\\n1,2\\n", description="numbers")\n'
        'print(repr(client.download_file("dir/data.csv")))',
        "'a,b\\n1,2\\n'",
    ),
    "a binary file of 67 bytes": (
        "content = bytes(range(189, 256))\nclient.upload_file('b.bin', content)\n"
        "size = client.execute_code('import os; print(os.path.getsize(\"b.bin\"))')\n"
        "print([e['result']['structuredContent']['stdout'] for e in size['stream']])\n"
        "print(client.download_file('b.bin') == content)",
        "['67']\nTrue",
    ),
    "a call whose stream it does not read": (
        "client.execute_command('sleep 1; echo late > late')\nprint(repr(client.download_file('late')))",
        "'late\\n'",
    ),
    "several files": (
        "client.upload_files([{'path': 'a.txt', 'content': 'A'}, {'path': 'b.txt', 'content': 'B'}])\n"
        "print(sorted(client.download_files(['a.txt', 'b.txt']).items()))",
        "[('/a.txt', 'A'), ('/b.txt', 'B')]",
    ),
    "a file that is not there": (
        "try: client.download_file('nowhere')\nexcept FileNotFoundError as error: print('FileNotFoundError')",
        "FileNotFoundError",
    ),
    "a context that is cleared": (
        "client.execute_code('x = 1')\nclient.clear_context()\n"
        "print([e['result']['structuredContent']['exitCode'] for e in client.execute_code('x')['stream']])",
        "[1]",
    ),
    "a shell command": (
        "print([e['result']['content'][0]['text'] for e in client.execute_command('echo $HOME')['stream']])",
        "['/home/sandbox\\n']",
    ),
    "an installation without a network": (
        "r = client.install_packages(['no-such-package'])\nprint([e['result']['isError'] for e in r['stream']])",
        "[True]",
    ),
    "its session, shown and listed": (
        "listed = [item['sessionId'] for item in client.list_sessions()['items']]\n"
        "print(client.get_session()['status'], client.session_id in listed)",
        "READY True",
    ),
}


@pytest.mark.parametrize(("script", "printed"), _SDK.values(), ids=_SDK)
def test_the_sdk_handles(server: Service, script: str, printed: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", f"{_SDK_PRELUDE}{script}\nclient.stop()"],
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == printed


_JAVASCRIPT = """
const { BedrockAgentCoreClient, StartCodeInterpreterSessionCommand, InvokeCodeInterpreterCommand,
        StopCodeInterpreterSessionCommand, GetCodeInterpreterSessionCommand,
      } = require('@aws-sdk/client-bedrock-agentcore');
const given = JSON.parse(require('fs').readFileSync(0));
(async () => {
  Object.assign(process.env, given);
  const client = new BedrockAgentCoreClient({});
  const interpreter = { codeInterpreterIdentifier: 'aws.codeinterpreter.v1' };
  const { sessionId } = await client.send(new StartCodeInterpreterSessionCommand(interpreter));
  const invoke = async (name, args) => {
    const request = { ...interpreter, sessionId, name, arguments: args };
    const answer = await client.send(new InvokeCodeInterpreterCommand(request));
    const results = [];
    for await (const event of answer.stream) if (event.result) results.push(event.result);
    return results;
  };
  const blob = Uint8Array.from({ length: 256 }, (_, i) => i);
  const wrote = await invoke('writeFiles', { content: [{ path: 'b.bin', blob }, { path: 't.txt', text: 'ünï' }] });
  const read = await invoke('readFiles', { paths: ['b.bin', 't.txt'] });
  const ran = await invoke('executeCode', { language: 'python', code: 'print(6 * 7)' });
  const failed = await invoke('executeCode', { language: 'python', code: '1 / 0' });
  await client.send(new StopCodeInterpreterSessionCommand({ ...interpreter, sessionId }));
  const { status } = await client.send(new GetCodeInterpreterSessionCommand({ ...interpreter, sessionId }));
  let error;
  try { await invoke('executeCommand', { command: 'true' }); } catch (e) { error = e.name; }
  console.log(JSON.stringify({ wrote, read, ran, failed, status, error,
    same: Buffer.compare(Buffer.from(read[0].content[0].resource.blob), Buffer.from(blob)) === 0 }));
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_the_javascript_sdk_runs_code_and_carries_files(server: Service) -> None:
    found = node_clients.run(_JAVASCRIPT, server.environment())
    assert found["wrote"][0]["content"] == [{"type": "text", "text": "Successfully wrote all 2 files"}]
    assert found["same"] is True
    assert found["read"][0]["content"][1]["resource"]["text"] == "ünï"
    assert found["ran"][0]["structuredContent"]["stdout"] == "42"
    assert found["failed"][0]["isError"] is True
    assert (found["status"], found["error"]) == ("TERMINATED", "ResourceNotFoundException")
