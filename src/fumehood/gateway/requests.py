"""Requests to S3 out of sandboxes: each is verified, decided by the role's policies, and asked anew upstream."""

import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from fumehood import clock
from fumehood.aws.sigv4 import S3, Pending, RequestHead, begin
from fumehood.aws.wire_errors import AuthenticationError
from fumehood.calls import KeyRecord
from fumehood.errors import ThrottledError
from fumehood.gateway import key_lists, session_keys
from fumehood.gateway.bodies import Upload
from fumehood.gateway.credentials import RealCredentials
from fumehood.gateway.decisions import Permission, deletion, listing, needed
from fumehood.gateway.embedded import EmbeddedS3, RequireDisk
from fumehood.gateway.errors import S3Error, access_denied, invalid_argument, single_header, unauthenticated
from fumehood.gateway.http import Answer, Body, Connection
from fumehood.gateway.inside import CREDENTIALS_PATH, HOSTS
from fumehood.gateway.key_lists import Doomed, Failure
from fumehood.gateway.operations import GET_OBJECT, UPLOAD_PART, Operation, parse
from fumehood.gateway.place import place_of
from fumehood.gateway.role_session import RoleSession
from fumehood.gateway.upstream import Reply, Upstream, local_name, parse_xml, source_address, text_of, unexpected
from fumehood.identity.policy import Decision, PolicyRequest, decide
from fumehood.identity.roles import EmbeddedStore, Role
from fumehood.ids import new_ulid
from fumehood.sandbox.contract import GuestStream
from fumehood.settings import Settings

_XML = ("content-type", "application/xml")
_READS = frozenset({"GetObject", "HeadObject"})
_COPY_BYTES_MAX = 5 * 1024**3
"""The largest object that one request may copy."""
_MISSING = frozenset({"NoSuchKey", "NotFound"})
Context = dict[str, tuple[str, ...]]
log = structlog.get_logger()


@dataclass(frozen=True)
class Places:
    """Where S3 is: for roles whose credentials are those of fumehood's own, and for all others."""

    embedded: Upstream
    other: Upstream

    def of(self, role: Role) -> Upstream:
        """Where requests of a role go."""
        return self.embedded if isinstance(role.credentials, EmbeddedStore) else self.other

    async def close(self) -> None:
        """Let go of all connections."""
        await self.embedded.close()
        await self.other.close()


@dataclass(frozen=True)
class _Use:
    """A role as one request uses it."""

    session: RoleSession
    role: Role
    context: Context

    def allows(self, permission: Permission) -> Decision:
        """What the role's policies say."""
        context = {**self.context, **permission.context}
        return decide(self.role.policies, PolicyRequest(permission.action, permission.resource, context))

    def require(self, permission: Permission) -> None:
        """S3Error AccessDenied, in AWS's words, unless the role's policies allow it."""
        decision = self.allows(permission)
        if decision is Decision.ALLOW:
            return
        why = (
            "with an explicit deny in an identity-based policy"
            if decision is Decision.EXPLICIT_DENY
            else f"because no identity-based policy allows the {permission.action} action"
        )
        who = f"arn:aws:sts::{self.role.account_id}:assumed-role/{self.role.name}/{self.session.session_id}"
        raise access_denied(
            f'User: {who} is not authorized to perform: {permission.action} on resource: "{permission.resource}" {why}'
        )


