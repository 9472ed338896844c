"""AWS Labs' MCP server in a process of its own, called by an MCP client; prints what the model would read."""

import asyncio
import json
import os
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

SERVER = StdioServerParameters(
    command=str(Path(sys.executable).parent / "awslabs.amazon-bedrock-agentcore-mcp-server"),
    # It asks for its documentation's index when it starts: a proxy that is not there spares the wait.
    env=dict(os.environ)
    | {"AGENTCORE_ENABLE_TOOLS": "code_interpreter", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"},
)


async def main() -> dict[str, object]:
    async with stdio_client(SERVER) as (reader, writer), ClientSession(reader, writer) as client:
        await client.initialize()

        async def call(tool: str, **arguments: object) -> str:
            answer = await client.call_tool(tool, arguments)
            return "\n".join(block.text for block in answer.content)

        started = json.loads(await call("start_code_interpreter_session", name="one"))
        session = {"session_id": started["session_id"]}
        found: dict[str, object] = {"session": started}
        for name, (language, code) in json.load(sys.stdin).items():
            found[name] = await call("execute_code", **session, language=language, code=code)
        found["command"] = await call(
            "execute_command", **session, command="echo from the shell; echo and an error >&2; exit 3"
        )
        found["write"] = await call("upload_file", **session, path="dir/a.txt", content="the content")
        found["read"] = await call("download_file", **session, path="dir/a.txt")
        found["list"] = await call("list_files", **session, directory_path="dir")
        found["install"] = await call("install_packages", **session, packages=["no-such-package"])
        found["described"] = await call("get_code_interpreter_session", **session)
        found["sessions"] = await call("list_code_interpreter_sessions", status="READY")
        found["stopped"] = await call("stop_code_interpreter_session", **session)
        found["described again"] = await call("get_code_interpreter_session", **session)
        return found


print(json.dumps(asyncio.run(main())))
