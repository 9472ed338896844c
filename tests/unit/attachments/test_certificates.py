"""Only what is a certificate, and valid now, is trusted; what lies beside it in a secret stays where it is."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.certificates import certificate, keep_secret, make_authority, secret_arn

from fumehood import clock
from fumehood.attachments.certificates import Certificates
from fumehood.attachments.secret_store import SecretStore
from fumehood.errors import InvalidRequestError

ACCOUNT = "000000000000"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """What certificates mean, with the secrets below the test's folder."""
    return Certificates(SecretStore(tmp_path, "us-east-1"))


async def test_certificates_are_given_in_order_each_once_and_no_key_with_them(
    certificates: Certificates, tmp_path: Path
) -> None:
    first, second = make_authority("First"), make_authority("Second")
    given = [
        keep_secret(tmp_path, "both", b"a comment\n" + second.server_key + second.certificate + first.certificate),
        keep_secret(tmp_path, "first", first.certificate.replace(b"\n", b"\r\n")),
    ]
    assert await certificates.pem_of(ACCOUNT, given) == second.certificate + first.certificate
    assert await certificates.pem_of(ACCOUNT, []) == b""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b'{"certificate": "x"}',
    ],
)
async def test_what_is_no_certificate_is_refused(certificates: Certificates, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^Certificate content is not valid PEM/X.509 format") as refused:
        await certificates.check(ACCOUNT, [keep_secret(tmp_path, "bad", content)])
    assert [field.name for field in refused.value.fields] == ["certificates.0"]


async def test_a_certificate_is_valid_in_its_time_only(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, now = [keep_secret(tmp_path, "mine", make_authority("Mine", -1, 1).certificate)], clock.now()
    await certificates.check(ACCOUNT, given)
    for days, told in ((2, "^Certificate has expired"), (-2, "^Certificate is not yet valid")):
        monkeypatch.setattr(clock, "now", lambda days=days: now + timedelta(days=days))
        with pytest.raises(InvalidRequestError, match=told):
            await certificates.check(ACCOUNT, given)


async def test_those_of_a_request_and_inherited_ones_are_read_once_and_each_numbered_by_itself(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_authority("First"), make_authority("Second")
    own, inherited = keep_secret(tmp_path, "own", first.certificate), keep_secret(tmp_path, "other", second.certificate)
    read: list[str] = []
    real = SecretStore.read

    def reading(store: SecretStore, account_id: str, arn: str) -> bytes:
        read.append(arn)
        return real(store, account_id, arn)

    monkeypatch.setattr(SecretStore, "read", reading)
    assert await certificates.pem_of(ACCOUNT, [own], [inherited]) == first.certificate + second.certificate
    assert len(read) == 2
    gone = certificate(secret_arn("gone"))
    for given in (([own, gone], [inherited]), ([own], [inherited, gone])):
        with pytest.raises(InvalidRequestError) as refused:
            await certificates.pem_of(ACCOUNT, *given)
        assert [field.name for field in refused.value.fields] == ["certificates.1"]
    assert await certificates.pem_of(ACCOUNT, [own], [inherited] * 10)
    with pytest.raises(InvalidRequestError, match=r"11 of at most 10"):
        await certificates.pem_of(ACCOUNT, [own] * 11, [inherited])


async def test_the_entry_at_fault_is_named(certificates: Certificates, tmp_path: Path) -> None:
    good = keep_secret(tmp_path, "good", make_authority("Good").certificate)
    foreign = certificate(secret_arn("x", "111111111111"))
    for bad, told in (
        ({"location": {}}, "Certificate location is required (certificates.1)"),
        (certificate(secret_arn("x")), "Certificate secret not found in Secrets Manager (certificates.1: arn:aws"),
        (foreign, "Access denied to certificate secret in Secrets Manager (certificates.1: arn:aws"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            await certificates.check(ACCOUNT, [good, bad])
        assert refused.value.message.startswith(told)


async def test_there_are_ten_at_most(certificates: Certificates, tmp_path: Path) -> None:
    good = keep_secret(tmp_path, "good", make_authority("Good").certificate)
    await certificates.check(ACCOUNT, [good] * 10)
    with pytest.raises(InvalidRequestError, match=r"^Number of certificates exceeds the maximum allowed"):
        await certificates.check(ACCOUNT, [good] * 11)
