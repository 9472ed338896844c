"""What code in a session could do with certificates: have its own trusted, or get at what lies beside them."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.certificates import certificate, keep_secret, make_authority, secret_arn
from tests.service import Service, Session

_TRUST = "/etc/ssl/certs"
_ATTACKS = {
    "append to all that is trusted": f"echo x >> {_TRUST}/ca-certificates.crt",
    "append to the session's own": f"echo x >> {_TRUST}/fumehood-session.pem",
    "replace what is trusted": f"touch /tmp/x && mv -f /tmp/x {_TRUST}/ca-certificates.crt",
    "remove what is trusted": f"rm -f {_TRUST}/ca-certificates.crt",
    "add an authority by its hash": f"touch {_TRUST}/00000000.0",
    "add one for the next update": "cd /usr/local/share && mkdir -p ca-certificates && touch ca-certificates/x.crt",
    "update what is trusted": "update-ca-certificates --fresh",
    "have somebody privileged do it": "sudo -n true",
    "move the folder away": "mv /etc/ssl /etc/ssl.old",
}


@pytest.fixture(scope="module")
def trusting(server: Service, client: Any) -> Iterator[Session]:
    """A session that trusts an authority whose secret has a key beside the certificate."""
    authority = make_authority("Attacked")
    secret = authority.certificate + authority.server_key
    session = Session(client, certificates=[keep_secret(server.data / "secrets", "attacked", secret)])
    yield session
    session.stop()


@pytest.mark.parametrize("attack", _ATTACKS)
def test_no_code_changes_what_the_system_trusts(trusting: Session, attack: str) -> None:
    files = f"{_TRUST}/ca-certificates.crt {_TRUST}/fumehood-session.pem"
    look = f"sha256sum {files}; stat -c '%u %a' {_TRUST} {files}"
    before = trusting.sh(look)["structuredContent"]
    assert before["exitCode"] == 0, before
    tried = trusting.sh(_ATTACKS[attack])["structuredContent"]
    assert tried["exitCode"] != 0, tried
    assert trusting.sh(look)["structuredContent"]["stdout"] == before["stdout"]
    assert before["stdout"].splitlines()[2:] == ["0 755", "0 644", "0 644"]


def test_files_where_a_helper_could_look_for_certificates_change_nothing(server: Service, client: Any) -> None:
    rogue = make_authority("Rogue").certificate.decode()
    first = Session(client)
    for folder in ("/tmp/certificates", "/tmp", "/home/sandbox", "/dev/shm"):
        first.sh(f"mkdir -p {folder}; cat > {folder}/rogue.pem <<'END'\n{rogue}\nEND")
    given = keep_secret(server.data / "secrets", "good", make_authority("Good").certificate)
    second = Session(client, certificates=[given])
    line = rogue.splitlines()[3]
    for session in (first, second):
        assert (
            session.sh(f"grep -c '{line}' {_TRUST}/ca-certificates.crt")["structuredContent"]["stdout"].strip() == "0"
        )
        session.stop()


def test_a_key_that_lies_beside_a_certificate_is_nowhere_inside(trusting: Session) -> None:
    looked = trusting.sh(
        f"grep -l BEGIN.CERTIFICATE {_TRUST}/fumehood-session.pem; grep -c PRIVATE {_TRUST}/*.pem {_TRUST}/*.crt"
    )
    assert looked["structuredContent"]["stdout"].splitlines()[0] == f"{_TRUST}/fumehood-session.pem"
    assert all(line.endswith(":0") for line in looked["structuredContent"]["stdout"].splitlines()[1:])


def test_another_accounts_secrets_cannot_be_used_nor_told_from_what_is_not_there(
    server: Service, stranger: Any
) -> None:
    keep_secret(server.data / "secrets", "mine", make_authority("Mine").certificate)
    messages: list[str] = []
    for name in ("mine", "nowhere"):
        with pytest.raises(ClientError) as refused:
            Session(stranger, certificates=[certificate(secret_arn(name))])
        assert refused.value.response["Error"]["Code"] == "ValidationException"
        messages.append(refused.value.response["Error"]["Message"].replace(name, "NAME"))
    assert messages[0] == messages[1]
    assert messages[0].startswith("Access denied to certificate secret in Secrets Manager")
    with pytest.raises(ClientError, match="Certificate secret not found in Secrets Manager"):
        Session(stranger, certificates=[certificate(secret_arn("mine", "999988887777"))])
