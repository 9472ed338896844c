"""Notebook-style conversations, many at once: languages, commands, tasks and files in one session, each with numbers of
its own, and nothing of one in another."""

import concurrent.futures
import contextlib
import io
import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from PIL import Image

from tests.service import Session
from tests.signing import text_of
from tests.waiting import wait_until

SEEDS = (101, 202, 303, 404, 505, 606, 707, 808)
CALLS_MIN = 20
_START_SECONDS = 120
_CONVERSATION_SECONDS = 300
_DIALECTS = {
    "python": {"language": "python"},
    "deno": {"language": "javascript", "runtime": "deno"},
    "nodejs": {"language": "typescript", "runtime": "nodejs"},
}


class Notebook:
    """One conversation's session: says what is wrong with an answer together with the call that it answers."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.calls = 0

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call."""
        self.calls += 1
        return self.session.invoke(tool, **arguments)

    def cell(self, dialect: str, code: str, printed: str) -> dict[str, Any]:
        """Run code that must print just this."""
        result = self.call("executeCode", code=code, **_DIALECTS[dialect])
        structured = result["structuredContent"]
        assert (structured["exitCode"], structured["stdout"], structured["stderr"]) == (0, printed, ""), (code, result)
        assert text_of(result) == printed
        return result

    def failing_cell(self, dialect: str, code: str, told: str) -> None:
        """Run code that must fail and tell this."""
        result = self.call("executeCode", code=code, **_DIALECTS[dialect])
        assert result["isError"] is True, (code, result)
        assert told in result["structuredContent"]["stderr"], (code, result)

    def shell(self, command: str, printed: str) -> None:
        """Run a command that must print just this."""
        structured = self.call("executeCommand", command=command)["structuredContent"]
        assert (structured["exitCode"], structured["stdout"], structured["stderr"]) == (0, printed, ""), command

    def task_stands(self, task_id: str) -> tuple[str, str]:
        """A task's status and output. Asked again and again, and so not counted."""
        structured = self.session.invoke("getTask", taskId=task_id)["structuredContent"]
        return structured["taskStatus"], structured["stdout"]


