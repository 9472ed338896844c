"""What the README shows: the AgentCore SDK, unmodified, against a fumehood server.

pip install bedrock-agentcore
eval "$(.venv/bin/fumehood env)"
python docs/quickstart.py
"""

from bedrock_agentcore.tools.code_interpreter_client import code_session

CALLS = [
    ("executeCode", {"language": "python", "code": "import pandas as pd; frame = pd.DataFrame({'n': [3, 1, 2]})"}),
    ("executeCode", {"language": "python", "code": "print(frame.sort_values('n').n.tolist(), frame.n.mean())"}),
    ("writeFiles", {"content": [{"path": "notes/today.txt", "text": "state stays until the session ends\n"}]}),
    ("executeCommand", {"command": "cat notes/today.txt; id -un; dmesg | head -1"}),
    ("executeCommand", {"command": "curl --silent --show-error https://example.com"}),
    ("executeCode", {"language": "python", "code": "open('/etc/hosts', 'a')"}),
]

with code_session("us-east-1") as client:
    for tool, arguments in CALLS:
        shown = arguments.get("code") or arguments.get("command") or arguments["content"][0]["path"]
        print(f">>> {tool}: {shown}")
        for event in client.invoke(tool, arguments)["stream"]:
            for block in event["result"]["content"]:
                print("\n".join(block["text"].splitlines()[-3:]))
