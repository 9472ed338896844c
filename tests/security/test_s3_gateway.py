# ruff: noqa: E501 - one line for each attempt.
"""What hostile code in a sandbox tries with its S3 door: one row for each attempt, beside one that must succeed.

Whoever attacks holds the session's keys, so all of it is signed as well as it can be, unless a row says otherwise.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.s3_roles import prefix_policy, printed, server_with_roles, session_with_role, stdout
from tests.security import s3_attacks
from tests.service import Service, Session

GET = "ask('GET', '/work/mine/there')"
PUT = "ask('PUT', '/work/mine/new', body=b'new')"
LIST = "ask('GET', '/work?list-type=2&prefix=mine%2F')"
COPY = "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/mine/there'})"
CHUNKS = "put_chunked('/work/mine/new', b'hello world')"
TRAILER = "put_trailer('/work/mine/new', b'hello world')"
PRESIGNED = "fetch('GET', presigned('GET', '/work/mine/there'))"
CREDENTIALS = "(200, bool(keys().secret))"


class Attempt(NamedTuple):
    """What is tried, how that must end, and what differs from it only in being allowed."""

    what: str
    tried: str
    ends: tuple[int, str]
    control: str


DENIED = (403, "AccessDenied")
ATTEMPTS = [
    # Beyond the role
    Attempt("another prefix", "ask('GET', '/work/theirs/kept')", DENIED, GET),
    Attempt("another bucket", "ask('GET', '/secret/kept')", DENIED, GET),
    Attempt("a prefix that begins alike", "ask('GET', '/work/mine2/x')", DENIED, GET),
    Attempt("write to another prefix", "ask('PUT', '/work/theirs/new', body=b'x')", DENIED, PUT),
    Attempt("delete in another prefix", "ask('DELETE', '/work/theirs/kept')", DENIED, PUT),
    Attempt("list without prefix", "ask('GET', '/work?list-type=2')", DENIED, LIST),
    Attempt("list with an empty prefix", "ask('GET', '/work?list-type=2&prefix=')", DENIED, LIST),
    Attempt("list without prefix, the old way", "ask('GET', '/work')", DENIED, LIST),
    Attempt("list with a wider prefix", "ask('GET', '/work?list-type=2&prefix=m')", DENIED, LIST),
    Attempt("list with the prefix twice", "ask('GET', '/work?list-type=2&prefix=mine%2F&prefix=theirs%2F')", (400, "InvalidArgument"), LIST),
    Attempt("list all buckets", "ask('GET', '/')", DENIED, LIST),
    Attempt("list uploads of a bucket", "ask('GET', '/work?uploads')", DENIED, LIST),
    Attempt("ask whether a foreign key exists", "ask('HEAD', '/work/theirs/kept')", (403, ""), "ask('HEAD', '/work/mine/there')"),
    Attempt("ask whether a foreign bucket exists", "ask('HEAD', '/secret')", (403, ""), "ask('HEAD', '/work/mine/there')"),
    Attempt("another version of a key", "ask('GET', '/work/mine/there?versionId=1')", DENIED, GET),
    # Paths
    Attempt("climb by ..", "ask('GET', '/work/mine/../theirs/kept')", DENIED, GET),
    Attempt("climb by encoded dots", "ask('GET', '/work/mine/%2e%2e/theirs/kept')", DENIED, GET),
    Attempt("climb by an encoded slash", "ask('GET', '/work/mine%2F..%2Ftheirs%2Fkept')", DENIED, GET),
    Attempt("climb by a backslash", "ask('GET', '/work/mine/..%5Ctheirs%5Ckept')", DENIED, GET),
    Attempt("climb out of the bucket", "ask('GET', '/work/mine/../../secret/kept')", DENIED, GET),
    Attempt("a part of one dot", "ask('GET', '/work/mine/./there')", DENIED, GET),
    Attempt("encoded twice", "ask('GET', '/work/mine/%252e%252e%252ftheirs%252fkept')", (404, "NoSuchKey"), GET),
    Attempt("the bucket's slash encoded", "ask('GET', '/work%2Fmine%2Fthere')", (400, "InvalidBucketName"), GET),
    Attempt("an empty bucket", "ask('GET', '//work/mine/there')", (400, "InvalidBucketName"), GET),
    Attempt("a NUL in the key", "ask('GET', '/work/mine/there%00/theirs')", DENIED, GET),
    Attempt("a key that is no UTF-8", "ask('GET', '/work/mine/%ff%fe')", (400, "InvalidURI"), GET),
    Attempt("a broken percent sign", "ask('GET', '/work/mine/%zz')", (400, "InvalidURI"), GET),
    Attempt("a key that is too long", "ask('GET', '/work/mine/' + 'x' * 1100)", (400, "KeyTooLongError"), GET),
    Attempt("a whole URL as target", "ask('GET', 'http://169.254.169.254/work/mine/there')", (400, "InvalidRequest"), GET),
    Attempt("a proxy's CONNECT", "raw(b'CONNECT 10.0.0.1:443 HTTP/1.1\\r\\nhost: 10.0.0.1:443\\r\\n\\r\\n')", (400, "InvalidRequest"), GET),
    # Hosts
    Attempt("a bucket in the host", "ask('GET', '/theirs/kept', host='work.127.0.0.1:4588')", (400, "InvalidRequest"), GET),
    Attempt("AWS's host", "ask('GET', '/mine/there', host='work.s3.amazonaws.com')", (400, "InvalidRequest"), GET),
    Attempt("the metadata service's host", "ask('GET', '/work/mine/there', host='169.254.169.254')", (400, "InvalidRequest"), GET),
    Attempt("two hosts", "ask('GET', '/work/mine/there', more=b'Host: secret\\r\\n')", (400, "InvalidRequest"), GET),
    Attempt("forwarded for another host", "ask('GET', '/work/theirs/kept', more=b'X-Forwarded-Host: work\\r\\n')", DENIED, GET),
    Attempt("another path by a header", "ask('GET', '/work/theirs/kept', more=b'X-Original-URL: /work/mine/there\\r\\n')", DENIED, GET),
    Attempt("another method by a header", "ask('DELETE', '/work/theirs/kept', more=b'X-HTTP-Method-Override: GET\\r\\n')", DENIED, GET),
    # Framing
    Attempt("two lengths", "ask('PUT', '/work/mine/new', body=b'new', more=b'Content-Length: 4\\r\\n')", (400, "InvalidRequest"), PUT),
    Attempt("a length and chunks", "ask('PUT', '/work/mine/new', body=b'3\\r\\nnew\\r\\n0\\r\\n\\r\\n', more=b'Transfer-Encoding: chunked\\r\\n')", (400, "InvalidRequest"), PUT),
    Attempt("an unknown coding", "ask('PUT', '/work/mine/new', body=b'', length='', more=b'Transfer-Encoding: xchunked\\r\\n')", (501, "InvalidRequest"), PUT),
    Attempt("a folded header", "ask('GET', '/work/mine/there', more=b'X-A: b\\r\\n c: d\\r\\n')", (400, "InvalidRequest"), GET),
    Attempt("a bare line feed", "ask('GET', '/work/mine/there', more=b'X-A: b\\nx-c: d\\r\\n')", (400, "InvalidRequest"), GET),
    Attempt("a space before the colon", "ask('GET', '/work/mine/there', more=b'Host : secret\\r\\n')", (400, "InvalidRequest"), GET),
    Attempt("a header of 20 KB", "ask('GET', '/work/mine/there', more=b'X-A: ' + b'a' * 20000 + b'\\r\\n')", (431, "InvalidRequest"), GET),
    Attempt("a thousand headers", "ask('GET', '/work/mine/there', more=b'A: b\\r\\n' * 1000)", (431, "InvalidRequest"), GET),
    Attempt("HTTP/1.0", "ask('GET', '/work/mine/there', version='HTTP/1.0')", (505, "InvalidRequest"), GET),
    Attempt("a second request in a body that must be empty", "ask('GET', '/work/mine/there', body=request('GET', '/work/theirs/kept'))", (400, "InvalidRequest"), GET),
    Attempt("a body with no length", "ask('PUT', '/work/mine/new', body=b'3\\r\\nnew\\r\\n0\\r\\n\\r\\n', length='Transfer-Encoding: chunked\\r\\n', payload='UNSIGNED-PAYLOAD')", (411, "MissingContentLength"), PUT),
    Attempt("more than 5 GiB announced", "ask('PUT', '/work/mine/new', length='content-length: 9999999999\\r\\n', payload='UNSIGNED-PAYLOAD')", (400, "EntityTooLarge"), PUT),
    # Copies
    Attempt("copy from another prefix", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/theirs/kept'})", DENIED, COPY),
    Attempt("copy from another bucket", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': 'secret/kept'})", DENIED, COPY),
    Attempt("copy to another prefix", "ask('PUT', '/work/theirs/new', {'x-amz-copy-source': '/work/mine/there'})", DENIED, COPY),
    Attempt("copy from a climbing source", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/mine/..%2Ftheirs/kept'})", DENIED, COPY),
    Attempt("copy from a wholly encoded source", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': 'work%2Ftheirs%2Fkept'})", DENIED, "ask('PUT', '/work/mine/new', {'x-amz-copy-source': 'work%2Fmine%2Fthere'})"),
    Attempt("copy from an access point", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': 'arn:aws:s3:us-east-1:1:accesspoint/a/object/k'})", DENIED, COPY),
    Attempt("copy with a source's query", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/mine/there?acl'})", (400, "InvalidArgument"), COPY),
    Attempt("copy a part from another prefix", "ask('PUT', '/work/mine/new?partNumber=1&uploadId=x', {'x-amz-copy-source': '/work/theirs/kept'})", DENIED, COPY),
    Attempt("two sources", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/mine/there'}, more=b'x-amz-copy-source: /secret/kept\\r\\n')", (403, "SignatureDoesNotMatch"), COPY),
    # Who else may read
    Attempt("a canned ACL", "ask('PUT', '/work/mine/new', {'x-amz-acl': 'public-read'}, b'new')", DENIED, PUT),
    Attempt("a grant", "ask('PUT', '/work/mine/new', {'x-amz-grant-read': 'uri=http://acs.amazonaws.com/groups/global/AllUsers'}, b'new')", DENIED, PUT),
    Attempt("a grant while copying", "ask('PUT', '/work/mine/new', {'x-amz-copy-source': '/work/mine/there', 'x-amz-grant-full-control': 'id=1'})", DENIED, COPY),
    Attempt("somebody's encryption key", "ask('PUT', '/work/mine/new', {'x-amz-server-side-encryption': 'aws:kms', 'x-amz-server-side-encryption-aws-kms-key-id': 'k'}, b'new')", DENIED, PUT),
    Attempt("an encryption key of one's own", "ask('PUT', '/work/mine/new', {'x-amz-server-side-encryption-customer-algorithm': 'AES256'}, b'new')", DENIED, PUT),
    Attempt("a redirect as metadata", "ask('PUT', '/work/mine/new', {'x-amz-website-redirect-location': 'http://evil'}, b'new')", DENIED, PUT),
    Attempt("tags, which are another permission", "ask('PUT', '/work/mine/new', {'x-amz-tagging': 'a=b'}, b'new')", DENIED, PUT),
    Attempt("a legal hold", "ask('PUT', '/work/mine/new', {'x-amz-object-lock-legal-hold': 'ON'}, b'new')", DENIED, PUT),
    Attempt("a header that nobody knows", "ask('PUT', '/work/mine/new', {'x-amz-new-thing': '1'}, b'new')", DENIED, PUT),
    *(
        Attempt(f"an object's {name}", f"ask('{method}', '/work/mine/there?{name}', body=b'')", DENIED, GET)
        for method in ("GET", "PUT")
        for name in ("acl", "torrent", "retention", "legal-hold", "attributes")
    ),
    Attempt("restore", "ask('POST', '/work/mine/there?restore', body=b'<a/>')", DENIED, GET),
    Attempt("select", "ask('POST', '/work/mine/there?select&select-type=2', body=b'<a/>')", DENIED, GET),
    *(
        Attempt(f"a bucket's {name}", f"ask('{method}', '/work?{name}', body=b'')", DENIED, LIST)
        for method in ("GET", "PUT", "DELETE")
        for name in ("policy", "acl", "cors", "website", "lifecycle", "replication", "notification", "versioning", "logging", "encryption", "publicAccessBlock", "ownershipControls")
    ),
    Attempt("a new bucket", "ask('PUT', '/brand-new', body=b'')", DENIED, PUT),
    Attempt("the end of a bucket", "ask('DELETE', '/work')", DENIED, PUT),
    Attempt("a form's upload", "ask('POST', '/work', body=b'x')", DENIED, PUT),
    Attempt("versions", "ask('GET', '/work?versions&prefix=mine%2F')", DENIED, LIST),
    Attempt("an access point's ARN as bucket", "ask('GET', '/arn%3Aaws%3As3%3Aus-east-1%3A123456789012%3Aaccesspoint%2Fa/mine/there')", DENIED, GET),
    Attempt("an access point's alias as bucket", "ask('GET', '/mine-abcdefgh-s3alias/there')", DENIED, GET),
    Attempt("a directory bucket", "ask('GET', '/mine--use1-az4--x-s3/there')", DENIED, GET),
    Attempt("an address as bucket", "ask('GET', '/169.254.169.254/latest')", (400, "InvalidBucketName"), GET),
    Attempt("an OPTIONS request", "ask('OPTIONS', '/work/mine/there')", DENIED, GET),
    Attempt("another API of AWS", "ask('POST', '/', body=b'Action=GetCallerIdentity&Version=2011-06-15', service='sts')", (403, "SignatureDoesNotMatch"), GET),
    # Several keys
    Attempt("delete with conditions", "ask('POST', '/work?delete', body=b'<Delete><Object><Key>mine/new</Key><ETag>1</ETag></Object></Delete>')", (400, "InvalidArgument"), PUT),
    Attempt("delete with two keys in one", "ask('POST', '/work?delete', body=b'<Delete><Object><Key>mine/new</Key><Key>theirs/kept</Key></Object></Delete>')", (400, "MalformedXML"), PUT),
    Attempt("delete with entities", "ask('POST', '/work?delete', body=b'<!DOCTYPE d [<!ENTITY a \"mine/new\">]><Delete><Object><Key>&a;</Key></Object></Delete>')", (400, "MalformedXML"), PUT),
    Attempt("delete another body than was signed", "ask('POST', '/work?delete', body=b'<Delete><Object><Key>mine/new</Key></Object></Delete>', payload='0' * 64)", (400, "XAmzContentSHA256Mismatch"), PUT),
    # Signatures
    Attempt("no signature", "fetch('GET', '/work/mine/there')", DENIED, GET),
    Attempt("an unknown key", "ask('GET', '/work/mine/there', k=SimpleNamespace(id='ASIAAAAAAAAAAAAAAAAA', secret='s' * 40, token='t'))", (403, "InvalidAccessKeyId"), GET),
    Attempt("a wrong secret", "ask('GET', '/work/mine/there', k=SimpleNamespace(id=keys().id, secret='s' * 40, token=keys().token))", (403, "SignatureDoesNotMatch"), GET),
    Attempt("a wrong token", "ask('GET', '/work/mine/there', k=SimpleNamespace(id=keys().id, secret=keys().secret, token='t'))", (403, "InvalidAccessKeyId"), GET),
    Attempt("another region's scope", "ask('GET', '/work/mine/there', region='eu-west-1')", (403, "SignatureDoesNotMatch"), GET),
    Attempt("an unsigned x-amz header", "ask('PUT', '/work/mine/new', body=b'new', more=b'x-amz-meta-a: b\\r\\n')", (403, "SignatureDoesNotMatch"), PUT),
    Attempt("another body than was signed", "ask('PUT', '/work/mine/forged', body=b'new', payload='0' * 64)", (400, "XAmzContentSHA256Mismatch"), PUT),
    Attempt("no payload hash", "raw(request('GET', '/work/mine/there').replace(b'x-amz-content-sha256', b'y-amz-content-sha256'))", (400, "AuthorizationHeaderMalformed"), GET),
    Attempt("a forged first chunk", "put_chunked('/work/mine/forged', b'hello world', forge=1)", (403, "SignatureDoesNotMatch"), CHUNKS),
    Attempt("a forged middle chunk", "put_chunked('/work/mine/forged', b'hello world', forge=2)", (403, "SignatureDoesNotMatch"), CHUNKS),
    Attempt("a forged last chunk", "put_chunked('/work/mine/forged', b'hello world', forge=4)", (403, "SignatureDoesNotMatch"), CHUNKS),
    Attempt("more in chunks than announced", "put_chunked('/work/mine/forged', b'hello world', told=5)", (400, "IncompleteBody"), CHUNKS),
    Attempt("less in chunks than announced", "put_chunked('/work/mine/forged', b'hello world', told=50)", (400, "IncompleteBody"), CHUNKS),
    Attempt("a wrong trailing checksum", "put_trailer('/work/mine/forged', b'hello world', 'AAAAAA==')", (400, "BadDigest"), TRAILER),
    Attempt("a trailer that is no checksum", "put_trailer('/work/mine/forged', b'hello world', 'x', 'x-amz-acl')", (400, "InvalidArgument"), TRAILER),
    # Presigned URLs
    Attempt("presigned, of another bucket", "fetch('GET', presigned('GET', '/secret/kept'))", DENIED, PRESIGNED),
    Attempt("presigned, of another prefix", "fetch('GET', presigned('GET', '/work/theirs/kept'))", DENIED, PRESIGNED),
    Attempt("presigned by other keys", "fetch('GET', presigned('GET', '/work/mine/there', SimpleNamespace(id='AKIAFOREIGNFOREIGN00', secret='s' * 40, token='')))", (403, "InvalidAccessKeyId"), PRESIGNED),
    Attempt("presigned, for another method", "fetch('DELETE', presigned('GET', '/work/mine/there'))", (403, "SignatureDoesNotMatch"), PRESIGNED),
    Attempt("presigned, for another key", "fetch('GET', presigned('GET', '/work/mine/new').replace('mine/new', 'mine/there'))", (403, "SignatureDoesNotMatch"), PRESIGNED),
    Attempt("presigned, long ago", "fetch('GET', presigned('GET', '/work/mine/there', **{'X-Amz-Date': '20200101T000000Z'}))", (403, "RequestTimeTooSkewed"), PRESIGNED),
    Attempt("presigned, for ever", "fetch('GET', presigned('GET', '/work/mine/there', **{'X-Amz-Expires': '99999999'}))", (400, "AuthorizationHeaderMalformed"), PRESIGNED),
    Attempt("presigned, with a parameter added", "fetch('GET', presigned('GET', '/work/mine/there') + '&response-content-type=a')", (403, "SignatureDoesNotMatch"), PRESIGNED),
    Attempt("presigned, and signed as well", "raw(request('GET', presigned('GET', '/work/mine/there')))", (400, "AuthorizationHeaderMalformed"), PRESIGNED),
    # The keys' own endpoint
    Attempt("credentials without the token", "fetch('GET', '/_fumehood/credentials')", DENIED, CREDENTIALS),
    Attempt("credentials with a wrong token", "raw(b'GET /_fumehood/credentials HTTP/1.1\\r\\nhost: 127.0.0.1:4588\\r\\nauthorization: x\\r\\n\\r\\n')", DENIED, CREDENTIALS),
    Attempt("credentials by another host's name", "fetch('GET', '/_fumehood/credentials', host='evil')", DENIED, CREDENTIALS),
    Attempt("the metadata service's path", "fetch('GET', '/latest/meta-data/iam/security-credentials/')", DENIED, CREDENTIALS),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with two roles, each for a prefix of its own, and objects that neither may see."""
    policies = {"mine": [prefix_policy("work", "mine")], "theirs": [prefix_policy("work", "theirs")]}
    data = tmp_path_factory.mktemp("s3") / "data"
    with server_with_roles(data, policies) as running:
        buckets = data / "s3" / "buckets"
        for name in ("work/mine/there", "work/theirs/kept", "secret/kept"):
            (buckets / name).parent.mkdir(exist_ok=True)
            (buckets / name).write_text(name)
        yield running


