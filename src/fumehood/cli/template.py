"""`fumehood template`: build, list and remove what sandboxes start from."""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager

from cyclopts import App
from rich.console import Console

from fumehood import clock
from fumehood.cli import build_progress
from fumehood.errors import FumehoodError
from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.catalog import Template
from fumehood.settings import MIB, Settings

app = App(name="template", help="Build, list and remove the templates that sandboxes start from.")


@app.command
def build(name: str = "base") -> None:
    """Build a template and the guest runtime, unless they are there already."""
    started = clock.monotonic_seconds()
    with _errors_told(), build_progress.shown(Console(stderr=True)) as progress:
        template = asyncio.run(catalog.ensure(name, Settings(), progress))
    seconds = clock.monotonic_seconds() - started
    print(f"template {template_line(template)}, ready after {seconds:.0f} s: {template.root}")


@app.command(name="list")
def list_() -> None:
    """List the templates that are built. Nothing new starts from a stale one."""
    with _errors_told():
        templates = catalog.list_templates(Settings())
    for template in templates:
        print(template_line(template))


@app.command
def remove(name_or_key: str) -> None:
    """Remove the template of this key, or all of this name."""
    with _errors_told():
        removed = asyncio.run(catalog.remove(name_or_key, Settings()))
    for template in removed:
        print(f"removed {template_line(template)}")


@app.command
def prune() -> None:
    """Remove every stale template and guest runtime that no sandbox uses."""
    with _errors_told():
        removed = asyncio.run(catalog.prune(Settings()))
    for folder in removed:
        print(f"removed {folder}")


def template_line(template: Template) -> str:
    """A template in one line: name, key, size, when it was built, whether it is stale."""
    stale = "" if template.is_current else ", stale"
    built = template.created_at.isoformat(timespec="seconds")
    return f"{template.name} {template.key}, {template.size_bytes / MIB:.0f} MiB, built {built}{stale}"


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except FumehoodError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(1) from error