def converse(notebook: Notebook, seed: int) -> None:
    """A conversation of twenty calls and more, all of whose answers follow from the seed.

    All conversations use the same names of files and variables, with other values: what came from another would show.
    """
    dice = random.Random(seed)
    numbers = [dice.randint(1, 10**6) for _ in range(50)]
    total, largest = sum(numbers), max(numbers)

    # A file comes in; three languages read it, and keep what they found.
    content = [
        {"path": "numbers.csv", "text": "n\n" + "".join(f"{n}\n" for n in numbers)},
        {"path": f"only-in-{seed}.bin", "blob": seed.to_bytes(2) + b"\0\xff"},
    ]
    assert notebook.call("writeFiles", content=content)["isError"] is False
    notebook.cell(
        "python",
        f"import pandas as pd\nonly_in_{seed} = {seed}\ndf = pd.read_csv('numbers.csv')\nprint(len(df), df['n'].sum())",
        f"50 {total}",
    )
    notebook.cell(
        "deno",
        f"const onlyIn{seed} = {seed};\n"
        "const numbers = (await Deno.readTextFile('numbers.csv')).trim().split('\\n').slice(1).map(Number);\n"
        "console.log(Math.max(...numbers));",
        f"{largest}",
    )
    notebook.cell(
        "nodejs",
        "import { readFileSync } from 'node:fs';\n"
        f"const onlyIn{seed}: number = {seed};\n"
        "interface Summary { count: number; total: number }\n"
        "const values: number[] = readFileSync('numbers.csv', 'utf8').trim().split('\\n').slice(1).map(Number);\n"
        "const summary: Summary = { count: values.length, total: values.reduce((a, b) => a + b, 0) };\n"
        "console.log(JSON.stringify(summary));",
        json.dumps({"count": 50, "total": total}, separators=(",", ":")),
    )
    notebook.shell("awk 'NR > 1 { s += $1 } END { printf \"%d\\n\", s }' numbers.csv", f"{total}\n")

    # A task waits for what a later call makes, while the conversation goes on.
    command = f"echo started {seed}; until [ -e go ]; do sleep 0.05; done; cat go"
    task_id = notebook.call("startCommandExecution", command=command)["structuredContent"]["taskId"]
    wait_until(lambda: notebook.task_stands(task_id)[1] == f"started {seed}\n", "the task's first output")

    # State lives on in each of the kernels.
    notebook.cell("python", f"scaled = (df['n'] * {seed}).tolist()\nscaled[-1]", f"{numbers[-1] * seed}")
    notebook.cell(
        "deno", f"const doubled = numbers.map((n) => n * 2); doubled[{seed % 50}]", f"{numbers[seed % 50] * 2}"
    )
    notebook.cell("nodejs", "class Box { n: number; constructor(n: number) { this.n = n; } }", "")
    notebook.cell("nodejs", f"const box: Box = new Box(summary.total); box.n + onlyIn{seed}", f"{total + seed}")

    # Each language fails in its own way, and forgets nothing.
    notebook.failing_cell("python", f"raise ValueError('python {seed}')", f"ValueError: python {seed}")
    notebook.failing_cell("deno", f"throw new RangeError(`deno ${{onlyIn{seed}}}`)", f"RangeError: deno {seed}")
    notebook.failing_cell("nodejs", f"const broken: number = ;  // {seed}", "SyntaxError")
    notebook.cell("python", f"[only_in_{seed}, len(scaled)]", f"[{seed}, 50]")
    notebook.cell("deno", "console.log(doubled.length, numbers[0])", f"50 {numbers[0]}")
    notebook.cell("nodejs", "console.log(values.length, box.n)", f"50 {total}")

    # What one language writes, another reads, and the client too.
    state = f"{{'top': sorted(scaled)[-3:], 'seed': {seed}}}"
    notebook.cell("python", f"import json\n_ = open('state.json', 'w').write(json.dumps({state}))", "")
    top = sorted(n * seed for n in numbers)[-3:]
    notebook.cell(
        "deno",
        "const state = JSON.parse(Deno.readTextFileSync('state.json')); console.log(state.top.join())",
        ",".join(map(str, top)),
    )
    notebook.cell("nodejs", "console.log(JSON.parse(readFileSync('state.json', 'utf8')).seed)", f"{seed}")
    read = notebook.call("readFiles", paths=["state.json", f"only-in-{seed}.bin"])["content"]
    assert json.loads(read[0]["resource"]["text"]) == {"top": top, "seed": seed}
    assert read[1]["resource"]["blob"] == seed.to_bytes(2) + b"\0\xff"

    # A figure, whose colour tells whose it is.
    colour = seed * 1000
    figure = notebook.call(
        "executeCode",
        language="python",
        code="import matplotlib.pyplot as plt\n"
        f"fig, ax = plt.subplots(figsize=(3, 2), facecolor='#{colour:06x}')\nax.plot(scaled)\nplt.show()",
    )
    assert [block["type"] for block in figure["content"]] == ["text", "image"], figure
    drawn = Image.open(io.BytesIO(figure["content"][1]["data"]), formats=["PNG"]).convert("RGB")
    assert drawn.getpixel((2, 2)) == tuple(colour.to_bytes(3))

    # The one task that can be seen is this conversation's.
    notebook.shell("ps -eo args | grep -o 'started [0-9][0-9]*' | sort -u", f"started {seed}\n")

    # The task ends with what only now is there.
    # Whole or not at all: the task reads it as soon as it is there.
    go = f"import os; _ = open('going', 'w').write('gone {seed}\\n'); os.rename('going', 'go')"
    notebook.cell("python", go, "")
    wait_until(lambda: notebook.task_stands(task_id)[0] == "completed", "the task's end")
    assert notebook.task_stands(task_id) == ("completed", f"started {seed}\ngone {seed}\n")

    # Nothing of the other conversations is here: no file, no variable.
    notebook.shell("find /home /tmp /var/tmp /dev/shm -name 'only-in-*'", f"/home/sandbox/only-in-{seed}.bin\n")
    notebook.cell("python", "sorted(name for name in globals() if name.startswith('only_in'))", f"['only_in_{seed}']")
    for dialect in ("deno", "nodejs"):
        others = [f"typeof onlyIn{other}" for other in SEEDS if other != seed]
        notebook.cell(
            dialect,
            f"console.log(new Set([{', '.join(others)}]).size, typeof onlyIn{seed}, {others[0]})",
            "1 number undefined",
        )
    names = {entry["name"] for entry in notebook.call("listFiles", directoryPath="")["content"]}
    assert {name for name in names if not name.startswith(".")} == {
        "numbers.csv",
        f"only-in-{seed}.bin",
        "state.json",
        "go",
    }

    # Python forgets when asked, and the others do not.
    notebook.call("executeCode", language="python", code="# Context cleared", clearContext=True)
    notebook.failing_cell("python", "df", "NameError: name 'df' is not defined")
    notebook.cell("deno", f"onlyIn{seed} + numbers.length", f"{seed + 50}")
    notebook.cell("nodejs", f"onlyIn{seed} + values.length", f"{seed + 50}")
    removed = notebook.call("removeFiles", paths=["numbers.csv", "state.json", "go", f"only-in-{seed}.bin"])
    assert removed["isError"] is False, removed


@pytest.fixture(scope="module")
def replayed(standard_variables: dict[str, str]) -> Iterator[dict[int, concurrent.futures.Future[int]]]:
    """All conversations at the same time, each with a thread and a client of its own: how many calls each took."""
    all_started = threading.Barrier(len(SEEDS))

    def replay(seed: int, client: Any) -> int:
        notebook = Notebook(Session(client))
        try:
            all_started.wait(_START_SECONDS)
            converse(notebook, seed)
        finally:
            notebook.session.stop()
        return notebook.calls

    with contextlib.ExitStack() as clients, concurrent.futures.ThreadPoolExecutor(len(SEEDS)) as pool:
        made = {seed: clients.enter_context(contextlib.closing(_client(standard_variables))) for seed in SEEDS}
        yield {seed: pool.submit(replay, seed, client) for seed, client in made.items()}


def _client(variables: dict[str, str]) -> Any:
    return boto3.client(
        "bedrock-agentcore",
        endpoint_url=variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_conversation_among_others_gets_its_own_answers(
    replayed: dict[int, concurrent.futures.Future[int]], seed: int
) -> None:
    assert replayed[seed].result(_CONVERSATION_SECONDS) >= CALLS_MIN
