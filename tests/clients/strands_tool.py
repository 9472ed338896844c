"""The Strands tool, called as an agent calls it; prints what the model would read."""

import json
import sys

printed, sys.stdout = sys.stdout, sys.stderr

from strands_tools.code_interpreter import AgentCoreCodeInterpreter  # noqa: E402

tool = AgentCoreCodeInterpreter(region="us-east-1", session_name="one")


def call(action: str, **arguments: object) -> str:
    answer = tool.code_interpreter(code_interpreter_input={"action": {"type": action, **arguments}})
    assert answer["status"] == "success", answer
    return "\n".join(str(block.get("text", block.get("json"))) for block in answer["content"])


given = json.load(sys.stdin)
found = {name: call("executeCode", language=language, code=code) for name, (language, code) in given.items()}
found["another conversation"] = call("executeCode", code="print('x' in globals())", session_name="two")
found["command"] = call("executeCommand", command="echo from the shell; echo and an error >&2; exit 3")
found["write"] = call("writeFiles", content=[{"path": "dir/a.txt", "text": "the content"}])
found["read"] = call("readFiles", paths=["dir/a.txt"])
found["list"] = call("listFiles", path="dir")
found["delete"] = call("removeFiles", paths=["dir/a.txt"])
found["read again"] = call("readFiles", paths=["dir/a.txt"])
found["sessions"] = call("listLocalSessions")
reconnected = AgentCoreCodeInterpreter(region="us-east-1", session_name="one", auto_create=False)
tool = reconnected
found["reconnected"] = call("executeCode", code="print(x)")
json.dump(found, printed)
