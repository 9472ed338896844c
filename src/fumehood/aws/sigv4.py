"""Verification of Signature Version 4, in an Authorization header or in a presigned URL.

In two steps, so that nothing is read from a caller who cannot be right: `begin` checks all that needs no body, and the
signature itself if the payload's hash is in the request's head; `Pending.finish` checks it once the body was hashed.

Source of the algorithm: "Signature Version 4 signing process" in AWS's general reference; of the canonical path
(encoded again, dot and empty segments removed), which only S3 does otherwise: botocore's `SigV4Auth`. Of S3's own forms
(the path encoded once, bodies in signed chunks): the S3 API reference, "Authenticating requests".
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fumehood.aws.rest_json import parse_query
from fumehood.aws.wire_errors import (
    IncompleteSignatureError,
    InvalidSignatureError,
    MissingAuthenticationError,
    UnrecognizedClientError,
)
from fumehood.calls import KeyRecord, Principal

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "bedrock-agentcore"
TERMINATOR = "aws4_request"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
PRESIGNED_EXPIRY_MAX_SECONDS = 7 * 86_400
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]++(?:;[!#$%&'*+.^_`|~0-9a-z-]++)*+")
_AUTHORIZATION_PARTS = frozenset({"Credential", "SignedHeaders", "Signature"})
_PRESIGNED_MARKS = frozenset({b"X-Amz-Algorithm", b"X-Amz-Signature"})
# Proxies write this one, and clients leave it out of their signatures; it decides nothing.
_NEVER_SIGNED = frozenset({"x-amzn-trace-id"})
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_UNRECOGNIZED = "The security token included in the request is invalid."

FindKey = Callable[[str], KeyRecord | None]


@dataclass(frozen=True)
class Scheme:
    """What differs between services in what is signed."""

    service: str
    canonical_path: Callable[[bytes], str]
    """The path as it is signed, from the path as it came."""
    payloads: frozenset[str] = frozenset({UNSIGNED_PAYLOAD})
    """What may stand in place of the body's hash."""
    presigned_payload: str | None = None
    """What stands there in a presigned URL that says nothing."""


def _path_again(raw_path: bytes) -> str:
    return quote_from_bytes(normalise_path(raw_path), safe="/~")


def _path_once(raw_path: bytes) -> str:
    return quote_from_bytes(unquote_to_bytes(raw_path), safe="/-_.~")


AGENTCORE = Scheme(SERVICE, _path_again)
S3 = Scheme(
    "s3",
    _path_once,
    frozenset({UNSIGNED_PAYLOAD, SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER}),
    UNSIGNED_PAYLOAD,
)


@dataclass(frozen=True)
class RequestHead:
    """The part of a request before its body, as it came. Header names are lower-case."""

    method: str
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[str, bytes]]

    @cached_property
    def by_name(self) -> dict[str, list[bytes]]:
        """Every value of each header, in order."""
        values: dict[str, list[bytes]] = {}
        for name, value in self.headers:
            values.setdefault(name, []).append(value)
        return values

    def values(self, name: str) -> list[bytes]:
        """Every value that the header `name` was sent with."""
        return self.by_name.get(name, [])


@dataclass(frozen=True)
class Pending:
    """A request whose key, date and scope are good. `verified` says whether its signature is, too.

    `payload_sha256` is the hash that the head promised for the body: hex, or UNSIGNED-PAYLOAD, or None if it promised
    nothing and the body's own hash goes into the signature.
    """

    principal: Principal
    payload_sha256: str | None
    verified: bool
    _signing_key: bytes = field(repr=False)
    _signature: str = field(repr=False)
    _string_to_sign_head: str
    _canonical_request_head: bytes

    def finish(self, body_sha256: str) -> Principal:
        """Check the body against the signature; `body_sha256` is its hash in lower-case hex.

        Raises:
            InvalidSignatureError: the body or the signature is not what was signed.
        """
        if self.verified:
            promised = self.payload_sha256
            if promised != UNSIGNED_PAYLOAD and not hmac.compare_digest(str(promised), body_sha256):
                raise InvalidSignatureError("The body does not have the hash that x-amz-content-sha256 gives.")
        else:
            self.verify(body_sha256)
        return self.principal

    def chunks(self) -> "ChunkSignatures":
        """The signatures of the chunks that the body comes in, which follow the request's own."""
        assert self.verified
        return ChunkSignatures(self._signing_key, self._string_to_sign_head.partition("\n")[2], self._signature)

    def verify(self, payload_sha256: str) -> None:
        """Check the signature, given the payload's hash as it was signed.

        Raises:
            InvalidSignatureError: it does not match.
        """
        request_sha256 = hashlib.sha256(self._canonical_request_head + payload_sha256.encode()).hexdigest()
        string_to_sign = self._string_to_sign_head + request_sha256
        expected = hmac.new(self._signing_key, string_to_sign.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, self._signature):
            raise InvalidSignatureError(_MISMATCH)


