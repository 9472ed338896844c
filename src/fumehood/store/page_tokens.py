"""Pagination tokens: the place in a listing where the next page begins, sealed so that only this store can make one."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fumehood.errors import InvalidRequestError

_SEAL_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Position:
    """The last row that a page showed, in the order of every listing: newest first, then by id."""

    created_at: datetime
    id: str


class PageTokens:
    """Makes and reads tokens with one key. A token is good only for the scope it was made for.

    A scope is the listing's name, the account and every filter in force: whatever would make another list.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, scope: Sequence[str | None], position: Position) -> str:
        """The token that continues after `position` in the listing of `scope`."""
        milliseconds = (position.created_at - _EPOCH) // timedelta(milliseconds=1)
        place = json.dumps([milliseconds, position.id]).encode()
        return base64.urlsafe_b64encode(self._seal(scope, place) + place).rstrip(b"=").decode()

    def decode(self, scope: Sequence[str | None], token: str) -> Position:
        """The position in `token`. Raises InvalidRequestError on `nextToken` unless `encode` made it for this scope."""
        try:
            sealed = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise _not_a_token() from error
        seal, place = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(scope, place)):
            raise _not_a_token()
        milliseconds, row_id = json.loads(place)
        return Position(_EPOCH + timedelta(milliseconds=milliseconds), row_id)

    def _seal(self, scope: Sequence[str | None], place: bytes) -> bytes:
        message = json.dumps(list(scope)).encode() + b"\n" + place
        return hmac.digest(self._key, message, hashlib.sha256)[:_SEAL_BYTES]


def _not_a_token() -> InvalidRequestError:
    return InvalidRequestError.of_field(
        "nextToken", "must be the nextToken of an earlier answer to the same request with the same filters"
    )
