"""langchain_aws' toolkit, its tools called as an agent calls them; prints what the model would read."""

import asyncio
import json
import sys

printed, sys.stdout = sys.stdout, sys.stderr

from langchain_aws.tools import create_code_interpreter_toolkit  # noqa: E402

toolkit, tools = asyncio.run(create_code_interpreter_toolkit(region="us-east-1"))
by_name = {tool.name: tool for tool in tools}


def call(tool: str, thread: str = "one", **arguments: object) -> str:
    return by_name[tool].invoke(arguments, config={"configurable": {"thread_id": thread}})


given = json.load(sys.stdin)
found = {name: call("execute_code", language=language, code=code) for name, (language, code) in given.items()}
found["another conversation"] = call("execute_code", thread="two", language="python", code="print('x' in globals())")
found["command"] = call("execute_command", command="echo from the shell; echo and an error >&2; exit 3")
found["write"] = call("write_files", files=[{"path": "dir/a.txt", "text": "the content"}])
found["upload"] = call("upload_file", path="b.csv", content="a,b\n1,2\n", description="numbers")
found["read"] = call("read_files", paths=["dir/a.txt", "b.csv"])
found["list"] = call("list_files", directory_path="dir")
found["delete"] = call("delete_files", paths=["dir/a.txt"])
found["read again"] = call("read_files", paths=["dir/a.txt"])
found["install"] = call("install_packages", packages=["no-such-package"])
found["task"] = call("start_command_execution", command="sleep 600")
task_id = found["task"].split("taskId: ")[1].splitlines()[0]
found["task running"] = call("get_task", task_id=task_id)
found["task stopped"] = call("stop_task", task_id=task_id)
found["tools"] = sorted(by_name)
asyncio.run(toolkit.cleanup())
json.dump(found, printed)
