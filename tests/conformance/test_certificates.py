"""Certificates of a session's own are trusted by everything that runs in it, and by nothing in other sessions."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.certificates import Authority, certificate, keep_secret, make_authority, secret_arn
from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

_URL = "https://localhost:8443/"
_SERVER = f"""
import http.server, ssl
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "18")
        self.end_headers()
        self.wfile.write(b"the private server")
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", {_URL.rpartition(":")[2].strip("/")}), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
_ANSWER = "the private server"
# Why it fails is not in the error's own text.
_FETCH = (
    f"try {{ console.log(await (await fetch('{_URL}')).text()) }} catch (error) {{ console.log(error, error.cause) }}"
)
_CLIENTS: dict[str, tuple[str, dict[str, str]]] = {
    "the Python kernel, urllib": (
        "executeCode",
        {"language": "python", "code": f"import urllib.request as r\nprint(r.urlopen('{_URL}').read().decode())"},
    ),
    "the Python kernel, requests": (
        "executeCode",
        {"language": "python", "code": f"import requests\nprint(requests.get('{_URL}').text)"},
    ),
    "the Python kernel, httpx": (
        "executeCode",
        {"language": "python", "code": f"import httpx\nprint(httpx.get('{_URL}').text)"},
    ),
    "the Node kernel": ("executeCode", {"language": "javascript", "runtime": "nodejs", "code": _FETCH}),
    "the Deno kernel": ("executeCode", {"language": "typescript", "runtime": "deno", "code": _FETCH}),
    "curl": ("executeCommand", {"command": f"curl -sS {_URL}"}),
    "curl with no environment": ("executeCommand", {"command": f"env -i /usr/bin/curl -sS {_URL}"}),
    "Python in a command": (
        "executeCommand",
        {"command": f"python3 -c \"import urllib.request as r; print(r.urlopen('{_URL}').read().decode())\""},
    ),
    "Python with no environment": (
        "executeCommand",
        {
            "command": f"env -i /usr/bin/python3 -c "
            f"\"import urllib.request as r; print(r.urlopen('{_URL}').read().decode())\""
        },
    ),
    # It finds nothing there, and says so only once it has taken the server for what it is.
    "pip": (
        "executeCommand",
        {
            "command": f"pip download -v --no-deps --retries 0 -i {_URL} no-such-package >said 2>&1; cat said >&2; "
            f"grep -qi 'certificate verify failed' said || ! grep -q 'from versions: none' said || echo {_ANSWER}"
        },
    ),
    "git": ("executeCommand", {"command": f"git ls-remote {_URL} && echo {_ANSWER}"}),
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    """An authority that nobody else knows."""
    return make_authority("An authority of one's own")


@pytest.fixture(scope="module")
def trusted(standard_server: Service, authority: Authority) -> dict[str, Any]:
    """The member of a request that makes a session trust the authority."""
    return keep_secret(standard_server.data / "secrets", "own-ca-AbCdEf", authority.certificate)


def serve(session: Session, authority: Authority) -> None:
    """Have a server that the authority vouches for on the session's loopback."""
    files = {
        "server.py": _SERVER,
        "server.pem": authority.server_certificate.decode(),
        "server.key": authority.server_key.decode(),
    }
    session.invoke("writeFiles", content=[{"path": path, "text": text} for path, text in files.items()])
    session.invoke("startCommandExecution", command="python3 server.py")

    def answers() -> bool:
        return _ANSWER in session.sh(f"curl -k -sS {_URL}")["structuredContent"]["stdout"]

    wait_until(answers, "the server inside to answer")


def reaches(session: Session, client: str) -> bool:
    """Whether that client in the session takes the server for the one it says it is."""
    tool, arguments = _CLIENTS[client]
    result = session.invoke(tool, **arguments)["structuredContent"]
    is_reached = _ANSWER in result["stdout"]
    print(client, result)
    refused = ("certificate", "fetch failed", "UnknownIssuer")
    assert is_reached or any(word in result["stderr"] + result["stdout"] for word in refused), result
    return is_reached


@pytest.fixture(scope="module")
def trusting(standard_client: Any, trusted: dict[str, Any], authority: Authority) -> Iterator[Session]:
    """A session that trusts the authority, with a server that it vouches for."""
    session = Session(standard_client, certificates=[trusted])
    serve(session, authority)
    yield session
    session.stop()


@pytest.fixture(scope="module")
def ordinary(standard_client: Any, authority: Authority) -> Iterator[Session]:
    """A session with the same server, that trusts nobody more than any other."""
    session = Session(standard_client)
    serve(session, authority)
    yield session
    session.stop()


@pytest.mark.parametrize("client", _CLIENTS)
def test_what_a_session_names_is_trusted_by_all_that_runs_in_it_and_by_nothing_elsewhere(
    trusting: Session, ordinary: Session, client: str
) -> None:
    assert reaches(trusting, client)
    assert not reaches(ordinary, client)


def test_what_all_trust_is_trusted_still(trusting: Session, ordinary: Session) -> None:
    count = "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt"
    usual, with_own = (int(each.sh(count)["structuredContent"]["stdout"]) for each in (ordinary, trusting))
    assert usual > 100
    assert with_own == usual + 1


def ask(caller: Caller, method: str, path: str, **body: Any) -> dict[str, Any]:
    """The answer of the extension API."""
    content = json.dumps(body).encode() if body else b""
    answer = caller.call(method, f"/fumehood/v1/{path}", content)
    assert answer.status in (200, 201), answer.body
    return json.loads(answer.body)


def test_a_sandbox_of_the_pool_trusts_it_in_the_kernel_that_runs_already(
    standard_server: Service, standard_client: Any, trusted: dict[str, Any], authority: Authority
) -> None:
    caller = Caller(standard_server)
    found: list[Session] = []

    def is_from_the_pool() -> bool:
        # Each start asks for one more to be ready next time.
        session = Session(standard_client, certificates=[trusted])
        if ask(caller, "GET", f"sessions/{session.id}")["startedFrom"] == "pool":
            found.append(session)
        else:
            session.stop()
        return bool(found)

    wait_until(is_from_the_pool, "a sandbox of the pool")
    serve(found[0], authority)
    assert reaches(found[0], "the Python kernel, urllib")
    found[0].stop()


def test_trust_outlasts_hibernation_and_is_in_snapshots(
    standard_server: Service, standard_client: Any, trusted: dict[str, Any], authority: Authority
) -> None:
    caller, session = Caller(standard_server), Session(standard_client, certificates=[trusted])
    ask(caller, "POST", f"sessions/{session.id}/pause")
    serve(session, authority)
    assert reaches(session, "the Python kernel, requests")
    assert reaches(session, "the Node kernel")
    fork = ask(caller, "POST", f"sessions/{session.id}/fork")["sessionId"]
    told = standard_client.get_code_interpreter_session(
        codeInterpreterIdentifier="aws.codeinterpreter.v1", sessionId=fork
    )
    assert told["certificates"] == [trusted]
    clone = copy.copy(session)
    clone.id = fork
    assert reaches(clone, "curl")
    assert reaches(clone, "the Node kernel")
    for each in (session, clone):
        each.stop()


def test_a_snapshot_that_trusts_what_may_not_be_trusted_any_more_starts_nothing(
    standard_server: Service, standard_client: Any
) -> None:
    secrets = standard_server.data / "secrets"
    lost = keep_secret(secrets, "lost", make_authority("Lost").certificate)
    caller, session = Caller(standard_server), Session(standard_client, certificates=[lost])
    (secrets / "000000000000" / "lost").unlink()
    answer = caller.call("POST", f"/fumehood/v1/sessions/{session.id}/fork")
    assert answer.status == 400
    assert b"Certificate secret not found in Secrets Manager" in answer.body
    session.stop()


def test_an_interpreters_certificates_are_its_sessions_and_come_before_their_own(
    standard_server: Service, standard_client: Any, trusted: dict[str, Any], authority: Authority
) -> None:
    other = keep_secret(standard_server.data / "secrets", "team/other", make_authority("Another").certificate)
    control = standard_server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(
        name="trusting", networkConfiguration={"networkMode": "SANDBOX"}, certificates=[trusted]
    )
    identifier = made["codeInterpreterId"]
    assert control.get_code_interpreter(codeInterpreterId=identifier)["certificates"] == [trusted]
    session = Session(standard_client, identifier, certificates=[other])
    serve(session, authority)
    assert reaches(session, "curl")
    told = standard_client.get_code_interpreter_session(codeInterpreterIdentifier=identifier, sessionId=session.id)
    assert told["certificates"] == [trusted, other]
    session.stop()
    control.delete_code_interpreter(codeInterpreterId=identifier)


def start(client: Any, *certificates: Any) -> str:
    """The message with which a start is refused."""
    with pytest.raises(ClientError) as refused:
        Session(client, certificates=[*certificates])
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    return refused.value.response["Error"]["Message"]


def test_what_cannot_be_trusted_is_refused_in_the_words_of_aws(standard_server: Service, standard_client: Any) -> None:
    secrets = standard_server.data / "secrets"
    old, early = make_authority("Old", -30, -1), make_authority("Early", 1, 30)
    good = keep_secret(secrets, "good", make_authority("Good").certificate)
    for content, told in (
        (old.certificate, "Certificate has expired"),
        (early.certificate, "Certificate is not yet valid"),
        (b"no certificate", "Certificate content is not valid PEM/X.509 format"),
        (old.server_key, "Certificate content is not valid PEM/X.509 format"),
        (make_authority("Whole").certificate + old.certificate, "Certificate has expired"),
    ):
        assert start(standard_client, good, keep_secret(secrets, "bad", content)).startswith(told)
    missing = "Certificate secret not found in Secrets Manager"
    assert start(standard_client, certificate(secret_arn("nowhere"))).startswith(missing)
    assert start(standard_client, certificate(secret_arn("good", region="eu-west-1"))).startswith(missing)
    assert start(standard_client, *[good] * 11).startswith("Number of certificates exceeds the maximum allowed")
    control = standard_server.client("bedrock-agentcore-control")
    with pytest.raises(ClientError, match="Certificate secret not found in Secrets Manager"):
        control.create_code_interpreter(
            name="nothing",
            networkConfiguration={"networkMode": "SANDBOX"},
            certificates=[certificate(secret_arn("nowhere"))],
        )
