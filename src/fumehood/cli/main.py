"""The command `fumehood`."""

from cyclopts import App

from fumehood.cli.env import env
from fumehood.cli.serve import serve

app = App(name="fumehood", help="The AgentCore Code Interpreter API, self-hosted, each session in its own sandbox.")
app.command(serve)
app.command(env)