def _armed(server: Service, role: str | None, name: str = "") -> Session:
    session = session_with_role(server, role, name)
    assert not session.run(inspect.getsource(s3_attacks))["isError"]
    return session


@pytest.fixture(scope="module")
def inside(server: Service) -> Iterator[Session]:
    """A session with the first role, in which requests can be made by hand."""
    session = _armed(server, "mine")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def neighbour(server: Service) -> Iterator[Session]:
    """Another session with the same role."""
    session = _armed(server, "mine", "neighbour")
    yield session
    session.stop()


def _try(session: Session, code: str) -> tuple[int, str]:
    status, told = json.loads(printed(session, f"print(json.dumps({code}))"))
    return status, told


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.what)
def test_attempt(inside: Session, server: Service, attempt: Attempt) -> None:
    assert _try(inside, attempt.tried) == attempt.ends
    status, told = _try(inside, attempt.control)
    assert status == 200, told
    buckets = server.data / "s3" / "buckets"
    assert (buckets / "work/theirs/kept").read_text() == "work/theirs/kept"
    assert not (buckets / "work/theirs/new").exists()
    assert not (buckets / "work/mine/forged").exists()
    assert not (buckets / "brand-new").exists()


def test_several_keys_are_deleted_only_where_each_may_be(inside: Session, server: Service) -> None:
    buckets = server.data / "s3" / "buckets"
    assert _try(inside, "ask('PUT', '/work/mine/gone', body=b'x')")[0] == 200
    assert (buckets / "work/mine/gone").exists()
    told = printed(
        inside,
        "import boto3\n"
        "keys_ = ['mine/gone', 'theirs/kept', 'mine/../theirs/kept']\n"
        "answer = boto3.client('s3').delete_objects(Bucket='work', Delete={'Objects': [{'Key': k} for k in keys_]})\n"
        "print(json.dumps([[d['Key'] for d in answer['Deleted']], [[e['Key'], e['Code']] for e in answer['Errors']]]))",
    )
    denied = [["theirs/kept", "AccessDenied"], ["mine/../theirs/kept", "AccessDenied"]]
    assert json.loads(told) == [["mine/gone"], denied]
    assert not (buckets / "work/mine/gone").exists()
    assert (buckets / "work/theirs/kept").exists()


