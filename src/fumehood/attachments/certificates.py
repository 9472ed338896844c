"""Certificates that a request names: found in the secret store, and fit to be trusted inside a sandbox.

Only what is a certificate leaves this file, written anew: no key that lies beside one in a secret gets into a sandbox.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fumehood import clock
from fumehood.attachments.secret_store import SecretDeniedError, SecretNotFoundError, SecretStore
from fumehood.errors import FieldProblem, InvalidRequestError

CERTIFICATES_MAX = 10
"""Entries of one request."""
Configuration = Mapping[str, Any]
"""A `Certificate` of the official model."""


class Certificates:
    """What certificates of the model mean."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    async def check(self, account_id: str, given: Sequence[Configuration]) -> None:
        """InvalidRequestError, in AWS's words, unless the entries of one request are what a sandbox can trust now."""
        if len(given) > CERTIFICATES_MAX:
            message = f"{_TOO_MANY} (certificates: {len(given)} of at most {CERTIFICATES_MAX})"
            raise InvalidRequestError(message, [FieldProblem("certificates", message)])
        await self.pem_of(account_id, given)

    async def pem_of(self, account_id: str, given: Sequence[Configuration]) -> bytes:
        """The certificates in PEM, each once. InvalidRequestError as of `check`, for any one of them."""
        # Most sessions have none, and their start is not to wait for a thread.
        return await asyncio.to_thread(self._pem_of, account_id, given) if given else b""

    def _pem_of(self, account_id: str, given: Sequence[Configuration]) -> bytes:
        found: dict[bytes, None] = {}
        for number, certificate in enumerate(given):
            try:
                for one in self._read(account_id, certificate):
                    found[one.public_bytes(Encoding.PEM)] = None
            except _RefusedError as error:
                field = f"certificates.{number}"
                arn = _arn_of(certificate)
                message = f"{error} ({field})" if arn is None else f"{error} ({field}: {arn})"
                raise InvalidRequestError(message, [FieldProblem(field, message)]) from None
        return b"".join(found)

    def _read(self, account_id: str, certificate: Configuration) -> list[x509.Certificate]:
        arn = _arn_of(certificate)
        if arn is None:
            raise _RefusedError("Certificate location is required")
        try:
            content = self._store.read(account_id, arn)
        except SecretNotFoundError:
            raise _RefusedError("Certificate secret not found in Secrets Manager") from None
        except SecretDeniedError:
            raise _RefusedError("Access denied to certificate secret in Secrets Manager") from None
        return _parse(content)


_TOO_MANY = "Number of certificates exceeds the maximum allowed"


class _RefusedError(Exception):
    """A certificate is not to be trusted; the message is AWS's."""


def _arn_of(certificate: Configuration) -> str | None:
    return certificate["location"].get("secretsManager", {}).get("secretArn")


def _parse(content: bytes) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(content)
        periods = [(one.not_valid_before_utc, one.not_valid_after_utc) for one in certificates]
    except ValueError:
        raise _RefusedError("Certificate content is not valid PEM/X.509 format") from None
    now = clock.now()
    for begins, ends in periods:
        if now > ends:
            raise _RefusedError("Certificate has expired")
        if now < begins:
            raise _RefusedError("Certificate is not yet valid")
    return certificates
