"""Signatures: those that botocore, curl and the AWS SDK for JavaScript make are accepted, and nothing else is."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import node_clients
from dialect import (
    ALICE,
    ALICE_SECRET,
    FULL_PARAMETERS,
    INTERPRETER_ARN,
    KEYS,
    REGION,
    RESULT,
    SESSION_ID,
    SYSTEM_ARN,
    TEMP,
    TEMP_SECRET,
    TEMP_TOKEN,
    Echo,
)
from fumehood.aws.sigv4 import Pending, RequestHead, begin, normalise_path
from fumehood.aws.wire_errors import (
    AuthenticationError,
    IncompleteSignatureError,
    InvalidSignatureError,
    MissingAuthenticationError,
    UnrecognizedClientError,
)
from loopback import serving

URL = "http://localhost:8800"
PATH = f"/code-interpreters/{SYSTEM_ARN.replace(':', '%3A').replace('/', '%2F')}/tools/invoke"
BODY = b'{"name":"executeCode"}'
HEADERS = {"content-type": "application/json", "x-amzn-code-interpreter-session-id": SESSION_ID}
SKEW_SECONDS = 300
SERVICE = "bedrock-agentcore"


class Signed:
    """A request as it goes over the wire, signed by botocore; parts of it can be changed after that."""

    def __init__(
        self,
        *,
        method: str = "POST",
        target: str = PATH,
        body: bytes = BODY,
        headers: Mapping[str, str] = HEADERS,
        credentials: Credentials | None = None,
        region: str = REGION,
        service: str = SERVICE,
        expires: int | None = None,
    ) -> None:
        request = AWSRequest(method, URL + target, headers=dict(headers), data=body)
        who = credentials or Credentials(ALICE.access_key_id, ALICE_SECRET)
        if expires is None:
            SigV4Auth(who, service, region).add_auth(request)
        else:
            SigV4QueryAuth(who, service, region, expires).add_auth(request)
        parts = urlsplit(request.url)
        self.method = method
        self.path = parts.path
        self.query = parts.query
        self.body = body
        self.headers = [("host", parts.netloc), *((name.lower(), value) for name, value in request.headers.items())]

    def header(self, name: str) -> str:
        return dict(self.headers)[name]

    def set_header(self, name: str, value: str) -> None:
        self.headers = [(n, v) for n, v in self.headers if n != name] + [(name, value)]

    def drop_header(self, name: str) -> None:
        self.headers = [(n, v) for n, v in self.headers if n != name]

    def edit_authorization(self, old: str, new: str) -> None:
        assert old in self.header("authorization")
        self.set_header("authorization", self.header("authorization").replace(old, new))

    def edit_query(self, old: str, new: str) -> None:
        assert old in self.query
        self.query = self.query.replace(old, new)

    def head(self) -> RequestHead:
        headers = [(name, value.encode()) for name, value in self.headers]
        return RequestHead(self.method, self.path.encode(), self.query.encode(), headers)

    def begin(self, now: datetime | None = None) -> Pending:
        return begin(self.head(), KEYS.get, REGION, SKEW_SECONDS, now or datetime.now(UTC))

    def verify(self, now: datetime | None = None) -> Any:
        return self.begin(now).finish(hashlib.sha256(self.body).hexdigest())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TARGETS = [
    PATH,
    "/code-interpreters/aws.codeinterpreter.v1/sessions/get?sessionId=x",
    "/code-interpreters?maxResults=5&nextToken=a%2Bb%2F%3D&type=SYSTEM",
    f"/tags/{INTERPRETER_ARN.replace(':', '%3A').replace('/', '%2F')}?tagKeys=b&tagKeys=a%20c&tagKeys=B&tagKeys=%C3%BC",
    f"/tags/{INTERPRETER_ARN}",
    "/tags/x?a-b=1&a=2&a.b=3&empty=&novalue",
    "/",
    "/a//b/./c/../d/",
    "/fumehood/v1/sessions/x/files/with%20space/%25/~_-.txt",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_header_signature_of_botocore_is_accepted(method: str, target: str) -> None:
    assert Signed(method=method, target=target).verify() is ALICE


@pytest.mark.parametrize("target", TARGETS[:2] + TARGETS[4:5] + TARGETS[6:])
def test_presigned_url_of_botocore_is_accepted(target: str) -> None:
    assert Signed(method="GET", target=target, body=b"", headers={}, expires=60).verify() is ALICE


def test_key_with_a_session_token_is_accepted_with_its_token() -> None:
    credentials = Credentials(TEMP.access_key_id, TEMP_SECRET, TEMP_TOKEN)
    assert Signed(credentials=credentials).verify() is TEMP
    assert Signed(credentials=credentials, body=b"", headers={}, expires=60).verify() is TEMP


def test_signature_over_a_hash_in_the_head_is_verified_before_the_body() -> None:
    request = Signed(headers={**HEADERS, "x-amz-content-sha256": sha256(BODY)})
    assert request.begin().verified
    assert request.verify() is ALICE


def test_signature_without_a_hash_in_the_head_waits_for_the_body() -> None:
    assert not Signed().begin().verified


def test_unsigned_payload_is_accepted_with_any_body() -> None:
    request = Signed(headers={**HEADERS, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    request.body = b"another"
    assert request.verify() is ALICE


@pytest.mark.parametrize("place", ["header", "query"])
def test_presigned_url_with_unsigned_payload_is_accepted_with_any_body(place: str) -> None:
    if place == "header":
        request = Signed(method="PUT", body=b"", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, expires=60)
    else:
        # The signer hashes what this header says; the JavaScript presigner then moves the header into the query.
        request = presigned_with_hash_in_query("UNSIGNED-PAYLOAD")
    request.body = b"anything"
    assert request.begin().verified
    assert request.verify() is ALICE


def presigned_with_hash_in_query(payload_hash: str) -> Signed:
    class Signer(SigV4QueryAuth):
        def payload(self, _request: AWSRequest) -> str:
            return payload_hash

    request = Signed(body=b"", headers={}, expires=60)
    unsigned = AWSRequest("POST", f"{URL}{PATH}?X-Amz-Content-Sha256={payload_hash}")
    Signer(Credentials(ALICE.access_key_id, ALICE_SECRET), SERVICE, REGION, 60).add_auth(unsigned)
    request.query = urlsplit(unsigned.url).query
    return request


def test_header_values_are_trimmed_as_signers_do() -> None:
    request = Signed(headers={"x-amz-meta": "a b"})
    request.set_header("x-amz-meta", "  a    b ")
    assert request.verify() is ALICE


def test_date_header_serves_where_there_is_no_amz_date() -> None:
    assert date_signed(signed_headers="date;host").verify() is ALICE


def test_unsigned_date_header_is_refused() -> None:
    with pytest.raises(InvalidSignatureError, match="'date' must be a 'SignedHeader'"):
        date_signed(signed_headers="host").verify()


def date_signed(signed_headers: str) -> Signed:
    """A request signed with a Date header by the algorithm's own description; no SDK does that any more."""
    request = Signed(method="GET", target="/", body=b"", headers={})
    moment = datetime.now(UTC)
    request.headers = [("host", "localhost:8800"), ("date", moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))]
    lines = "".join(f"{name}:{request.header(name)}\n" for name in signed_headers.split(";"))
    canonical = f"GET\n/\n\n{lines}\n{signed_headers}\n{sha256(b'')}"
    signer = SigV4Auth(Credentials(ALICE.access_key_id, ALICE_SECRET), SERVICE, REGION)
    timed = AWSRequest("GET", URL)
    timed.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    signature = signer.signature(signer.string_to_sign(timed, canonical), timed)
    authorization = f"Credential={signer.scope(timed)}, SignedHeaders={signed_headers}, Signature={signature}"
    request.headers.append(("authorization", f"AWS4-HMAC-SHA256 {authorization}"))
    return request


