"""`fumehood template`: build, import, list, show and remove what sandboxes start from."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from fumehood import clock
from fumehood.cli import build_progress
from fumehood.errors import FumehoodError
from fumehood.sandbox.template import catalog, own
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.own import Described
from fumehood.sandbox.template.progress import Progress
from fumehood.settings import MIB, Settings

_KINDS = {"recipe": "built-in recipe", "layers": "layers on another template", "import": "imported image"}
app = App(name="template", help="Build, import, list and remove the templates that sandboxes start from.")


@app.command
def build(
    name: str | None = None,
    *,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    on: str | None = None,
) -> None:
    """Build a template and the guest runtime, unless they are there already.

    Parameters
    ----------
    name
        A built-in template, the server's default one (FUMEHOOD_TEMPLATE) if not given; with --from the name of the new
        one.
    from_
        A requirements.txt, a package.json, or a recipe in the manner of a Dockerfile (docs/templates.md): the template
        is made of it, on top of another one.
    on
        The template that a requirements.txt or package.json goes on; the server's default template if not given.
    """
    with _errors_told():
        if from_ is None and on is not None:
            raise TemplateError("--on goes with --from")
        if from_ is not None and name is None:
            raise TemplateError("--from needs --name, the name of the new template")
    if from_ is None:
        _make(lambda progress: catalog.ensure(name or Settings().template, Settings(), progress))
    else:
        _make(lambda progress: own.build_from(from_, name or "", on, Settings(), progress))


@app.command(name="import")
def import_(path: Path, *, name: str, tag: str | None = None) -> None:
    """Import a container image as a template.

    Parameters
    ----------
    path
        An OCI archive, an archive of `docker save`, or the folder of an OCI layout.
    name
        The name of the new template.
    tag
        Which image, where there are several.
    """
    _make(lambda progress: own.import_image(path, name, tag, Settings(), progress))


@app.command(name="list")
def list_() -> None:
    """List the templates that are built. Nothing new starts from a stale one."""
    with _errors_told():
        templates = catalog.list_templates(Settings())
    for template in templates:
        print(template_line(template))


@app.command
def show(name_or_key: str) -> None:
    """Show what a template is made of, how large it is, and what was left out of it."""
    with _errors_told():
        described = own.describe(name_or_key, Settings())
    for line in described_lines(described):
        print(line)


@app.command
def remove(name_or_key: str) -> None:
    """Remove the template of this key, or all of this name, if no session and no snapshot needs it."""
    with _errors_told():
        removed = asyncio.run(catalog.remove(name_or_key, Settings()))
    for template in removed:
        print(f"removed {template_line(template)}")


@app.command
def prune() -> None:
    """Remove every stale template and guest runtime that nothing uses or needs."""
    with _errors_told():
        removed = asyncio.run(catalog.prune(Settings()))
    for folder in removed:
        print(f"removed {folder}")


def _make(make: Callable[[Progress], Awaitable[Template]]) -> None:
    async def made(progress: Progress) -> Template:
        return await make(progress)

    started = clock.monotonic_seconds()
    with _errors_told(), build_progress.shown(Console(stderr=True)) as progress:
        template = asyncio.run(made(progress))
    seconds = clock.monotonic_seconds() - started
    print(f"template {template_line(template)}, ready after {seconds:.0f} s: {template.root}")


def described_lines(described: Described) -> list[str]:
    """A template in full: a line for each thing there is to say."""
    template, manifest = described.template, described.manifest
    lines = [
        f"name: {template.name}",
        f"key: {template.key}" + ("" if template.is_current else " (stale: nothing new starts from it)"),
        f"kind: {_KINDS[manifest.get('kind', 'recipe')]}",
        f"size: {template.size_bytes / MIB:.0f} MiB",
        f"built: {_built(template)}",
        f"runtimes: {', '.join(template.runtimes) or 'none'}",
        *_origin_lines(manifest, described.parent_is_current),
    ]
    lines += [f"version: {name} {version}" for name, version in manifest.get("versions", {}).items() if version]
    lines += [f"wheel: {wheel}" for wheel in manifest.get("wheels", ())]
    lines += [f"variable: {name}={value}" for name, value in manifest.get("environment", {}).items()]
    lines += [f"isolation: {line}" for line in _isolation_lines(manifest)]
    lines += [f"note: {note}" for note in manifest.get("notes", ())]
    return [*lines, f"root: {template.root}"]


def _origin_lines(manifest: Mapping[str, Any], parent_is_current: bool | None) -> list[str]:
    lines: list[str] = []
    if parent := manifest.get("parent"):
        changed = "" if parent_is_current else " (changed or removed since: build again to have it on the present one)"
        lines.append(f"on: {parent['name']} {parent['key']}{changed}")
    if source := manifest.get("source"):
        tag = f", tag {source['tag']}" if source.get("tag") else ""
        lines.append(f"from: {source['file']} sha256:{source['sha256']}{tag}")
    return lines


def _isolation_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What was seen to when the root was made."""
    found = manifest.get("taken_over")
    if found is None:
        return ["made of Debian's packages and pinned wheels; no set-user-id bits, file capabilities or devices"]
    return [
        "foreign programs ran in gVisor only, without network",
        f"{found['set_id_bits_dropped']} set-user-id and set-group-id bits dropped",
        f"{found['special_files_dropped']} devices, pipes and sockets left out",
        "no extended attribute taken over, and so no file capability",
    ]


def template_line(template: Template) -> str:
    """A template in one line: name, key, size, when it was built and how long that took, whether it is stale."""
    stale = "" if template.is_current else ", stale"
    return f"{template.name} {template.key}, {template.size_bytes / MIB:.0f} MiB, built {_built(template)}{stale}"


def _built(template: Template) -> str:
    took = "" if template.build_seconds is None else f" in {template.build_seconds:.0f} s"
    return f"{template.created_at.isoformat(timespec='seconds')}{took}"


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except FumehoodError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(1) from error
