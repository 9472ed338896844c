"""The real credentials behind roles: a profile's, and those that an STS gives, here one that keeps what it is asked."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from fumehood.aws.signing_keys import SigningKeys
from fumehood.gateway.credentials import RealCredentials
from fumehood.gateway.place import CredentialsUnavailableError
from fumehood.identity.policy import Policy
from fumehood.identity.roles import AssumedRole, Credentials, EmbeddedStore, Role, StaticProfile
from fumehood.identity.trust import TrustPolicy
from loopback import serving

EMBEDDED = SigningKeys("AKIAEMBEDDED", "embedded")
ROLE_ARN = "arn:aws:iam::123456789012:role/real"


async def embedded() -> SigningKeys:
    return EMBEDDED


def role(credentials: Credentials) -> Role:
    return Role("arn", "0" * 12, "name", (), TrustPolicy(Policy(())), credentials, {})


def profiles(folder: Path) -> Path:
    file = folder / "credentials"
    file.write_text("[ours]\naws_access_key_id = AKIAOURS\naws_secret_access_key = s3cr3t\n")
    return file


class Sts:
    """Answers AssumeRole with keys that are good for `minutes`."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.asked: list[dict[str, str]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"].decode()
        self.asked.append({name: values[0] for name, values in parse_qs(body).items()})
        ends = (datetime.now(UTC) + timedelta(minutes=self.minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = f"<AccessKeyId>ASIA{len(self.asked)}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        keys += f"<SessionToken>t</SessionToken><Expiration>{ends}</Expiration>"
        told = f"<AssumeRoleResult><Credentials>{keys}</Credentials></AssumeRoleResult>"
        answer = f'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{told}</AssumeRoleResponse>'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/xml")]})
        await send({"type": "http.response.body", "body": answer.encode()})


async def test_each_role_has_its_own_kind(tmp_path: Path) -> None:
    real = RealCredentials(embedded, "us-east-1")
    assert await real.of(role(EmbeddedStore()), "S") == EMBEDDED
    found = await real.of(role(StaticProfile("ours", profiles(tmp_path))), "S")
    assert found == SigningKeys("AKIAOURS", "s3cr3t")


async def test_a_profile_that_cannot_be_read_says_nothing_of_what_is_in_it(tmp_path: Path) -> None:
    real = RealCredentials(embedded, "us-east-1")
    file = profiles(tmp_path)
    file.write_text(file.read_text() + "a line with s3cr3t and no sense\n")
    for name in ("ours", "theirs"):
        with pytest.raises(CredentialsUnavailableError) as refused:
            await real.of(role(StaticProfile(name, file)), "S")
        assert "s3cr3t" not in str(refused.value)


async def test_a_role_is_assumed_for_each_session_and_again_shortly_before_its_end(tmp_path: Path) -> None:
    sts = Sts(60)
    with serving(sts) as url:
        real = RealCredentials(embedded, "us-east-1")
        assumed = role(AssumedRole(ROLE_ARN, "ours", profiles(tmp_path), "outside", url))
        first, again = await real.of(assumed, "S1"), await real.of(assumed, "S1")
        assert (first, again) == (SigningKeys("ASIA1", "s", "t"), first)
        sts.minutes = 2
        assert (await real.of(assumed, "S2")).access_key_id == "ASIA2"
        assert (await real.of(assumed, "S2")).access_key_id == "ASIA3"
    asked = sts.asked[0]
    assert (asked["Action"], asked["RoleArn"], asked["ExternalId"]) == ("AssumeRole", ROLE_ARN, "outside")
    assert [each["RoleSessionName"] for each in sts.asked] == ["fumehood-S1", "fumehood-S2", "fumehood-S2"]


async def test_an_sts_that_cannot_be_reached_is_the_operators_to_hear_of(tmp_path: Path) -> None:
    real = RealCredentials(embedded, "us-east-1")
    nowhere = role(AssumedRole(ROLE_ARN, "ours", profiles(tmp_path), None, "http://127.0.0.1:9"))
    with pytest.raises(CredentialsUnavailableError, match="cannot be assumed"):
        await real.of(nowhere, "S")
