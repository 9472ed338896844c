"""The command `fumehood`."""

import sys

from cyclopts import App
from pydantic import ValidationError

from fumehood.cli import template
from fumehood.cli.doctor import doctor
from fumehood.cli.env import env
from fumehood.cli.serve import serve

commands = App(
    name="fumehood", help="The AgentCore Code Interpreter API, self-hosted, each session in its own sandbox."
)
commands.command(serve)
commands.command(env)
commands.command(doctor)
# By name, so that a server has nothing of it in memory.
commands.command("fumehood.cli.bench.command:bench", name="bench", help="Measure how fast a server is.")
commands.command(template.app)


def app() -> None:
    """Run the command that was typed. A setting that is not valid ends it with a line that names the variable."""
    try:
        commands()
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            print(f"FUMEHOOD_{name.upper()}: {problem['msg']}, not {problem['input']!r}", file=sys.stderr)
        raise SystemExit(1) from error