def _keys_of(session: Session) -> dict[str, str]:
    return json.loads(printed(session, "print(json.dumps(vars(keys())))"))


def test_keys_are_of_no_use_in_another_session(inside: Session, neighbour: Session) -> None:
    stolen = _keys_of(inside)
    attempt = f"ask('GET', '/work/mine/there', k=SimpleNamespace(**{stolen!r}))"
    assert _try(neighbour, attempt) == (403, "InvalidAccessKeyId")
    assert _try(neighbour, GET)[0] == 200
    assert _try(inside, attempt)[0] == 200, "they are good where they are from"


def test_a_presigned_url_is_of_no_use_in_another_session(inside: Session, neighbour: Session) -> None:
    target = printed(inside, "print(presigned('GET', '/work/mine/there'))").strip()
    assert _try(neighbour, f"fetch('GET', {target!r})") == (403, "InvalidAccessKeyId")
    assert _try(inside, f"fetch('GET', {target!r})")[0] == 200


def test_keys_are_of_no_use_outside(inside: Session, server: Service) -> None:
    stolen = _keys_of(inside)
    planes: dict[str, Any] = {
        "endpoint_url": server.url,
        "region_name": "us-east-1",
        "aws_access_key_id": stolen["id"],
        "aws_secret_access_key": stolen["secret"],
        "aws_session_token": stolen["token"],
    }
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        boto3.client("bedrock-agentcore-control", **planes).list_code_interpreters()
    with pytest.raises(EndpointConnectionError):
        once = Config(retries={"total_max_attempts": 1})
        boto3.client("s3", **planes | {"endpoint_url": "http://127.0.0.1:4588"}, config=once).list_buckets()
    assert server.client("bedrock-agentcore-control").list_code_interpreters()["codeInterpreterSummaries"]


