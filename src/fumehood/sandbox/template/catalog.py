"""The templates of this machine: have one built, list them, remove one."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fumehood import clock
from fumehood.sandbox.images.store import ImageStore
from fumehood.sandbox.template import build, guest_runtime, holds, image_tools, key, recipe
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.progress import Progress, Silent
from fumehood.sandbox.template.recipe import Recipe
from fumehood.sandbox.template.runtimes import runtimes_in
from fumehood.sandbox.template.workplace import (
    MANIFEST,
    build_once,
    finished,
    is_mounted,
    read_manifest,
    remove_finished,
    timed,
)
from fumehood.settings import Settings

_BUILD_SECONDS = 3_600
_REMOVE_SECONDS = 600
_UNUSED_SECONDS = 15.0
"""So long a server may take to let go of what it keeps ready, and sandboxes of ended sessions to be gone."""
_POLL_SECONDS = 0.1
_SHOWN_SESSIONS = 5


@dataclass(frozen=True)
class Template:
    """A built template. Sandboxes start from `root` and mount `guest` at `/.fumehood`, both read-only."""

    name: str
    key: str
    root: Path
    guest: Path
    """The guest runtime of this version of fumehood."""
    python: str | None
    """The template's own Python, as seen inside."""
    runtimes: tuple[str, ...]
    """Which of `python`, `deno` and `nodejs` it has."""
    size_bytes: int
    created_at: datetime
    build_seconds: float | None
    """How long its build took, downloads included; None for one of a version that did not write it down."""
    is_current: bool
    """False for one whose recipe or build code has changed since, or that another one of its name has replaced:
    nothing new starts from it, and it can be removed."""

    @property
    def id(self) -> str:
        """Its name and key in one: no other template, on any machine, has the same."""
        return self.root.parent.name


async def ensure(name: str, settings: Settings, progress: Progress) -> Template:
    """The template `name`, and the guest runtime of this version, built if they are not there yet.

    Raises TemplateError if there is neither a recipe nor a template of one's own of that name, or a build fails;
    nothing half-made is left then.
    """
    if name in recipe.names():
        return await ensure_recipe(recipe.load(name), settings, progress)
    folder = _own_folder(name, settings)
    return read(folder, await guest_runtime.ensure_guest_runtime(settings, progress), is_current=True)


async def ensure_recipe(wanted: Recipe, settings: Settings, progress: Progress) -> Template:
    """As `ensure`, for a recipe at hand."""
    if os.geteuid() != 0:
        raise TemplateError("templates are built by root, who sets the owners of their files: run it with sudo")
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    codename = key.codename()
    guest = await guest_runtime.ensure_guest_runtime(settings, progress)
    folder = current(wanted, settings)
    await build_once(
        folder,
        timed(lambda workplace: build.build(workplace, wanted, codename=codename, runsc=settings.runsc)),
        progress=progress,
        deadline_seconds=_BUILD_SECONDS,
    )
    return read(folder, guest, is_current=True)


def current(wanted: Recipe, settings: Settings) -> Path:
    """The folder that fits `wanted` as it is now, whether or not it is built."""
    digest = key.digest(build.ingredients(wanted, key.codename(), key.architecture()))
    return folder_of_all(settings) / f"{wanted.name}-{digest}"


def root_of(template_id: str, settings: Settings) -> Path:
    """The root file system of the template of that `Template.id`."""
    return folder_of_all(settings) / template_id / "root"


def is_built(name: str, settings: Settings) -> bool:
    """Whether the template `name` of this version is there. Raises TemplateError if it is not, and cannot be built."""
    if name not in recipe.names():
        return _own_folder(name, settings).is_dir()
    return read_manifest(current(recipe.load(name), settings)) is not None


def list_templates(settings: Settings) -> list[Template]:
    """Every built template, by name and then the newest first."""
    wanted = {current(recipe.load(name), settings) for name in recipe.names()} | {*_own(settings).values()}
    guest = guest_runtime.current(settings) / "root"
    templates = [read(folder, guest, folder in wanted) for folder in finished(folder_of_all(settings))]
    newest_first = sorted(templates, key=lambda template: template.created_at, reverse=True)
    return sorted(newest_first, key=lambda template: template.name)


async def remove(name_or_key: str, settings: Settings) -> list[Template]:
    """Remove the template of this key, or all of this name; what was removed.

    A server that runs lets go of what it keeps ready of them. Raises TemplateError, saying what is to be done, if there
    is none, if one is the default of such a server, or if a session, hibernated or not, or a snapshot needs one: then
    nothing is removed.
    """
    chosen = [template for template in list_templates(settings) if name_or_key in (template.name, template.key)]
    if not chosen:
        known = ", ".join(f"{template.name} {template.key}" for template in list_templates(settings)) or "none"
        raise TemplateError(f"there is no template {name_or_key!r}; there is {known}")
    async with AsyncExitStack() as stack:
        for template in chosen:
            await stack.enter_async_context(holds.alone(template.root.parent))
        await _require_no_state_of(chosen, settings)
        for template in chosen:
            await _wait_unused(template)
        # A session that ran until now may have been hibernated.
        await _require_no_state_of(chosen, settings)
        for template in chosen:
            await remove_finished(template.root.parent, Silent(), _REMOVE_SECONDS)
    return chosen


