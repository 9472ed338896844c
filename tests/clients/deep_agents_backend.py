"""The sandbox of Deep Agents, used as its agents use it; prints what it answered."""

import asyncio
import json
import sys
from dataclasses import asdict

printed, sys.stdout = sys.stdout, sys.stderr

from bedrock_agentcore.tools.code_interpreter_client import CodeInterpreter  # noqa: E402
from langchain_agentcore_codeinterpreter import AgentCoreSandbox  # noqa: E402

interpreter = CodeInterpreter("us-east-1")
interpreter.start()
backend = AgentCoreSandbox(interpreter=interpreter)
home = backend.execute("pwd").output.strip()
binary = bytes(range(256))

found: dict[str, object] = {"home": home}
found["command"] = backend.execute("echo from the shell; echo and an error >&2; exit 3").output
found["write"] = asdict(backend.write(f"{home}/src/app.py", "first = 1\nsecond = 2\nthird = first + second\n"))
found["read"] = asdict(backend.read(f"{home}/src/app.py"))
found["edit"] = asdict(backend.edit(f"{home}/src/app.py", "second = 2", "second = 40"))
found["edited"] = backend.execute(f"cat {home}/src/app.py").output
found["ls"] = asdict(backend.ls(f"{home}/src"))
found["grep"] = asdict(backend.grep("second", home))
found["glob"] = asdict(backend.glob("**/*.py", home))
found["rewrite"] = asdict(backend.write(f"{home}/src/app.py", "zeroth = 0\n"))
found["rewritten"] = backend.execute(f"cat {home}/src/app.py").output
found["upload"] = [asdict(each) for each in backend.upload_files([(f"{home}/b.bin", binary)])]
downloads = backend.download_files([f"{home}/b.bin", f"{home}/nowhere"])
found["download"] = [downloads[0].content == binary, downloads[0].error, downloads[1].content, downloads[1].error]
found["long"] = len(backend.execute("seq 1 200000").output)
found["expected long"] = len("\n".join(str(number) for number in range(1, 200001)))


async def at_once() -> list[str]:
    return [answer.output for answer in await asyncio.gather(*(backend.aexecute(f"echo {n}") for n in range(6)))]


found["at once"] = [answer.strip() for answer in asyncio.run(at_once())]
interpreter.data_plane_client.stop_code_interpreter_session(
    codeInterpreterIdentifier=interpreter.identifier, sessionId=interpreter.session_id
)
found["expired"] = backend.execute("true").output
json.dump(found, printed)