def test_no_real_key_is_anywhere_inside(inside: Session, server: Service) -> None:
    real = json.loads((server.data / "s3" / "keys.json").read_text())
    found = stdout(inside, "cat /proc/*/environ /proc/*/cmdline /dev/fumehood/* 2>/dev/null | tr '\\0' '\\n'")
    handed_out = printed(
        inside, "print(open(os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE']).read(), vars(keys()))"
    )
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in found
    for secret in real.values():
        assert secret not in found + handed_out


def test_a_session_without_a_role_has_no_door(server: Service) -> None:
    session = session_with_role(server, None, "roleless")
    try:
        assert "AWS" not in stdout(session, "env")
        assert stdout(session, "ls -d /dev/fumehood || true") == ""
        refused = "import socket\ntry:\n  socket.create_connection(('127.0.0.1', 4588), 5)\n  print('open')\nexcept OSError as error:\n  print(error.errno)"
        assert printed(session, refused).strip() == "111"
    finally:
        session.stop()


def test_the_embedded_server_and_its_keys_are_roots_alone(server: Service, inside: Session) -> None:
    assert _try(inside, GET)[0] == 200
    folder = server.data / "s3"
    for path, mode in ((folder, 0o700), (folder / "keys.json", 0o600), (server.data / "session-key", 0o600)):
        assert path.stat().st_mode & 0o777 == mode, path
    process = _rclone(folder)
    secret = json.loads((folder / "keys.json").read_text())["secret_access_key"]
    assert secret not in (process / "cmdline").read_text()
    assert not _listens_on_tcp(process)


def _rclone(folder: Path) -> Path:
    """The /proc folder of the embedded server of a data folder."""
    (found,) = [
        process
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and str(folder / "buckets").encode() in _command(process)
    ]
    return found


def _command(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _listens_on_tcp(process: Path) -> bool:
    sockets = {str(link.readlink()) for link in (process / "fd").iterdir()}
    listening = [
        line.split() for table in ("tcp", "tcp6") for line in (process / "net" / table).read_text().splitlines()[1:]
    ]
    return any(fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets for fields in listening)
