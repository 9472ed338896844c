"""From a request's method and path to the operation it names."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fumehood.aws.model import OperationModel
from fumehood.aws.wire_errors import UnknownOperationError

_ECHO_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class Match:
    """The operation that a path names, and its labels still percent-encoded as they were sent."""

    operation: OperationModel
    raw_labels: dict[str, str]


class _Route:
    """An operation's URI template, cut at its slashes."""

    def __init__(self, operation: OperationModel) -> None:
        self.operation = operation
        segments = _segments(operation.uri_template)
        self.length = len(segments)
        self.literals = tuple((i, s) for i, s in enumerate(segments) if not s.startswith("{"))
        self.labels = tuple((i, s[1:-1]) for i, s in enumerate(segments) if s.startswith("{"))
        self.first = segments[0]

    def match(self, segments: list[str]) -> Match | None:
        """The match of `segments`, which are as many as the template's."""
        for index, text in self.literals:
            if segments[index] != text:
                return None
        return Match(self.operation, {name: segments[index] for index, name in self.labels})

    def match_arn(self, segments: list[str]) -> Match | None:
        """The match of more `segments` than the template has, where the one label is an ARN sent with plain slashes."""
        if len(self.labels) != 1:
            return None
        index = self.labels[0][0]
        surplus = len(segments) - self.length
        if surplus <= 0 or not segments[index].startswith("arn:"):
            return None
        arn = "/".join(segments[index : index + surplus + 1])
        return self.match([*segments[:index], arn, *segments[index + surplus + 1 :]])


class Router:
    """Finds operations by method and path. Where templates collide, implemented operations win."""

    def __init__(self, operations: Iterable[OperationModel], implemented: Collection[str]) -> None:
        self._by_length: dict[tuple[str, str, int], list[_Route]] = {}
        self._by_first: dict[tuple[str, str], list[_Route]] = {}
        routes = [_Route(operation) for operation in operations]
        routes.sort(key=lambda route: (route.operation.name not in implemented, -len(route.literals)))
        for route in routes:
            method = route.operation.method
            self._by_length.setdefault((method, route.first, route.length), []).append(route)
            self._by_first.setdefault((method, route.first), []).append(route)

    def match(self, method: str, path: str) -> Match:
        """The operation that `method` and `path` name.

        `path` is percent-encoded as sent, and normalised (no empty, `.` or `..` segments). A label is one segment;
        an ARN whose slashes are not encoded may fill several where only one operation fits.

        Raises:
            UnknownOperationError: no operation has this method and path.
        """
        segments = _segments(path)
        first = segments[0]
        for route in self._by_length.get((method, first, len(segments)), ()):
            found = route.match(segments)
            if found is not None:
                return found
        for route in self._by_first.get((method, first), ()):
            found = route.match_arn(segments)
            if found is not None:
                return found
        raise UnknownOperationError(
            f"No operation of Amazon Bedrock AgentCore has method {method[:_ECHO_MAX_CHARACTERS]} and path "
            f"{path[:_ECHO_MAX_CHARACTERS]}."
        )


def _segments(path: str) -> list[str]:
    # A slash at the end means nothing: the model itself ends some templates with one and some not.
    return path.strip("/").split("/")
