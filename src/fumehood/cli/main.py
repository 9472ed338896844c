"""The command `fumehood`."""

import sys

from cyclopts import App
from pydantic import ValidationError

from fumehood.cli import principals, template
from fumehood.cli.doctor import doctor
from fumehood.cli.env import env

commands = App(
    name="fumehood", help="The AgentCore Code Interpreter API, self-hosted, each session in its own sandbox."
)
# Imported when it is typed: all others need a fraction of what the server takes to import.
commands.command(
    "fumehood.cli.serve:serve",
    help="Serve the API. All else is set by environment variables: FUMEHOOD_DATA, FUMEHOOD_DATABASE_URL and so on.",
)
commands.command(env)
commands.command(doctor)
# By name, so that a server has nothing of it in memory.
commands.command("fumehood.cli.bench.command:bench", name="bench", help="Measure how fast a server is.")
commands.command(template.app)
commands.command(principals.app)


def app() -> None:
    """Run the command that was typed. A setting that is not valid ends it with a line that names the variable."""
    try:
        commands()
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            print(f"FUMEHOOD_{name.upper()}: {problem['msg']}, not {problem['input']!r}", file=sys.stderr)
        raise SystemExit(1) from error