def swap_method(request: Signed) -> None:
    request.method = "PUT"


def swap_path(request: Signed) -> None:
    request.path = request.path.replace("aws.codeinterpreter.v1", "aws.codeinterpreter.v2")


def decode_path(request: Signed) -> None:
    request.path = request.path.replace("%3A", ":")


def swap_body(request: Signed) -> None:
    request.body = request.body.replace(b"executeCode", b"removeFiles")


def add_query(request: Signed) -> None:
    request.query = "a=1"


def swap_host(request: Signed) -> None:
    request.set_header("host", "another:8800")


def swap_session(request: Signed) -> None:
    request.set_header("x-amzn-code-interpreter-session-id", SESSION_ID[::-1])


def swap_content_type(request: Signed) -> None:
    request.set_header("content-type", "text/plain")


def swap_signature(request: Signed) -> None:
    signature = request.header("authorization")[-64:]
    request.edit_authorization(signature, signature[::-1])


def drop_signed_header(request: Signed) -> None:
    request.drop_header("content-type")


@pytest.mark.parametrize(
    "tamper",
    [
        swap_method,
        swap_path,
        decode_path,
        swap_body,
        add_query,
        swap_host,
        swap_session,
        swap_content_type,
        swap_signature,
        drop_signed_header,
    ],
)
def test_request_changed_after_signing_is_refused(tamper: Callable[[Signed], None]) -> None:
    request = Signed()
    tamper(request)
    with pytest.raises(InvalidSignatureError):
        request.verify()