class Requests:
    """Answers requests of all sessions."""

    def __init__(
        self,
        find_role: Callable[[str], Role | None],
        credentials: RealCredentials,
        places: Places,
        installation_key: bytes,
        region: str,
        clock_skew_seconds: int,
        require_disk: RequireDisk,
    ) -> None:
        """`region` is where clients inside are told that they are, whatever the upstream's.

        `require_disk` is asked about all that is to be kept in fumehood's own S3.
        """
        self._find_role = find_role
        self._credentials = credentials
        self._places = places
        self._installation_key = installation_key
        self._region = region
        self._clock_skew_seconds = clock_skew_seconds
        self._require_disk = require_disk
        self._addresses: dict[Upstream, str] = {}

    async def serve(self, session: RoleSession, stream: GuestStream) -> None:
        """Answer the requests that come on one connection."""
        await Connection(stream, partial(self._answer, session, stream.asked.get("token"))).serve()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._places.close()

    async def _answer(self, session: RoleSession, token: object, head: RequestHead, body: Body) -> Answer:
        """The answer to one request; refusals are answers too. `token` is what the session's agent gives out."""
        request_id = new_ulid()
        operation: Operation | None = None
        try:
            if head.raw_path == CREDENTIALS_PATH:
                return self._hand_out(session, token, head)
            pending = self._verify(session, head)
            operation = parse(head, HOSTS)
            use = await self._use(session, head)
            for permission in needed(operation):
                use.require(permission)
            answer = await self._perform(use, operation, pending, head, body)
            error = None
        except S3Error as refused:
            error = refused
            resource = head.raw_path.decode("latin-1") if operation is None else operation.resource
            content = b"" if head.method == "HEAD" else refused.xml(resource, request_id)
            answer = Answer(refused.status, [_XML], content)
        log.info(
            "s3",
            session_id=session.session_id,
            role=session.role_arn,
            operation=None if operation is None else operation.name,
            bucket=None if operation is None else operation.bucket,
            status=answer.status,
            error=None if error is None else error.code,
        )
        return Answer(answer.status, [*answer.headers, ("x-amz-request-id", request_id)], answer.body, answer.length)

    # Who asks

    def _keys(self, session: RoleSession) -> KeyRecord:
        return session_keys.keys_of(self._installation_key, session.session_id, session.account_id)

    def _hand_out(self, session: RoleSession, token: object, head: RequestHead) -> Answer:
        """The container-credentials endpoint. The token keeps out what can be made to fetch any URL."""
        given = single_header(head, "authorization")
        if head.values("host")[0] not in HOSTS or head.method != "GET":
            raise access_denied("Credentials are had by GET from this endpoint's own address.")
        if not isinstance(token, str) or given is None or not hmac.compare_digest(token.encode(), given.encode()):
            raise access_denied("Authorization must be the token in the file AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE.")
        content = json.dumps(session_keys.document(self._keys(session), session.role_arn, clock.now())).encode()
        return Answer(200, [("content-type", "application/json"), ("cache-control", "no-store")], content)

    def _verify(self, session: RoleSession, head: RequestHead) -> Pending:
        keys = self._keys(session)

        def find(access_key_id: str) -> KeyRecord | None:
            return keys if access_key_id == keys.principal.access_key_id else None

        try:
            pending = begin(head, find, self._region, self._clock_skew_seconds, clock.now(), S3)
        except AuthenticationError as error:
            raise unauthenticated(error) from None
        if not pending.verified:
            raise invalid_argument("x-amz-content-sha256 is missing: S3 needs it in every signed request.")
        return pending

    async def _use(self, session: RoleSession, head: RequestHead) -> _Use:
        role = self._find_role(session.role_arn)
        if role is None:
            raise access_denied(f"The execution role {session.role_arn} is not there any more.")
        upstream = self._places.of(role)
        if upstream not in self._addresses:
            try:
                self._addresses[upstream] = await source_address(upstream.place)
            except OSError:
                raise S3Error("ServiceUnavailable", 503, "The S3 behind this endpoint cannot be reached.") from None
        now = clock.now()
        context: Context = {
            "aws:CurrentTime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
            "aws:EpochTime": (str(int(now.timestamp())),),
            "aws:PrincipalAccount": (role.account_id,),
            "aws:PrincipalArn": (role.arn,),
            "aws:RequestedRegion": (upstream.place.region,),
            "aws:SecureTransport": ("true" if upstream.place.is_secure else "false",),
            "aws:SourceAccount": (session.account_id,),
            "aws:SourceArn": (session.interpreter_arn,),
            "aws:SourceIdentity": (session.started_by,),
            "aws:SourceIp": (self._addresses[upstream],),
        }
        if agent := single_header(head, "user-agent"):
            context["aws:UserAgent"] = (agent,)
        tags = {f"aws:PrincipalTag/{name}": (value,) for name, value in role.tags.items()}
        return _Use(session, role, {**context, **tags})

    # What is asked

    async def _perform(
        self, use: _Use, operation: Operation, pending: Pending, head: RequestHead, body: Body
    ) -> Answer:
        if operation.name == "GetBucketLocation":
            return Answer(200, [_XML], key_lists.write_location(self._region))
        upload = Upload(head, pending, body.pieces(), body.length)
        if operation.name == "DeleteObjects":
            return await self._delete(use, operation, await _small(upload))
        if operation.name == "CompleteMultipartUpload":
            return await self._whole(use, operation, key_lists.rewrite_parts(await _small(upload)))
        if operation.kind.has_body:
            return await self._store(use, operation, upload)
        await _nothing(upload)
        if operation.name == "UploadPartCopy" and not self._places.of(use.role).place.copies_parts:
            return await self._copy_part(use, operation)
        if operation.name == "GetObject":
            return await self._read(use, operation)
        return await self._whole(use, operation)

    async def _store(self, use: _Use, operation: Operation, upload: Upload) -> Answer:
        """PutObject and UploadPart: the body goes through as it comes."""
        pieces = self._kept(use, upload.pieces(), upload.length) if upload.length else b""
        if not upload.length:
            await _nothing(upload)
        async with self._ask(use, operation, pieces, upload.length) as reply:
            return Answer(reply.status, [*reply.headers.items()], await reply.read())

    async def _read(self, use: _Use, operation: Operation) -> Answer:
        """GetObject: the answer's body goes through as it comes."""
        stack = AsyncExitStack()
        try:
            reply = await stack.enter_async_context(self._ask(use, operation))
        except S3Error as error:
            raise self._hidden(use, operation, error) from None

        async def pieces() -> AsyncGenerator[bytes]:
            async with stack:
                async for piece in reply.pieces():
                    yield piece

        if reply.status == 304:
            await stack.aclose()
            return Answer(304, [*reply.headers.items()])
        return Answer(reply.status, [*reply.headers.items()], pieces(), reply.length)

    async def _copy_part(self, use: _Use, operation: Operation) -> Answer:
        """UploadPartCopy where upstream has none: the source is read, and goes back up as it comes."""
        reading, writing = _in_two(operation)
        async with self._ask(use, reading) as source:
            if source.length is None:
                raise unexpected("it does not say how long an object is")

            pieces = self._kept(use, source.pieces(), source.length)
            async with self._ask(use, writing, pieces, source.length) as reply:
                return Answer(200, [_XML], key_lists.write_copied(reply.headers.get("etag", ""), clock.now()))

    async def _whole(self, use: _Use, operation: Operation, body: bytes = b"") -> Answer:
        """An operation whose answer is short."""
        if operation.name == "CopyObject":
            # How much it is only upstream knows.
            self._require_room(use, _COPY_BYTES_MAX)
        try:
            async with self._ask(use, operation, body) as reply:
                content = await reply.read()
                if operation.kind.method == "HEAD":
                    headers = [*reply.headers.items()]
                    if operation.name == "HeadBucket":
                        headers.append(("x-amz-bucket-region", self._region))
                    return Answer(reply.status, headers, length=reply.length)
                if operation.name in ("CompleteMultipartUpload", "CopyObject", "UploadPartCopy"):
                    content = _late(operation, content)
                return Answer(reply.status, [*reply.headers.items()], content)
        except S3Error as error:
            raise self._hidden(use, operation, error) from None

    def _kept(self, use: _Use, pieces: AsyncIterator[bytes], length: int) -> AsyncGenerator[bytes]:
        """An object's bytes on their way. S3Error, now or on the way, if the disk has no room for them (any more)."""
        self._require_room(use, length)

        async def checked() -> AsyncGenerator[bytes]:
            async for piece in pieces:
                # Many may be under way: that each had room when it began says little of them all.
                self._require_room(use, len(piece))
                yield piece

        return checked()

    def _require_room(self, use: _Use, size_bytes: int) -> None:
        """S3Error if fumehood's own S3, on the disk of sessions and database, has no room for so much."""
        if isinstance(use.role.credentials, EmbeddedStore):
            try:
                self._require_disk(size_bytes, "The object")
            except ThrottledError as error:
                raise S3Error("InsufficientStorage", 507, error.message) from None

    def _hidden(self, use: _Use, operation: Operation, error: S3Error) -> S3Error:
        """As in S3, only who may list a bucket is told that it has no such key."""
        missing = error.status == 404 and (error.code in _MISSING or operation.kind.method == "HEAD")
        if operation.name in _READS and missing:
            try:
                use.require(listing(operation.bucket, operation.key))
            except S3Error as denied:
                return denied
        return error

    async def _delete(self, use: _Use, operation: Operation, body: bytes) -> Answer:
        """DeleteObjects: each key is decided by itself, and only those that may be deleted are named upstream."""
        doomed, quiet = key_lists.parse_deletion(body)
        allowed: list[Doomed] = []
        failures: list[Failure] = []
        for each in doomed:
            try:
                key_lists.check(operation.bucket, each)
                use.require(deletion(operation.bucket, each.key, each.version))
                allowed.append(each)
            except S3Error as error:
                failures.append(Failure(each, error.code, error.message))
        deleted: list[Doomed] = []
        if allowed:
            content, headers = key_lists.write_deletion(allowed)
            async with self._ask(use, operation, content, extra=headers) as reply:
                deleted, failed = key_lists.parse_deleted(await reply.read())
            failures += failed
        return Answer(200, [_XML], key_lists.write_deleted([] if quiet else deleted, failures))

    def _ask(
        self,
        use: _Use,
        operation: Operation,
        body: bytes | AsyncGenerator[bytes] = b"",
        length: int | None = None,
        extra: dict[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Reply]:
        credentials = partial(self._credentials.of, use.role, use.session.session_id)
        return self._places.of(use.role).ask(operation, credentials, body, length, extra)


def requests_of(
    settings: Settings,
    find_role: Callable[[str], Role | None],
    embedded: EmbeddedS3,
    installation_key: bytes,
    require_disk: RequireDisk,
) -> Requests:
    """The requests that the settings describe; those of roles with `EmbeddedStore` go to `embedded`."""
    return Requests(
        find_role,
        RealCredentials(embedded.credentials, settings.s3_region or settings.region),
        Places(Upstream(embedded.place()), Upstream(place_of(settings))),
        installation_key,
        settings.region,
        settings.clock_skew_seconds,
        require_disk,
    )


def _in_two(operation: Operation) -> tuple[Operation, Operation]:
    """A part's copy as a reading and a writing."""
    source = operation.source
    assert source is not None
    before = "x-amz-copy-source-"
    headers = {name.removeprefix(before): value for name, value in operation.headers.items()}
    version = {} if source.version is None else {"versionId": source.version}
    return (
        Operation(GET_OBJECT, source.bucket, source.key, version, headers),
        Operation(UPLOAD_PART, operation.bucket, operation.key, operation.parameters),
    )


async def _small(upload: Upload) -> bytes:
    """A body that is looked at. S3Error if it is too long for that."""
    if upload.length > key_lists.BODY_BYTES_MAX:
        raise S3Error("EntityTooLarge", 400, f"This body may have {key_lists.BODY_BYTES_MAX} bytes.")
    return b"".join([piece async for piece in upload.pieces()])


async def _nothing(upload: Upload) -> None:
    """Take in the end of a body that must be empty. S3Error."""
    if upload.length:
        raise S3Error("InvalidRequest", 400, "This operation has no body.")
    async for _ in upload.pieces():
        pass


def _late(operation: Operation, content: bytes) -> bytes:
    """An answer that S3 may begin before it knows whether it succeeds. S3Error if it did not."""
    root = parse_xml(content)
    if local_name(root) == "Error":
        raise S3Error(text_of(root, "Code") or "InternalError", 500, text_of(root, "Message") or "")
    if operation.name != "CompleteMultipartUpload":
        return content
    tag = text_of(root, "ETag")
    if tag is None:
        raise unexpected("it answers CompleteMultipartUpload without an ETag")
    return key_lists.write_completed(operation.bucket, operation.key, tag)