class ChunkSignatures:
    """Each chunk's signature covers the one before it, the first one's the request's; so does the trailer's."""

    def __init__(self, signing_key: bytes, date_and_scope: str, seed: str) -> None:
        self._signing_key = signing_key
        self._date_and_scope = date_and_scope
        self._previous = seed

    def check_data(self, data_sha256: str, signature: str) -> None:
        """Check the next chunk. InvalidSignatureError if its signature does not match."""
        self._check("PAYLOAD", f"{EMPTY_SHA256}\n{data_sha256}", signature)

    def check_trailer(self, headers: bytes, signature: str) -> None:
        """Check the trailer, lines `name:value` that each end in a line feed. Errors as of `check_data`."""
        self._check("TRAILER", hashlib.sha256(headers).hexdigest(), signature)

    def _check(self, what: str, signed: str, signature: str) -> None:
        text = f"{ALGORITHM}-{what}\n{self._date_and_scope}{self._previous}\n{signed}"
        expected = hmac.new(self._signing_key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise InvalidSignatureError(_MISMATCH)
        self._previous = expected


@dataclass(frozen=True)
class _Claim:
    """What a request says of its signature, in either form."""

    access_key_id: str
    scope_date: str
    scope_region: str
    scope_service: str
    scope_terminator: str
    date: datetime
    date_text: str
    """`date` in the form YYYYMMDD'T'HHMMSS'Z'."""
    expires_seconds: int | None
    """None in the header form."""
    signed_headers: tuple[str, ...]
    signature: str
    session_token: str | None = field(repr=False)
    payload_sha256: str | None
    canonical_query: bytes


def begin(
    head: RequestHead,
    find_key: FindKey,
    region: str,
    clock_skew_seconds: int,
    now: datetime,
    scheme: Scheme = AGENTCORE,
) -> Pending:
    """Check everything about a request's signature that needs no body.

    Raises:
        MissingAuthenticationError: there is no signature.
        IncompleteSignatureError: it is not of the form, or given twice.
        UnrecognizedClientError: the key is unknown, or the session token is not the key's.
        InvalidSignatureError: date, expiry, scope or the set of signed headers is wrong; or the signature is, where it
            can be told without the body.
    """
    claim = _claim(head, scheme)
    _check_date(claim, clock_skew_seconds, now)
    _check_scope(claim, region, scheme.service)
    _check_signed_headers(claim, head)
    record = _check_key(claim, find_key)
    scope = f"{claim.scope_date}/{region}/{scheme.service}/{TERMINATOR}"
    pending = Pending(
        principal=record.principal,
        payload_sha256=claim.payload_sha256,
        verified=claim.payload_sha256 is not None,
        _signing_key=_signing_key(record.secret_access_key, claim.scope_date, region, scheme.service),
        _signature=claim.signature,
        _string_to_sign_head=f"{ALGORITHM}\n{claim.date_text}\n{scope}\n",
        _canonical_request_head=_canonical_request_head(claim, head, scheme),
    )
    if claim.payload_sha256 is not None:
        pending.verify(claim.payload_sha256)
    return pending


def normalise_path(raw_path: bytes) -> bytes:
    """The path without empty, `.` and `..` segments, still percent-encoded: what a signature covers, so what counts."""
    kept: list[bytes] = []
    for segment in raw_path.split(b"/"):
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    end = b"/" if kept and raw_path.endswith(b"/") else b""
    return b"/" + b"/".join(kept) + end


def _claim(head: RequestHead, scheme: Scheme) -> _Claim:
    authorization = head.values("authorization")
    query = parse_query(head.query)
    presigned = any(name in _PRESIGNED_MARKS for name, _ in query)
    if presigned and authorization:
        raise IncompleteSignatureError(
            "Sign a request either with an Authorization header or in its URL, not both ways."
        )
    if presigned:
        return _presigned_claim(head, query, scheme)
    if not authorization:
        raise MissingAuthenticationError("Missing Authentication Token")
    return _header_claim(head, _single(authorization, "Authorization"), query, scheme)


def _header_claim(head: RequestHead, authorization: str, query: list[tuple[bytes, bytes]], scheme: Scheme) -> _Claim:
    algorithm, _, rest = authorization.partition(" ")
    _check_algorithm(algorithm)
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _AUTHORIZATION_PARTS or name in parts:
            raise IncompleteSignatureError(
                "The Authorization header must have Credential, SignedHeaders and Signature, once each, between commas."
            )
        parts[name] = value
    for name in _AUTHORIZATION_PARTS - parts.keys():
        raise IncompleteSignatureError(f"Authorization header requires '{name}' parameter.")
    return _make_claim(
        credential=parts["Credential"],
        date=_header_date(head),
        expires_seconds=None,
        signed_headers=parts["SignedHeaders"],
        signature=parts["Signature"],
        session_token=_optional_header(head, "x-amz-security-token"),
        payload_sha256=_payload(_optional_header(head, "x-amz-content-sha256"), scheme),
        canonical_query=_canonical_query(query),
    )


def _presigned_claim(head: RequestHead, query: list[tuple[bytes, bytes]], scheme: Scheme) -> _Claim:
    def parameter(name: str) -> str:
        value = optional_parameter(name)
        if value is None:
            raise IncompleteSignatureError(f"AWS query-string parameters must include '{name}'.")
        return value

    def optional_parameter(name: str) -> str | None:
        values = [value for key, value in query if key == name.encode()]
        return _single(values, name) if values else None

    _check_algorithm(parameter("X-Amz-Algorithm"))
    hash_header = _optional_header(head, "x-amz-content-sha256")
    hash_parameter = optional_parameter("X-Amz-Content-Sha256")
    if hash_header is not None and hash_parameter is not None:
        raise IncompleteSignatureError("X-Amz-Content-Sha256 must be given in the URL or as a header, not both.")
    if head.values("x-amz-security-token"):
        raise IncompleteSignatureError("A presigned request's session token must be in its URL: X-Amz-Security-Token.")
    return _make_claim(
        credential=parameter("X-Amz-Credential"),
        date=_parse_date(parameter("X-Amz-Date")),
        expires_seconds=_parse_expires(parameter("X-Amz-Expires")),
        signed_headers=parameter("X-Amz-SignedHeaders"),
        signature=parameter("X-Amz-Signature"),
        session_token=optional_parameter("X-Amz-Security-Token"),
        payload_sha256=_payload(
            hash_header if hash_parameter is None else hash_parameter, scheme, scheme.presigned_payload
        ),
        canonical_query=_canonical_query([pair for pair in query if pair[0] != b"X-Amz-Signature"]),
    )


def _make_claim(
    *,
    credential: str,
    date: datetime,
    expires_seconds: int | None,
    signed_headers: str,
    signature: str,
    session_token: str | None,
    payload_sha256: str | None,
    canonical_query: bytes,
) -> _Claim:
    scope = credential.split("/")
    if len(scope) != 5 or not scope[0]:
        raise IncompleteSignatureError(
            "Credential must be of the form <access key id>/<date>/<region>/<service>/aws4_request."
        )
    if not _SHA256.fullmatch(signature):
        raise IncompleteSignatureError("Signature must be 64 hexadecimal digits in lower case.")
    return _Claim(
        access_key_id=scope[0],
        scope_date=scope[1],
        scope_region=scope[2],
        scope_service=scope[3],
        scope_terminator=scope[4],
        date=date,
        date_text=(f"{date.year:04}{date.month:02}{date.day:02}T{date.hour:02}{date.minute:02}{date.second:02}Z"),
        expires_seconds=expires_seconds,
        signed_headers=tuple(signed_headers.split(";")),
        signature=signature,
        session_token=session_token,
        payload_sha256=payload_sha256,
        canonical_query=canonical_query,
    )


def _payload(given: str | None, scheme: Scheme, default: str | None = None) -> str | None:
    if given is None:
        return default
    if given not in scheme.payloads and not _SHA256.fullmatch(given):
        others = ", or ".join(sorted(scheme.payloads))
        raise IncompleteSignatureError(
            f"x-amz-content-sha256 must be the body's SHA-256 in lower-case hexadecimal, or {others}."
        )
    return given


def _single(values: Sequence[bytes], name: str) -> str:
    if len(values) != 1:
        raise IncompleteSignatureError(f"{name} must be given once.")
    try:
        return values[0].decode("ascii").strip()
    except UnicodeDecodeError:
        raise IncompleteSignatureError(f"{name} must be ASCII.") from None


def _optional_header(head: RequestHead, name: str) -> str | None:
    values = head.values(name)
    return _single(values, name) if values else None


def _check_algorithm(algorithm: str) -> None:
    if algorithm != ALGORITHM:
        raise IncompleteSignatureError(f"The signature's algorithm must be {ALGORITHM}.")


def _header_date(head: RequestHead) -> datetime:
    amz_date = _optional_header(head, "x-amz-date")
    if amz_date is not None:
        return _parse_date(amz_date)
    date = _optional_header(head, "date")
    if date is None:
        raise IncompleteSignatureError(
            "Authorization header requires existence of either a 'X-Amz-Date' or 'Date' header."
        )
    if _DATE.fullmatch(date):
        return _parse_date(date)
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except (ValueError, OverflowError):
        raise IncompleteSignatureError(
            "Date must be a date of RFC 1123, or of the form YYYYMMDD'T'HHMMSS'Z'."
        ) from None


def _parse_date(text: str) -> datetime:
    if _DATE.fullmatch(text):
        try:
            # strptime would take longer than all the rest of the parsing.
            year, month, day, hour = int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[9:11])
            return datetime(year, month, day, hour, int(text[11:13]), int(text[13:15]), tzinfo=UTC)
        except ValueError:
            pass
    raise IncompleteSignatureError("Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z', in UTC.")


