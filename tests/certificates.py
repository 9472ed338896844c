"""Certificate authorities for tests, with the certificates of servers that they have signed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and a server's certificate and key, for `localhost`, all in PEM."""

    certificate: bytes
    server_certificate: bytes
    server_key: bytes


def make_authority(name: str, valid_from_days: int = -1, valid_to_days: int = 30) -> Authority:
    """A new one, whose own certificate is valid in that span from today."""
    key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid_from_days * _DAY)
            .not_valid_after(now + valid_to_days * _DAY)
        )

    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    own = (
        builder(issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    server = (
        builder(subject, server_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Authority(own.public_bytes(Encoding.PEM), server.public_bytes(Encoding.PEM), private)


def secret_arn(name: str, account_id: str = "000000000000", region: str = "us-east-1") -> str:
    """The ARN of a secret."""
    return f"arn:aws:secretsmanager:{region}:{account_id}:secret:{name}"


def certificate(arn: str) -> dict[str, object]:
    """The member of a request that takes a certificate from a secret."""
    return {"location": {"secretsManager": {"secretArn": arn}}}


def keep_secret(folder: Path, name: str, content: bytes, account_id: str = "000000000000") -> dict[str, object]:
    """Put a secret into the store at `folder`; the member of a request that takes a certificate from it."""
    place = folder / account_id
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / name.replace("/", "%2F")
    path.write_bytes(content)
    path.chmod(0o600)
    return certificate(secret_arn(name, account_id))
