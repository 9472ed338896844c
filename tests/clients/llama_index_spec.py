"""LlamaIndex's tool specification, its tools called as an agent calls them; prints what the model would read."""

import asyncio
import json
import sys

printed, sys.stdout = sys.stdout, sys.stderr

from llama_index.tools.aws_bedrock_agentcore import AgentCoreCodeInterpreterToolSpec  # noqa: E402

specification = AgentCoreCodeInterpreterToolSpec(region="us-east-1")
by_name = {tool.metadata.name: tool for tool in specification.to_tool_list()}


def call(tool: str, **arguments: object) -> str:
    return by_name[tool].call(**arguments).content


given = json.load(sys.stdin)
found = {name: call("execute_code", language=language, code=code) for name, (language, code) in given.items()}
found["another conversation"] = call("execute_code", code="print('x' in globals())", thread_id="two")
found["command"] = call("execute_command", command="echo from the shell; echo and an error >&2; exit 3")
found["write"] = call("write_files", files=[{"path": "dir/a.txt", "text": "the content"}])
found["upload"] = call("upload_file", path="b.csv", content="a,b\n1,2\n")
found["download"] = call("download_file", path="b.csv")
found["read"] = call("read_files", paths=["dir/a.txt", "b.csv"])
found["list"] = call("list_files", directory_path="dir")
found["delete"] = call("delete_files", paths=["dir/a.txt"])
found["read again"] = call("read_files", paths=["dir/a.txt"])
found["install"] = call("install_packages", packages=["no-such-package"])
found["task"] = call("start_command", command="sleep 600")
task_id = found["task"].split("taskId: ")[1].splitlines()[0]
found["task running"] = call("get_task", task_id=task_id)
found["task stopped"] = call("stop_task", task_id=task_id)
found["clear"] = call("clear_context")
found["cleared"] = call("execute_code", code="print('x' in globals())")
asyncio.run(specification.cleanup())
json.dump(found, printed)