@pytest.mark.parametrize("query", ["a=1", "a=1&b=2&c=3", "a=2&b=1", "b=2", "", "a=1&b=%32%30", "a=1&b=2&b=2"])
def test_query_changed_after_signing_is_refused(query: str) -> None:
    request = Signed(target="/code-interpreters?a=1&b=2")
    request.query = query
    with pytest.raises(InvalidSignatureError):
        request.verify()


def test_reordered_query_is_the_same_request() -> None:
    request = Signed(target="/code-interpreters?a=1&b=2")
    request.query = "b=2&a=1"
    assert request.verify() is ALICE


def test_reordered_values_of_one_name_are_signed_as_a_set_of_pairs() -> None:
    request = Signed(target="/tags/x?tagKeys=b&tagKeys=a")
    request.query = "tagKeys=b&tagKeys=c"
    with pytest.raises(InvalidSignatureError):
        request.verify()


@pytest.mark.parametrize("name", ["x-amzn-code-interpreter-session-id", "x-amz-meta", "x-amz-security-token"])
def test_unsigned_header_that_could_matter_is_refused(name: str) -> None:
    request = Signed(headers={})
    request.set_header(name, SESSION_ID)
    with pytest.raises(InvalidSignatureError, match=f"'{name}' must be a 'SignedHeader'"):
        request.verify()


def test_trace_id_that_a_proxy_wrote_needs_no_signature() -> None:
    request = Signed()
    request.set_header("x-amzn-trace-id", "Root=1-2")
    assert request.verify() is ALICE


def test_host_must_be_signed() -> None:
    request = Signed()
    request.edit_authorization("content-type;host;", "content-type;")
    with pytest.raises(InvalidSignatureError, match="'host' must be a 'SignedHeader'"):
        request.verify()


@pytest.mark.parametrize("name", ["host", "x-amz-date", "x-amzn-code-interpreter-session-id", "content-type"])
def test_signed_header_given_twice_is_refused(name: str) -> None:
    request = Signed()
    request.headers.append((name, request.header(name)))
    with pytest.raises(AuthenticationError, match="once"):
        request.verify()


def test_authorization_given_twice_is_refused() -> None:
    request = Signed()
    request.headers.append(("authorization", request.header("authorization")))
    with pytest.raises(IncompleteSignatureError, match="Authorization must be given once"):
        request.verify()


def test_both_forms_at_once_are_refused() -> None:
    request = Signed(body=b"", headers={}, expires=60)
    request.headers.append(("authorization", Signed().header("authorization")))
    with pytest.raises(IncompleteSignatureError, match="not both"):
        request.verify()


def test_request_without_signature_is_refused() -> None:
    request = Signed()
    request.drop_header("authorization")
    with pytest.raises(MissingAuthenticationError, match="Missing Authentication Token"):
        request.verify()


@pytest.mark.parametrize("seconds", [-SKEW_SECONDS - 2, -86_400, SKEW_SECONDS + 2, 86_400])
def test_signature_far_from_now_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidSignatureError, match=r"Signature (expired|not yet current): "):
        Signed().verify(datetime.now(UTC) + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-SKEW_SECONDS + 2, SKEW_SECONDS - 2])
def test_signature_within_the_skew_is_accepted(seconds: int) -> None:
    assert Signed().verify(datetime.now(UTC) + timedelta(seconds=seconds)) is ALICE


def test_presigned_url_ends_at_its_expiry() -> None:
    request = Signed(method="GET", body=b"", headers={}, expires=3600)
    assert request.verify(datetime.now(UTC) + timedelta(seconds=3590)) is ALICE
    with pytest.raises(InvalidSignatureError, match="Signature expired: "):
        request.verify(datetime.now(UTC) + timedelta(seconds=3610))


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "9999999999999999999", "", "1.5", "x"])
def test_presigned_url_lasts_a_week_at_most(expires: str) -> None:
    request = Signed(method="GET", body=b"", headers={}, expires=60)
    request.edit_query("X-Amz-Expires=60", f"X-Amz-Expires={expires}")
    with pytest.raises(IncompleteSignatureError, match="X-Amz-Expires must be a number from 1 to 604800"):
        request.verify()


