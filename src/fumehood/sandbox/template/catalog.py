"""The templates of this machine: have one built, list them, remove one."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fumehood.sandbox.template import build, guest_runtime, image_tools, key, recipe
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

    Raises TemplateError if there is none, or if a sandbox still runs on one: then nothing is removed.
    """
    chosen = [template for template in list_templates(settings) if name_or_key in (template.name, template.key)]
    if not chosen:
        known = ", ".join(f"{template.name} {template.key}" for template in list_templates(settings)) or "none"
        raise TemplateError(f"there is no template {name_or_key!r}; there is {known}")
    used = [template for template in chosen if is_mounted(template.root)]
    if used:
        raise TemplateError(f"template {used[0].name} {used[0].key} is in use: stop the sessions that run on it first")
    for template in chosen:
        await remove_finished(template.root.parent, Silent(), _REMOVE_SECONDS)
    return chosen


async def prune(settings: Settings) -> list[Path]:
    """Remove what is of other versions and that no sandbox uses: templates and what they are made with.

    The folders removed.
    """
    stale = [template.root.parent for template in list_templates(settings) if not template.is_current]
    stale += guest_runtime.list_stale(settings) + image_tools.list_stale(settings)
    unused = [folder for folder in stale if not is_mounted(folder / "root")]
    for folder in unused:
        await remove_finished(folder, Silent(), _REMOVE_SECONDS)
    return unused


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
