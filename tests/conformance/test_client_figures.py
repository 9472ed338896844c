"""Figures through real clients: as bytes where a client passes them on, as links where it would print the bytes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import node_clients, python_clients
from tests.service import Service, service

_FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"
_TWO = f"print('first')\n{_FIGURE}\nprint('second')\n{_FIGURE}"
_PNG = list(b"\x89PNG\r\n\x1a\n")
_END = list(b"IEND\xaeB`\x82")

_SDK = f"""
import json
from bedrock_agentcore.tools.code_interpreter_client import code_session
with code_session("us-east-1") as client:
    [result] = [event["result"] for event in client.execute_code({_TWO!r})["stream"]]
content = [block | {{"data": list(block.get("data", b""))}} for block in result["content"]]
print(json.dumps(content))
"""

_AWS_SDK = """
const { BedrockAgentCoreClient, StartCodeInterpreterSessionCommand, InvokeCodeInterpreterCommand,
        StopCodeInterpreterSessionCommand } = require('@aws-sdk/client-bedrock-agentcore');
const { environment, code } = JSON.parse(require('fs').readFileSync(0));
(async () => {
  Object.assign(process.env, environment);
  const client = new BedrockAgentCoreClient({});
  const interpreter = { codeInterpreterIdentifier: 'aws.codeinterpreter.v1' };
  const { sessionId } = await client.send(new StartCodeInterpreterSessionCommand(interpreter));
  const call = { ...interpreter, sessionId, name: 'executeCode', arguments: { language: 'python', code } };
  const answer = await client.send(new InvokeCodeInterpreterCommand(call));
  const content = [];
  for await (const event of answer.stream) content.push(...event.result.content);
  await client.send(new StopCodeInterpreterSessionCommand({ ...interpreter, sessionId }));
  console.log(JSON.stringify(content.map(({ type, text, data, mimeType }) =>
    ({ type, text, mimeType, data: data && Array.from(data) }))));
})().catch(error => { console.error(error); process.exit(1); });
"""


def _check_two_figures(content: list[dict[str, Any]]) -> None:
    text, *images = content
    assert text["text"].split("\n") == [
        "first",
        "<Figure size 640x480 with 1 Axes>",
        "second",
        "<Figure size 640x480 with 1 Axes>",
    ]
    assert [image["type"] for image in images] == ["image", "image"]
    for image in images:
        assert image["mimeType"] == "image/png"
        assert (image["data"][:8], image["data"][-8:]) == (_PNG, _END)


def test_the_python_sdk_gives_the_bytes_of_each_figure(server: Service) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _SDK], env=server.environment(), capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    _check_two_figures(json.loads(finished.stdout))


def test_the_javascript_sdk_gives_the_bytes_of_each_figure(server: Service) -> None:
    _check_two_figures(node_clients.run(_AWS_SDK, {"environment": server.environment(), "code": _TWO}))


@pytest.fixture(scope="module")
def linking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that gives images as links."""
    data = tmp_path_factory.mktemp("linking") / "data"
    with service(data, {"FUMEHOOD_IMAGES_AS_LINKS": "true"}) as running:
        yield running


def test_links_spare_strands_models_the_bytes_of_figures(linking: Service) -> None:
    given = {"figure": ("python", _FIGURE)}
    figure = python_clients.run("frameworks", "strands_tool.py", linking.environment(), given)["figure"]
    assert "'type': 'resource_link'" in figure
    assert "file:///.outputs/" in figure
    assert len(figure) < 500


def test_links_spare_npm_users_models_the_bytes_of_figures_and_lead_to_them(linking: Service) -> None:
    read = "import glob\nprint([open(path, 'rb').read(8) for path in glob.glob('.outputs/*.png')])"
    code = {"figure": ("python", _FIGURE), "kept": ("python", read)}
    found = node_clients.run_file("agentcore_sdk.mjs", {"environment": linking.environment(), "code": code})["code"]
    assert "File - image/png (file:///.outputs/" in found["figure"]
    assert len(found["figure"]) < 500
    assert found["kept"] == str([bytes(_PNG)])
