"""Certificates in PEM: read, found fit to be trusted now, and written anew. Imported when the first is to be read."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fumehood import clock


class UnfitError(Exception):
    """Certificates are not to be trusted; the message is AWS's."""


def rewritten(content: bytes) -> list[bytes]:
    """Each certificate of a PEM file, in PEM, with nothing else that is in the file. UnfitError."""
    try:
        certificates = x509.load_pem_x509_certificates(content)
        periods = [(one.not_valid_before_utc, one.not_valid_after_utc) for one in certificates]
    except ValueError:
        raise UnfitError("Certificate content is not valid PEM/X.509 format") from None
    now = clock.now()
    for begins, ends in periods:
        if now > ends:
            raise UnfitError("Certificate has expired")
        if now < begins:
            raise UnfitError("Certificate is not yet valid")
    return [one.public_bytes(Encoding.PEM) for one in certificates]
