"""Every operation that the server has, as its own tables say, without a server."""

from types import SimpleNamespace
from typing import Any, NoReturn

from fumehood.extension.api import Route
from fumehood.extension.files import FileTransfers
from fumehood.extension.pool import PoolState
from fumehood.extension.sessions import SessionControls
from fumehood.extension.templates import TemplateChoices
from fumehood.server import extension_routes, operations


class _Anything:
    def __getattr__(self, name: str) -> object:
        return name


async def _never(*_: Any) -> NoReturn:
    raise AssertionError("nothing is called here")


def _nothing() -> NoReturn:
    raise AssertionError("nothing is called here")


def every_route() -> list[Route]:
    """Those of /fumehood/v1/."""
    return extension_routes(
        FileTransfers(_never, 0),
        TemplateChoices(_never, _never, _never),
        SessionControls(
            SimpleNamespace(get=_never, pause=_never, resume=_never),
            SimpleNamespace(create=_never, get=_never, list=_never, delete=_never, start=_never, fork=_never),
        ),
        PoolState(_nothing, _nothing),
    )


def every_operation() -> list[str]:
    """The names of all: AWS's of both planes, and those of /fumehood/v1/."""
    aws = operations(_Anything(), _Anything())  # pyright: ignore[reportArgumentType]
    return [*aws, *(route.operation for route in every_route())]
