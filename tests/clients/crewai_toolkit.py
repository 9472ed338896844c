"""CrewAI's toolkit, its tools called as a crew calls them; prints what the model would read."""

import asyncio
import json
import os
import sys

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
printed, sys.stdout = sys.stdout, sys.stderr

from crewai_tools.aws.bedrock.code_interpreter import create_code_interpreter_toolkit  # noqa: E402

toolkit, _ = create_code_interpreter_toolkit(region="us-east-1")
by_name = toolkit.get_tools_by_name()


def call(tool: str, **arguments: object) -> str:
    return by_name[tool].run(**arguments)


given = json.load(sys.stdin)
found = {name: call("execute_code", language=language, code=code) for name, (language, code) in given.items()}
found["another conversation"] = call("execute_code", code="print('x' in globals())", thread_id="two")
found["command"] = call("execute_command", command="echo from the shell; echo and an error >&2; exit 3")
found["write"] = call("write_files", files=[{"path": "dir/a.txt", "text": "the content"}])
found["read"] = call("read_files", paths=["dir/a.txt"])
found["list"] = call("list_files", directory_path="dir")
found["delete"] = call("delete_files", paths=["dir/a.txt"])
found["read again"] = call("read_files", paths=["dir/a.txt"])
found["task"] = call("start_command_execution", command="sleep 600")
task_id = found["task"].split("taskId: ")[1].splitlines()[0]
found["task running"] = call("get_task", task_id=task_id)
found["task stopped"] = call("stop_task", task_id=task_id)
asyncio.run(toolkit.cleanup())
json.dump(found, printed)
