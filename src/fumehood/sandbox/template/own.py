"""Templates of one's own: layers on another template, and imported images."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fumehood.sandbox.template import catalog, guest_runtime, image_tools, key, layered, layers, oci, recipe
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.fetch import NpmInstalled
from fumehood.sandbox.template.layered import ParentTemplate
from fumehood.sandbox.template.progress import Progress
from fumehood.sandbox.template.workplace import MANIFEST, Build, Workplace, build_once, read_manifest, timed
from fumehood.settings import Settings

_LOCK_SECONDS = 7_200
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_CHARACTERS_MAX = 40
_KEY = re.compile(r"[0-9a-f]{16}")
# Of the built-in templates the one that is built soonest; its npm fetches packages.
_TOOLS = "base"


@dataclass(frozen=True)
class Described:
    """A template in full: what `fumehood template show` tells."""

    template: Template
    manifest: Mapping[str, Any]
    parent_is_current: bool | None
    """None where it is not made on another template."""

    @property
    def built_at(self) -> datetime:
        """When it was built."""
        return self.template.created_at


def check_name(name: str) -> None:
    """Raise TemplateError unless a template of one's own can have this name."""
    if name in recipe.names():
        raise TemplateError(f"{name} is a built-in template: choose another name")
    if not _NAME.fullmatch(name) or len(name) > _NAME_CHARACTERS_MAX or _KEY.fullmatch(name):
        raise TemplateError(
            f"{name[:80]!r} cannot be a template's name: lower-case letters and digits in words joined by -, a letter "
            f"first, {_NAME_CHARACTERS_MAX} characters at most, and not like a key"
        )


async def build_from(file: Path, name: str, parent: str | None, settings: Settings, progress: Progress) -> Template:
    """Have the template `name` made of the layers that `file` says, built unless it is there as it would be now.

    `parent` is the template it goes on; None is what the file says, or the server's default template. Raises
    TemplateError; nothing half-made is left then.
    """
    check_name(name)
    _check_root()
    read = await asyncio.to_thread(layers.read, file, parent, settings.template)
    if read.parent == name:
        raise TemplateError(f"{file.name} puts {name} on top of itself: choose another name")
    below = await catalog.ensure(read.parent, settings, progress)
    tools = await catalog.ensure(_TOOLS, settings, progress) if _needs_npm(read) else below
    on = await asyncio.to_thread(_as_parent, below)
    digest = key.digest(await asyncio.to_thread(layered.ingredients, read, on))

    def build(workplace: Workplace) -> Awaitable[Mapping[str, Any]]:
        return layered.build(
            workplace, read, on, name=name, source=file, tools=tools.root, guest=below.guest, settings=settings
        )

    return await _ensure(f"{name}-{digest}", build, below.guest, settings, progress)


async def import_image(path: Path, name: str, tag: str | None, settings: Settings, progress: Progress) -> Template:
    """Have the image in an archive or an OCI layout's folder as the template `name`; not again if it is there.

    Raises TemplateError; nothing half-made is left then.
    """
    check_name(name)
    _check_root()
    await asyncio.to_thread(settings.data.mkdir, mode=0o700, parents=True, exist_ok=True)
    progress.phase("looking at the image")
    source = await asyncio.to_thread(oci.read_source, path, tag)
    tools = await image_tools.ensure(settings, progress)
    guest = await guest_runtime.ensure_guest_runtime(settings, progress)

    def build(workplace: Workplace) -> Awaitable[Mapping[str, Any]]:
        return oci.build(workplace, source, name=name, tools=tools, guest=guest, settings=settings)

    return await _ensure(f"{name}-{key.digest(source.ingredients())}", build, guest, settings, progress)


def describe(name_or_key: str, settings: Settings) -> Described:
    """The template of this key, or the current or newest one of this name. Raises TemplateError if there is none."""
    templates = catalog.list_templates(settings)
    chosen = [template for template in templates if name_or_key in (template.name, template.key)]
    if not chosen:
        known = ", ".join(f"{template.name} {template.key}" for template in templates) or "none"
        raise TemplateError(f"there is no template {name_or_key!r}; there is {known}")
    template = max(chosen, key=lambda one: one.is_current)
    manifest = read_manifest(template.root.parent)
    if manifest is None:
        raise TemplateError(f"template {template.name} was removed just now")
    parent = manifest.get("parent")
    current = {(one.name, one.key) for one in templates if one.is_current}
    return Described(template, manifest, None if parent is None else (parent["name"], parent["key"]) in current)


async def _ensure(folder_name: str, build: Build, guest: Path, settings: Settings, progress: Progress) -> Template:
    folder = catalog.folder_of_all(settings) / folder_name
    await build_once(folder, timed(build), progress=progress, deadline_seconds=_LOCK_SECONDS)
    # The one that was asked for last is the one of its name.
    await asyncio.to_thread(os.utime, folder / MANIFEST)
    return catalog.read(folder, guest, is_current=True)


def _check_root() -> None:
    if os.geteuid() != 0:
        raise TemplateError("templates are built by root, who sets the owners of their files: run it with sudo")


def _needs_npm(read: layers.Layers) -> bool:
    return any(isinstance(step, layers.Npm) for step in read.steps)


def _as_parent(template: Template) -> ParentTemplate:
    folder = template.root.parent
    manifest = read_manifest(folder)
    if manifest is None:
        raise TemplateError(f"template {template.name} was removed just now")
    return ParentTemplate(
        name=template.name,
        key=template.key,
        root=template.root,
        python=template.python,
        environment=manifest.get("environment", {}),
        npm=_npm_of(template.name, folder, manifest),
    )


def _npm_of(name: str, folder: Path, manifest: Mapping[str, Any]) -> NpmInstalled | None:
    if name in recipe.names():
        packages = recipe.load(name).npm
        return None if packages is None else NpmInstalled(_dependencies(packages.package), packages.lock)
    if not manifest.get("npm"):
        return None
    # Written by the build itself, beside the root: nothing foreign has touched it.
    kept = folder / layered.NPM_FOLDER
    return NpmInstalled(_dependencies((kept / "package.json").read_text()), (kept / "package-lock.json").read_text())


def _dependencies(package: str) -> dict[str, str]:
    return json.loads(package)["dependencies"]
