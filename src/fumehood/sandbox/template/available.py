"""The templates that sessions can start from now, by name. They are the machine's: every account may use each."""

import asyncio

from fumehood.errors import TemplateUnavailableError
from fumehood.sandbox.template import catalog, holds, recipe
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.workplace import read_manifest
from fumehood.settings import Settings

_SHOWN_CHARACTERS = 64


class Templates:
    """Looked up on disk each time: templates are built, imported and removed while the server runs.

    `default` is the one that was current when the server started, and stays its template of that name until the server
    is started anew.
    """

    def __init__(self, settings: Settings, default: Template) -> None:
        self._settings = settings
        self._default = default

    @property
    def default_name(self) -> str:
        """The template of interpreters that name none."""
        return self._default.name

    async def find(self, name: str | None) -> Template:
        """The template `name`, or the default. TemplateUnavailableError, saying what would help, if there is none."""
        wanted = self._default.name if name is None else name
        return await asyncio.to_thread(self._find, wanted)

    async def every(self) -> list[Template]:
        """All of them, by name."""
        by_name = await asyncio.to_thread(self._by_name)
        return [by_name[name] for name in sorted(by_name)]

    def _find(self, name: str) -> Template:
        if name == self._default.name and self._default_is_there():
            return self._default
        # Never a path made of the name: it is compared with the names of those that are there.
        found = self._by_name().get(name)
        if found is None:
            raise TemplateUnavailableError(self._why_not(name))
        return found

    def _by_name(self) -> dict[str, Template]:
        found = {
            template.name: template
            for template in catalog.list_templates(self._settings)
            if template.is_current and not holds.is_being_removed(template.root.parent)
        }
        return found | ({self._default.name: self._default} if self._default_is_there() else {})

    def _default_is_there(self) -> bool:
        return read_manifest(self._default.root.parent) is not None

    def _why_not(self, name: str) -> str:
        shown = repr(name[:_SHOWN_CHARACTERS])
        there = f"There is {', '.join(sorted(self._by_name())) or 'none'}."
        if name not in recipe.names():
            return f"there is no template {shown} on this server. {there}"
        is_stale = any(template.name == name for template in catalog.list_templates(self._settings))
        why = "is out of date: another version of fumehood built it" if is_stale else "is not built on this server"
        return f"template {shown} {why}. `fumehood template build {name}` builds it. {there}"