def _parse_expires(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", text) and 1 <= int(text) <= PRESIGNED_EXPIRY_MAX_SECONDS:
        return int(text)
    raise IncompleteSignatureError(f"X-Amz-Expires must be a number from 1 to {PRESIGNED_EXPIRY_MAX_SECONDS} (a week).")


def _check_date(claim: _Claim, clock_skew_seconds: int, now: datetime) -> None:
    skew = timedelta(seconds=clock_skew_seconds)
    if claim.date > now + skew:
        raise InvalidSignatureError(
            f"Signature not yet current: {claim.date:{_DATE_FORMAT}} is still later than {now + skew:{_DATE_FORMAT}} "
            f"({now:{_DATE_FORMAT}} + {clock_skew_seconds} s)"
        )
    validity = skew if claim.expires_seconds is None else timedelta(seconds=claim.expires_seconds)
    if claim.date < now - validity:
        raise InvalidSignatureError(
            f"Signature expired: {claim.date:{_DATE_FORMAT}} is now earlier than {now - validity:{_DATE_FORMAT}} "
            f"({now:{_DATE_FORMAT}} - {int(validity.total_seconds())} s)"
        )
    if claim.date_text[:8] != claim.scope_date:
        raise InvalidSignatureError(
            f"Date in Credential scope does not match {claim.date:%Y%m%d}, the date of the request."
        )


def _check_scope(claim: _Claim, region: str, service: str) -> None:
    if claim.scope_region != region:
        raise InvalidSignatureError(f"Credential should be scoped to a valid region, this server's: '{region}'.")
    if claim.scope_service != service:
        raise InvalidSignatureError(f"Credential should be scoped to correct service: '{service}'.")
    if claim.scope_terminator != TERMINATOR:
        raise InvalidSignatureError(f"Credential should be scoped with a valid terminator: '{TERMINATOR}'.")


def _check_signed_headers(claim: _Claim, head: RequestHead) -> None:
    signed = claim.signed_headers
    if list(signed) != sorted(set(signed)) or not _HEADER_NAMES.fullmatch(";".join(signed)):
        raise IncompleteSignatureError("SignedHeaders must be lower-case header names, sorted, once each, between ';'.")
    given = head.by_name
    must_be_signed = {name for name in given if name.startswith(("x-amz-", "x-amzn-"))} - _NEVER_SIGNED | {"host"}
    if claim.expires_seconds is None and "x-amz-date" not in given:
        must_be_signed.add("date")
    for name in sorted(must_be_signed.difference(signed)):
        raise InvalidSignatureError(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in signed:
        # A header sent twice could be read one way here and another way by whoever uses it.
        if len(given.get(name, ())) != 1:
            raise InvalidSignatureError(f"The signed header '{name}' must be in the request once.")


def _check_key(claim: _Claim, find_key: FindKey) -> KeyRecord:
    record = find_key(claim.access_key_id)
    if record is None:
        raise UnrecognizedClientError(_UNRECOGNIZED)
    wanted, given = record.session_token or "", claim.session_token or ""
    if not hmac.compare_digest(wanted.encode(), given.encode()):
        raise UnrecognizedClientError(_UNRECOGNIZED)
    return record


# Deriving a key is four hashes, and it changes once a day. Only keys that exist, with a date near now, get this far, so
# the cache cannot be filled with rubbish. The secret is part of the cache's key: one that was replaced is not found.
@lru_cache(maxsize=1024)
def _signing_key(secret_access_key: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical_request_head(claim: _Claim, head: RequestHead, scheme: Scheme) -> bytes:
    """The canonical request up to the payload's hash."""
    values = head.by_name
    lines = [
        head.method.encode(),
        scheme.canonical_path(head.raw_path).encode(),
        claim.canonical_query,
        *[name.encode() + b":" + b" ".join(values[name][0].split()) for name in claim.signed_headers],
        b"",
        ";".join(claim.signed_headers).encode(),
        b"",
    ]
    return b"\n".join(lines)


def _canonical_query(pairs: list[tuple[bytes, bytes]]) -> bytes:
    encoded = [(quote_from_bytes(name, safe="-_.~"), quote_from_bytes(value, safe="-_.~")) for name, value in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded)).encode()
