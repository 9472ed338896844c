"""`templates`: those of this machine; and `interpreters/{id}/template`: which of them an interpreter's sessions use."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fumehood.calls import Call
from fumehood.errors import InvalidRequestError
from fumehood.extension.answer import Answer
from fumehood.extension.api import Request, Route

_CHOICE = r"interpreters/(?P<codeInterpreterId>[^/]+)/template"
_NAME_CHARACTERS_MAX = 256


@dataclass(frozen=True)
class TemplateSummary:
    """A template that sessions can start from."""

    name: str
    key: str
    size_bytes: int
    created_at: datetime
    languages: Sequence[str]
    is_default: bool


class TemplateChoices:
    """The operations on templates. `get` and `put` are the control plane's, for one interpreter."""

    def __init__(
        self,
        every: Callable[[], Awaitable[Sequence[TemplateSummary]]],
        get: Callable[[Call], Awaitable[dict[str, Any]]],
        put: Callable[[Call], Awaitable[dict[str, Any]]],
    ) -> None:
        self._every = every
        self._get_choice = get
        self._put_choice = put

    @property
    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("ListTemplates", "GET", "templates", self._list),
            Route("GetInterpreterTemplate", "GET", _CHOICE, self._get),
            Route("PutInterpreterTemplate", "PUT", _CHOICE, self._put),
        ]

    async def _list(self, _request: Request, answer: Answer) -> None:
        await answer.json({"templates": [_described(template) for template in await self._every()]})

    async def _get(self, request: Request, answer: Answer) -> None:
        await answer.json(await self._get_choice(request.call))

    async def _put(self, request: Request, answer: Answer) -> None:
        # Whole and verified before anything is done.
        request.call.parameters["template"] = _chosen(await request.json())
        await answer.json(await self._put_choice(request.call))


def _chosen(body: dict[str, Any]) -> str:
    name = body.get("template")
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_CHARACTERS_MAX:
        raise InvalidRequestError.of_field("template", "must be the name of a template, as GET of templates lists them")
    for other in body.keys() - {"template"}:
        raise InvalidRequestError.of_field(other[:_NAME_CHARACTERS_MAX], "unknown: the body has template only")
    return name


def _described(template: TemplateSummary) -> dict[str, Any]:
    return {
        "name": template.name,
        "key": template.key,
        "sizeBytes": template.size_bytes,
        "createdAt": template.created_at.isoformat(timespec="seconds"),
        "languages": [*template.languages],
        "isDefault": template.is_default,
    }