def test_longer_expiry_than_signed_is_refused() -> None:
    request = Signed(method="GET", body=b"", headers={}, expires=60)
    request.edit_query("X-Amz-Expires=60", "X-Amz-Expires=61")
    with pytest.raises(InvalidSignatureError):
        request.verify()


def test_presigned_url_does_not_carry_a_body_that_was_not_signed() -> None:
    request = Signed(method="PUT", body=b"", headers={}, expires=60)
    request.body = b"something"
    with pytest.raises(InvalidSignatureError):
        request.verify()


@pytest.mark.parametrize("name", ["X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"])
def test_presigned_url_lacks_no_part(name: str) -> None:
    request = Signed(method="GET", body=b"", headers={}, expires=60)
    request.edit_query(name, f"no-{name}")
    with pytest.raises(IncompleteSignatureError, match=name):
        request.verify()


def test_presigned_url_has_each_part_once() -> None:
    request = Signed(method="GET", body=b"", headers={}, expires=60)
    request.query += "&X-Amz-Expires=600000"
    with pytest.raises(IncompleteSignatureError, match="X-Amz-Expires must be given once"):
        request.verify()


@pytest.mark.parametrize("name", ["Credential", "SignedHeaders", "Signature"])
def test_authorization_lacks_no_part(name: str) -> None:
    request = Signed()
    value = request.header("authorization")
    algorithm, _, parts = value.partition(" ")
    kept = ", ".join(part for part in parts.split(", ") if not part.startswith(f"{name}="))
    request.set_header("authorization", f"{algorithm} {kept}")
    with pytest.raises(IncompleteSignatureError, match=name):
        request.verify()


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer token",
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=zz",
        "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Credential=a/b/c/d/e, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=" + "0" * 64 + ", More=1",
        "AWS4-ECDSA-P256-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=" + "0" * 64,
        "aws4-hmac-sha256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 " + "," * 10_000,
        "é",
    ],
)
def test_authorization_of_another_form_is_refused(authorization: str) -> None:
    request = Signed()
    request.set_header("authorization", authorization)
    with pytest.raises(IncompleteSignatureError):
        request.verify()


@pytest.mark.parametrize("signed_headers", ["host;content-type", "Host", "host;host", "host;", "", "host\x00"])
def test_signed_headers_must_be_sorted_lower_case_names(signed_headers: str) -> None:
    request = Signed()
    listed = request.header("authorization").partition("SignedHeaders=")[2].partition(",")[0]
    request.edit_authorization(listed, signed_headers)
    with pytest.raises(IncompleteSignatureError, match="SignedHeaders must be"):
        request.verify()


@pytest.mark.parametrize("date", ["", "20260101", "2026-01-01T00:00:00Z", "20261301T000000Z", "20260101T000000", "٢"])
def test_malformed_date_is_refused(date: str) -> None:
    request = Signed()
    request.set_header("x-amz-date", date)
    with pytest.raises(IncompleteSignatureError):
        request.verify()


def test_date_of_the_scope_must_be_the_requests() -> None:
    request = Signed()
    today = request.header("x-amz-date")[:8]
    request.edit_authorization(f"/{today}/", "/20200101/")
    with pytest.raises(InvalidSignatureError, match="Date in Credential scope does not match"):
        request.verify()


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ({"region": "eu-west-1"}, "valid region, this server's: 'us-east-1'"),
        ({"service": "s3"}, "correct service: 'bedrock-agentcore'"),
    ],
)
def test_signature_for_another_scope_is_refused(scope: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSignatureError, match=message):
        Signed(**scope).verify()


def test_terminator_of_the_scope_is_fixed() -> None:
    request = Signed()
    request.edit_authorization("aws4_request", "aws5_request")
    with pytest.raises(InvalidSignatureError, match="valid terminator"):
        request.verify()


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials("AKIANOBODYNOBODYNOBO", ALICE_SECRET),
        Credentials(ALICE.access_key_id, ALICE_SECRET, TEMP_TOKEN),
        Credentials(TEMP.access_key_id, TEMP_SECRET),
        Credentials(TEMP.access_key_id, TEMP_SECRET, TEMP_TOKEN[:-1]),
        Credentials(TEMP.access_key_id, TEMP_SECRET, "another"),
    ],
)
@pytest.mark.parametrize("expires", [None, 60])
def test_unknown_key_or_foreign_token_is_refused_before_the_body(credentials: Credentials, expires: int | None) -> None:
    request = Signed(body=b"", headers={}, credentials=credentials, expires=expires)
    with pytest.raises(UnrecognizedClientError, match="The security token included in the request is invalid"):
        request.begin()