async def _require_no_state_of(templates: Sequence[Template], settings: Settings) -> None:
    """TemplateError if there is an image of a session's state that needs one of the templates."""
    states = await _states_by_template(settings)
    for template in templates:
        if sessions := states.get(template.id):
            shown = ", ".join(sorted(sessions)[:_SHOWN_SESSIONS])
            more = f" and {len(sessions) - _SHOWN_SESSIONS} more" if len(sessions) > _SHOWN_SESSIONS else ""
            raise TemplateError(
                f"template {template.name} {template.key} is needed by hibernated sessions or snapshots, of sessions "
                f"{shown}{more}: stop the ones and delete the others first, or wait until they expire"
            )


async def _states_by_template(settings: Settings) -> dict[str, set[str]]:
    """By template, the sessions that stored states are of, as long as these can be used."""
    store = ImageStore(settings.data / "images", settings.data / "image-key", settings.images_max_bytes)
    sessions: dict[str, set[str]] = {}
    for image in await store.list_images():
        if image.expires_at > clock.now():
            sessions.setdefault(image.about.needs.get("template", ""), set()).add(image.about.session_id)
    return sessions


async def _wait_unused(template: Template) -> None:
    """Wait until no sandbox runs on a template that nothing new starts from. TemplateError if sessions go on."""
    deadline = clock.monotonic_seconds() + _UNUSED_SECONDS
    while await asyncio.to_thread(is_mounted, template.root):
        if clock.monotonic_seconds() > deadline:
            raise TemplateError(
                f"template {template.name} {template.key} is in use: sandboxes of sessions run on it, or of a server "
                "that was killed, whose ready ones end by themselves. Stop these sessions first"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def prune(settings: Settings) -> list[Path]:
    """Remove what is of other versions and that nothing uses or needs: templates and what they are made with.

    The folders removed.
    """
    removed = [
        template.root.parent
        for template in list_templates(settings)
        if not template.is_current and await _is_pruned(template, settings)
    ]
    for folder in guest_runtime.list_stale(settings) + image_tools.list_stale(settings):
        if not is_mounted(folder / "root"):
            await remove_finished(folder, Silent(), _REMOVE_SECONDS)
            removed.append(folder)
    return removed


async def _is_pruned(template: Template, settings: Settings) -> bool:
    """Remove a template at once, unless somebody has or needs it; whether it was removed."""
    with suppress(TemplateError):
        async with holds.alone(template.root.parent):
            await _require_no_state_of([template], settings)
            if not is_mounted(template.root):
                await remove_finished(template.root.parent, Silent(), _REMOVE_SECONDS)
                return True
    return False


def folder_of_all(settings: Settings) -> Path:
    """Where templates are kept, each in a folder NAME-KEY."""
    return settings.data / "templates"


def _own(settings: Settings) -> dict[str, Path]:
    """The templates of one's own, by name: of several the one that was built, or found to be right, last."""
    found: dict[str, Path] = {}
    for folder in finished(folder_of_all(settings)):
        manifest = read_manifest(folder)
        if manifest is None or manifest["name"] in recipe.names():
            continue
        other = found.get(manifest["name"])
        if other is None or _confirmed_at(folder) > _confirmed_at(other):
            found[manifest["name"]] = folder
    return found


def _confirmed_at(folder: Path) -> float:
    return (folder / MANIFEST).stat().st_mtime


def _own_folder(name: str, settings: Settings) -> Path:
    own = _own(settings)
    if name not in own:
        known = ", ".join(sorted({*recipe.names(), *own}))
        raise TemplateError(
            f"there is no template {name!r}; there is {known}. `fumehood template build --from` and `fumehood template "
            "import` make others"
        )
    return own[name]


def read(folder: Path, guest: Path, is_current: bool) -> Template:
    """The finished template in `folder`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise TemplateError(f"template {folder.name} was removed just now")
    return Template(
        name=manifest["name"],
        key=folder.name.removeprefix(f"{manifest['name']}-"),
        root=folder / "root",
        guest=guest,
        python=manifest["python"],
        runtimes=runtimes_in(folder / "root"),
        size_bytes=manifest["size_bytes"],
        created_at=datetime.fromisoformat(manifest["created_at"]),
        build_seconds=manifest.get("build_seconds"),
        is_current=is_current,
    )
