"""Certificates that a request names: found in the secret store, and fit to be trusted inside a sandbox.

Only what is a certificate leaves this file, written anew: no key that lies beside one in a secret gets into a sandbox.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

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
        await self.pem_of(account_id, given)

    async def pem_of(
        self, account_id: str, own: Sequence[Configuration], inherited: Sequence[Configuration] = ()
    ) -> bytes:
        """The certificates in PEM, each once: those of a request, and those that are not its own.

        InvalidRequestError as of `check`, for any one of them.
        """
        if len(own) > CERTIFICATES_MAX:
            message = f"{_TOO_MANY} (certificates: {len(own)} of at most {CERTIFICATES_MAX})"
            raise InvalidRequestError(message, [FieldProblem("certificates", message)])
        # Most sessions have none, and their start is not to wait for a thread.
        if not own and not inherited:
            return b""
        return await asyncio.to_thread(self._pem_of, account_id, [*enumerate(own), *enumerate(inherited)])

    def _pem_of(self, account_id: str, given: Sequence[tuple[int, Configuration]]) -> bytes:
        # What reads them takes 9 MiB, which most servers never need; in this thread nobody waits for it.
        from fumehood.attachments import pem

        found: dict[bytes, None] = {}
        for number, certificate in given:
            try:
                found |= dict.fromkeys(pem.rewritten(self._read(account_id, certificate)))
            except (_RefusedError, pem.UnfitError) as error:
                field = f"certificates.{number}"
                arn = _arn_of(certificate)
                message = f"{error} ({field})" if arn is None else f"{error} ({field}: {arn})"
                raise InvalidRequestError(message, [FieldProblem(field, message)]) from None
        return b"".join(found)

    def _read(self, account_id: str, certificate: Configuration) -> bytes:
        arn = _arn_of(certificate)
        if arn is None:
            raise _RefusedError("Certificate location is required")
        try:
            return self._store.read(account_id, arn)
        except SecretNotFoundError:
            raise _RefusedError("Certificate secret not found in Secrets Manager") from None
        except SecretDeniedError:
            raise _RefusedError("Access denied to certificate secret in Secrets Manager") from None


_TOO_MANY = "Number of certificates exceeds the maximum allowed"


class _RefusedError(Exception):
    """A certificate is not to be trusted; the message is AWS's."""


def _arn_of(certificate: Configuration) -> str | None:
    return certificate["location"].get("secretsManager", {}).get("secretArn")
