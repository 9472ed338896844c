"""The real credentials behind a role. They are read here, used to sign upstream, and go nowhere else."""

import asyncio
import configparser
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session  # pyright: ignore[reportMissingTypeStubs]
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

from fumehood import clock
from fumehood.aws.signing_keys import SigningKeys
from fumehood.gateway.place import CredentialsUnavailableError
from fumehood.identity.roles import AssumedRole, Role, StaticProfile

_RENEW_BEFORE = timedelta(minutes=5)
_ASSUMED_SECONDS = 3600
_KEPT_MAX = 1024
_STS_SECONDS = 10


class RealCredentials:
    """Of all roles. Those that STS gives are kept until shortly before their end."""

    def __init__(self, embedded: Callable[[], Awaitable[SigningKeys]], region: str) -> None:
        """`embedded` gives those of fumehood's own S3."""
        self._embedded = embedded
        self._region = region
        self._assumed: dict[tuple[AssumedRole, str], tuple[SigningKeys, datetime]] = {}
        self._turns: dict[AssumedRole, asyncio.Lock] = {}

    async def of(self, role: Role, session_id: str) -> SigningKeys:
        """A role's, for use by one session. CredentialsUnavailableError."""
        source = role.credentials
        if isinstance(source, StaticProfile):
            return await asyncio.to_thread(_of_profile, source.profile, source.file)
        if isinstance(source, AssumedRole):
            return await self._assume(source, session_id)
        return await self._embedded()

    async def _assume(self, source: AssumedRole, session_id: str) -> SigningKeys:
        key = (source, session_id)
        async with self._turns.setdefault(source, asyncio.Lock()):
            kept = self._assumed.get(key)
            if kept is None or kept[1] - clock.now() < _RENEW_BEFORE:
                kept = await asyncio.to_thread(_assumed, source, session_id, self._region)
                while len(self._assumed) >= _KEPT_MAX:
                    del self._assumed[next(iter(self._assumed))]
                self._assumed[key] = kept
        return kept[0]


def _of_profile(name: str, file: Path | None) -> SigningKeys:
    path = file or Path("~/.aws/credentials").expanduser()
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(path.read_text())
        profile = dict(parser.items(name))
        return SigningKeys(
            profile["aws_access_key_id"], profile["aws_secret_access_key"], profile.get("aws_session_token")
        )
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        # Never the error's own words: a parser's repeat the line, which may hold a secret.
        raise CredentialsUnavailableError(
            f"profile [{name}] of {path} cannot be read: {type(error).__name__}"
        ) from None


def _assumed(source: AssumedRole, session_id: str, region: str) -> tuple[SigningKeys, datetime]:
    try:
        session: Any = botocore.session.Session(profile=source.profile)
        if source.file is not None:
            session.set_config_variable("credentials_file", str(source.file))
        client: Any = session.create_client(
            "sts",
            region_name=region,
            endpoint_url=source.endpoint,
            config=Config(connect_timeout=_STS_SECONDS, read_timeout=_STS_SECONDS, retries={"total_max_attempts": 2}),
        )
        external = {} if source.external_id is None else {"ExternalId": source.external_id}
        answer = client.assume_role(
            RoleArn=source.arn, RoleSessionName=f"fumehood-{session_id}", DurationSeconds=_ASSUMED_SECONDS, **external
        )["Credentials"]
    except (BotoCoreError, ClientError) as error:
        raise CredentialsUnavailableError(f"{source.arn} cannot be assumed: {error}") from None
    keys = SigningKeys(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])
    return keys, answer["Expiration"]
