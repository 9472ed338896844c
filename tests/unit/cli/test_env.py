"""`eval "$(fumehood env)"` is the whole set-up of a client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fumehood.cli.env import env_lines, record
from fumehood.errors import ConfigurationError
from fumehood.identity.principals import Principals, make_credentials
from fumehood.settings import Settings

ACCOUNT = "000000000000"
ENDPOINTS = [
    "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE",
    "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL",
    "BEDROCK_AGENTCORE_DP_ENDPOINT",
    "BEDROCK_AGENTCORE_CP_ENDPOINT",
]
# What a developer's shell may hold, all of which would win over, or spoil, the keys that are set.
LEFT_OVER = {
    "AWS_PROFILE": "work",
    "AWS_DEFAULT_PROFILE": "work",
    "AWS_SESSION_TOKEN": "foreign",
    "AWS_SECURITY_TOKEN": "foreign",
    "AWS_CREDENTIAL_EXPIRATION": "2001-01-01T00:00:00Z",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_REGION": "eu-west-1",
}
_ASK_BOTO3 = """
import boto3, json
planes = [boto3.client(name) for name in ("bedrock-agentcore", "bedrock-agentcore-control")]
keys = boto3.Session().get_credentials().get_frozen_credentials()
print(json.dumps([[plane.meta.endpoint_url, plane.meta.region_name] for plane in planes] + [list(keys)[:3]]))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    make_credentials(tmp_path / "it's data" / "credentials", ACCOUNT)
    return Settings(data=tmp_path / "it's data", port=8123, region="eu-central-1")


def in_shell(lines: list[str], command: str) -> str:
    """What `command` prints after the lines, in a POSIX shell with the left-overs of other work."""
    script = "\n".join([*lines, command])
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", **LEFT_OVER}
    return subprocess.run(
        ["sh", "-euc", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_without_the_server_s_own_settings_it_points_where_that_last_started(settings: Settings) -> None:
    record(settings)
    lines = env_lines(Settings(data=settings.data), "default")
    assert in_shell(lines, "echo $AWS_REGION $AWS_DEFAULT_REGION") == "eu-central-1 eu-central-1\n"
    assert in_shell(lines, "printf %s $BEDROCK_AGENTCORE_DP_ENDPOINT") == settings.url
    own = env_lines(Settings(data=settings.data, region="eu-west-3"), "default")
    assert in_shell(own, "echo $AWS_REGION") == "eu-west-3\n"


def test_boto3_is_pointed_at_the_server_whatever_the_shell_held_before(settings: Settings) -> None:
    asked = in_shell(env_lines(settings, "default"), f"{sys.executable} -c '{_ASK_BOTO3}'")
    record = Principals.load(settings.data / "credentials").find_profile("default")
    assert record is not None
    assert json.loads(asked) == [
        ["http://127.0.0.1:8123", "eu-central-1"],
        ["http://127.0.0.1:8123", "eu-central-1"],
        [record.principal.access_key_id, record.secret_access_key, None],
    ]


def test_every_variable_of_every_client_is_set(settings: Settings) -> None:
    names = [*ENDPOINTS, "AWS_REGION", "AWS_DEFAULT_REGION"]
    printed = in_shell(env_lines(settings, "default"), "\n".join(f'echo "${name}"' for name in names)).splitlines()
    assert printed == ["http://127.0.0.1:8123"] * 4 + ["eu-central-1"] * 2


def test_what_a_value_holds_is_never_run(tmp_path: Path) -> None:
    make_credentials(tmp_path / "credentials", ACCOUNT)
    url = "http://h/$(touch pwned)'`touch pwned`\";touch pwned"
    lines = env_lines(Settings(data=tmp_path, public_url=url), "default")
    assert in_shell(lines, f"cd '{tmp_path}'; printf %s \"$BEDROCK_AGENTCORE_DP_ENDPOINT\"") == url


def test_another_principal_can_be_named_and_brings_its_session_token(settings: Settings) -> None:
    with (settings.data / "credentials").open("a") as file:
        file.write(
            "\n[guest]\naws_access_key_id = ASIA234567ABCDEFGHIJ\naws_secret_access_key = 0123456789abcdef\n"
            "aws_account_id = 000000000001\naws_session_token = tok/en+==\n"
        )
    printed = in_shell(env_lines(settings, "guest"), 'echo "$AWS_ACCESS_KEY_ID $AWS_SESSION_TOKEN"')
    assert printed == "ASIA234567ABCDEFGHIJ tok/en+==\n"


def test_an_unknown_principal_is_refused_with_those_there_are(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"No principal 'nobody' in .*credentials; there are: root, default"):
        env_lines(settings, "nobody")


def test_a_folder_in_which_no_server_ever_started_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)No fumehood server has been started.*fumehood serve"):
        env_lines(Settings(data=tmp_path), "default")
    assert list(tmp_path.iterdir()) == []


def _certificate(folder: Path, *options: str) -> Path:
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1"]
    paths = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([*command, *paths, *options], check=True, capture_output=True, timeout=60)
    return folder / "certificate.pem"


def test_a_self_signed_certificate_is_given_to_clients_to_trust(settings: Settings, tmp_path: Path) -> None:
    certificate = _certificate(tmp_path, "-subj", "/CN=localhost")
    tls = settings.model_copy(update={"tls_certificate": certificate})
    printed = in_shell(env_lines(tls, "default"), 'echo "$AWS_CA_BUNDLE $BEDROCK_AGENTCORE_DP_ENDPOINT"')
    assert printed == f"{certificate} https://127.0.0.1:8123\n"


def test_the_certificate_of_an_authority_leaves_the_clients_trust_as_it_is(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "authority").mkdir()
    authority = _certificate(tmp_path / "authority", "-subj", "/CN=authority")
    signed_by = ["-CA", str(authority), "-CAkey", str(authority.with_name("key.pem"))]
    certificate = _certificate(tmp_path, "-subj", "/CN=localhost", *signed_by)
    tls = settings.model_copy(update={"tls_certificate": certificate})
    assert not any("AWS_CA_BUNDLE" in line for line in env_lines(tls, "default"))


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_is_refused_by_name(settings: Settings, tmp_path: Path, content: str) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text(content)
    with pytest.raises(ConfigurationError, match=r"tls_certificate: .*broken.pem is not a readable PEM certificate"):
        env_lines(settings.model_copy(update={"tls_certificate": broken}), "default")
