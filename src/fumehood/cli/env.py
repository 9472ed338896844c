"""`fumehood env`: the lines of shell that point every AgentCore client at this server."""

import base64
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fumehood.errors import ConfigurationError
from fumehood.identity.principals import ORDINARY, Principals
from fumehood.settings import Settings

_ENDPOINTS = (
    "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE",
    "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL",
    # The AgentCore SDK reads these two, and they win over the others.
    "BEDROCK_AGENTCORE_DP_ENDPOINT",
    "BEDROCK_AGENTCORE_CP_ENDPOINT",
)
_URL_FILE = "url"
_REGION_FILE = "region"
# Each of these, left over in a shell, makes botocore take other keys, add a foreign token, or ignore the endpoints.
_IN_THE_WAY = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


def env(
    *, principal: Annotated[str, Parameter(help="whose keys: a profile of the credentials file")] = ORDINARY
) -> None:
    """Print the shell lines that point clients at this server: eval "$(fumehood env)"."""
    try:
        lines = env_lines(Settings(), principal)
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(1) from error
    print("\n".join(lines))


def env_lines(settings: Settings, principal: str) -> list[str]:
    """Lines of POSIX shell that set endpoints, region and the keys of `principal`, and clear what would win over them.

    Raises ConfigurationError if no server ever started with this data folder, or it has no such principal.
    """
    exports = client_variables(settings, principal)
    cleared = [name for name in _IN_THE_WAY if name not in exports]
    return [f"unset {' '.join(cleared)}", *(f"export {name}={shlex.quote(value)}" for name, value in exports.items())]


def client_variables(settings: Settings, principal: str) -> dict[str, str]:
    """The environment variables that point a client at the server as `principal`. ConfigurationError as `env_lines`."""
    path = settings.data / "credentials"
    if not os.access(settings.data, os.R_OK | os.X_OK) and settings.data.exists():
        raise ConfigurationError(
            f"The data folder {settings.data} is for its server's user only: run this as that user, as with sudo."
        )
    if not path.exists():
        raise ConfigurationError(
            f"No fumehood server has been started with the data folder {settings.data}. "
            "Start one with `fumehood serve`, or name its folder in FUMEHOOD_DATA."
        )
    principals = Principals.load(path)
    record = principals.find_profile(principal)
    if record is None:
        raise ConfigurationError(f"No principal {principal!r} in {path}; there are: {', '.join(principals.names)}.")
    exports = dict.fromkeys(_ENDPOINTS, _server_url(settings))
    region = _region(settings)
    exports |= {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": record.principal.access_key_id,
        "AWS_SECRET_ACCESS_KEY": record.secret_access_key,
    }
    if record.session_token is not None:
        exports["AWS_SESSION_TOKEN"] = record.session_token
    if settings.tls_certificate is not None and _is_self_signed(settings.tls_certificate):
        exports["AWS_CA_BUNDLE"] = str(settings.tls_certificate.absolute())
    return exports


def record(settings: Settings) -> None:
    """Keep where the server of this data folder is, for an `env` that is run without the server's own settings."""
    (settings.data / _URL_FILE).write_text(settings.url)
    (settings.data / _REGION_FILE).write_text(settings.region)


def _server_url(settings: Settings) -> str:
    """Where clients connect: what the settings say, or where nothing is set, where the server last started."""
    if settings.model_fields_set & {"host", "port", "public_url", "tls_certificate"}:
        return settings.url
    return _recorded(settings, _URL_FILE) or settings.url


def _region(settings: Settings) -> str:
    """The server's region, likewise."""
    if "region" in settings.model_fields_set:
        return settings.region
    return _recorded(settings, _REGION_FILE) or settings.region


def _recorded(settings: Settings, name: str) -> str | None:
    """What the server that last started has kept; None if none has."""
    try:
        return (settings.data / name).read_text()
    except FileNotFoundError:
        return None


def _is_self_signed(certificate: Path) -> bool:
    """Whether the first certificate in the file names itself as its issuer: then clients must be given it to trust."""
    try:
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        body = certificate.read_text().split(begin, 1)[1].split(end, 1)[0]
        [(_, outer)] = _der_elements(base64.b64decode(body))
        _, to_be_signed = _der_elements(outer)[0]
        fields = _der_elements(to_be_signed)
    except (OSError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise ConfigurationError(f"tls_certificate: {certificate} is not a readable PEM certificate.") from error
    # RFC 5280, 4.1: [0] version, where it is not 1; serialNumber, signature, issuer, validity, subject, …
    _serial, _signature, issuer, _validity, subject, *_ = [field for field in fields if field[0] != 0xA0]
    return issuer == subject


def _der_elements(content: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER element in a row. Raises IndexError or ValueError if they are cut short."""
    elements: list[tuple[int, bytes]] = []
    while content:
        tag, length, start = content[0], content[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(content[2:start], "big")
        if start + length > len(content):
            raise ValueError("a DER element is cut short")
        elements.append((tag, content[start : start + length]))
        content = content[start + length :]
    return elements