@pytest.mark.parametrize("expires", [None, 60])
def test_wrong_secret_is_refused(expires: int | None) -> None:
    request = Signed(body=b"", headers={}, credentials=Credentials(ALICE.access_key_id, TEMP_SECRET), expires=expires)
    with pytest.raises(InvalidSignatureError, match="The request signature we calculated does not match"):
        request.verify()


def test_body_other_than_its_signed_hash_is_refused() -> None:
    request = Signed(headers={**HEADERS, "x-amz-content-sha256": sha256(BODY)})
    request.body += b" "
    assert request.begin().verified
    with pytest.raises(InvalidSignatureError, match="x-amz-content-sha256"):
        request.verify()


@pytest.mark.parametrize("value", ["", "x", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "unsigned-payload", "A" * 64])
def test_other_payload_hashes_are_refused(value: str) -> None:
    with pytest.raises(IncompleteSignatureError, match="x-amz-content-sha256 must be"):
        Signed(headers={**HEADERS, "x-amz-content-sha256": value}).verify()


def test_replaced_hash_header_is_refused() -> None:
    request = Signed(headers={**HEADERS, "x-amz-content-sha256": sha256(BODY)})
    request.set_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    with pytest.raises(InvalidSignatureError):
        request.begin()


def test_repr_shows_no_key_material() -> None:
    request = Signed()
    shown = repr(request.begin())
    assert request.header("authorization")[-64:] not in shown
    assert "_signing_key" not in shown


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/a/./b/../c//d", b"/a/c/d"),
        (b"/../../a/", b"/a/"),
        (b"/%2E%2E/a", b"/%2E%2E/a"),
    ],
)
def test_path_is_normalised_as_signers_do(raw: bytes, normal: bytes) -> None:
    assert normalise_path(raw) == normal


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Echo]]:
    made = Echo(tmp_path_factory.mktemp("data"))
    with serving(made.endpoint) as url:
        yield url, made


@pytest.mark.parametrize("headers", [[], ["-H", f"x-amz-content-sha256: {sha256(b'{}')}"]])
def test_curl_is_accepted(echo: tuple[str, Echo], headers: list[str]) -> None:
    url, _ = echo
    curl = shutil.which("curl")
    assert curl, "this test runs curl"
    answer = subprocess.run(
        [
            curl,
            *("-sS", "--aws-sigv4", f"aws:amz:{REGION}:{SERVICE}", "--user", f"{ALICE.access_key_id}:{ALICE_SECRET}"),
            *("-X", "PUT", "-H", "content-type: application/json", "-d", "{}", *headers),
            f"{url}/code-interpreters/aws.codeinterpreter.v1/sessions/start",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(answer.stdout)["sessionId"] == SESSION_ID


def test_javascript_client_is_accepted(echo: tuple[str, Echo]) -> None:
    url, made = echo
    seen = node_clients.run(
        """
        const data = require("@aws-sdk/client-bedrock-agentcore");
        const control = require("@aws-sdk/client-bedrock-agentcore-control");
        const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
        (async () => {
            const dataClient = new data.BedrockAgentCoreClient(given.client);
            const controlClient = new control.BedrockAgentCoreControlClient(given.client);
            await controlClient.send(new control.UntagResourceCommand(given.untag));
            const started = await dataClient.send(new data.StartCodeInterpreterSessionCommand(given.start));
            const invoked = await dataClient.send(new data.InvokeCodeInterpreterCommand(given.invoke));
            const events = [];
            for await (const event of invoked.stream) events.push(event);
            process.stdout.write(JSON.stringify({ started: started.sessionId, invoked: invoked.sessionId, events }));
        })();
        """,
        {
            "client": {
                "endpoint": url,
                "region": REGION,
                "credentials": {
                    "accessKeyId": TEMP.access_key_id,
                    "secretAccessKey": TEMP_SECRET,
                    "sessionToken": TEMP_TOKEN,
                },
            },
            "untag": FULL_PARAMETERS["UntagResource"],
            "start": {"codeInterpreterIdentifier": SYSTEM_ARN, "name": "ü"},
            "invoke": {"codeInterpreterIdentifier": SYSTEM_ARN, "sessionId": SESSION_ID, "name": "executeCode"},
        },
    )
    assert seen == {"started": SESSION_ID, "invoked": SESSION_ID, "events": [{"result": RESULT}]}
    untag, start, _ = made.calls[-3:]
    assert untag.parameters == FULL_PARAMETERS["UntagResource"]
    assert start.parameters["codeInterpreterIdentifier"] == SYSTEM_ARN
    assert start.principal == TEMP
