"""`fumehood principals`: who may call, with which keys and policies. What is changed counts within a second."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fumehood.errors import ConfigurationError
from fumehood.identity import authorisation, credentials_file
from fumehood.identity.authorisation import PolicyFile
from fumehood.identity.credentials_file import Key
from fumehood.identity.principals import Principals, Profile
from fumehood.settings import Settings

_OVERLAP_MAX_SECONDS = 90 * 86_400
_Output = Annotated[Path | None, Parameter(help="a new file for the profile, for its owner alone; else it is printed")]
app = App(name="principals", help="Add, list, disable, enable and remove principals, and renew their keys.")


@app.command
def add(
    name: str,
    *,
    account: Annotated[str | None, Parameter(help="12 digits; FUMEHOOD_ACCOUNT_ID if not given")] = None,
    policy: Annotated[
        tuple[str, ...], Parameter(help="a policy's name, as often as there are; anything in its account if not given")
    ] = (),
    output: _Output = None,
) -> None:
    """Add a principal with a new key, and print its profile for AWS's clients. The secret is not shown again."""
    with _errors_told():
        settings = Settings()
        file = settings.policies_file or settings.data / authorisation.FILE_NAME
        if policy and not file.exists():
            raise ConfigurationError(
                f"There is no policy {policy[0]!r}: {file} is not there. Write it as docs/identity.md says, or leave "
                "the policy out: the principal may do anything in its account then."
            )
        known = PolicyFile.load(file, required=bool(policy)).names if policy else []
        for wanted in policy:
            if wanted not in known:
                raise ConfigurationError(f"There is no policy {wanted!r} in {file}; there are: {', '.join(known)}.")
        with _handed_over(output) as hand_over:
            hand_over(credentials_file.add(_path(settings), name, account or settings.account_id, policy or None))


@app.command(name="list")
def list_() -> None:
    """List the principals: name, account, key ids, state and policies. No secret is ever shown."""
    with _errors_told():
        profiles = Principals.load(_path(Settings())).profiles
    for profile in profiles:
        print(profile_line(profile))


@app.command
def disable(name: str) -> None:
    """Refuse a principal's keys, until it is enabled. Its sessions go on."""
    with _errors_told():
        credentials_file.set_disabled(_path(Settings()), name, True)
    print(f"disabled {name}")


@app.command
def enable(name: str) -> None:
    """Accept a disabled principal's keys again."""
    with _errors_told():
        credentials_file.set_disabled(_path(Settings()), name, False)
    print(f"enabled {name}")


@app.command
def remove(name: str) -> None:
    """Take a principal away: its keys are refused, and its profile is gone.

    What it has made is its account's, so its sessions go on until they are stopped or their time is over, and
    interpreters and snapshots stay: any other principal of the account that may can use, stop and delete them. One that
    is added later by the same name is to policies the same principal. The root cannot be removed.
    """
    with _errors_told():
        credentials_file.remove(_path(Settings()), name)
    print(f"removed {name}")


@app.command
def rotate(
    name: str,
    *,
    overlap_seconds: Annotated[int, Parameter(help="how long the present key is good besides the new one")] = 0,
    output: _Output = None,
) -> None:
    """Give a principal a new key, and print its profile. Any key before the present one ends at once."""
    with _errors_told():
        if not 0 <= overlap_seconds <= _OVERLAP_MAX_SECONDS:
            raise ConfigurationError(f"--overlap-seconds must be 0 to {_OVERLAP_MAX_SECONDS}.")
        with _handed_over(output) as hand_over:
            hand_over(credentials_file.rotate(_path(Settings()), name, overlap_seconds))


def profile_line(profile: Profile) -> str:
    """A principal in one line."""
    principal = profile.record.principal
    keys = principal.access_key_id
    if profile.previous is not None and profile.previous_until is not None and profile.accepts_previous():
        until = profile.previous_until.isoformat(timespec="seconds")
        keys += f" and until {until} {profile.previous.principal.access_key_id}"
    state = "disabled" if profile.is_disabled else "enabled"
    return f"{principal.name} {principal.account_id} {keys}, {state}, {_powers(profile)}"


def _powers(profile: Profile) -> str:
    principal = profile.record.principal
    if principal.is_administrator:
        return "administration only"
    if principal.policies is None:
        return "anything in its account"
    return f"policies: {', '.join(principal.policies) or 'none, so nothing'}"


def _path(settings: Settings) -> Path:
    if not (settings.data / "credentials").exists():
        raise ConfigurationError(
            f"No fumehood server has been started with the data folder {settings.data}, or it is another user's. "
            "Start one with `fumehood serve`, or name its folder in FUMEHOOD_DATA."
        )
    return settings.data / "credentials"


@contextmanager
def _handed_over(output: Path | None) -> Generator[Callable[[Key], object]]:
    """Where a new key goes. The file is made before the key is, so that none is made that nobody gets."""
    if output is None:
        yield lambda key: print("\n".join(key.lines))
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be made: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            yield lambda key: file.write("\n".join([*key.lines, ""]))
    except BaseException:
        output.unlink()
        raise
    print(f"written to {output}", file=sys.stderr)


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(1) from error
