"""Keys of sessions: derived, each session's own, and in the form of real ones."""

import re
from datetime import UTC, datetime
from pathlib import Path

from fumehood.gateway.session_keys import document, installation_key, keys_of

KEY = bytes(range(32))


def test_a_sessions_keys_are_the_same_whenever_they_are_asked_for_and_nobody_elses() -> None:
    once, again = keys_of(KEY, "A", "0" * 12), keys_of(KEY, "A", "0" * 12)
    assert once == again
    for other in (keys_of(KEY, "B", "0" * 12), keys_of(bytes(32), "A", "0" * 12)):
        assert other.principal.access_key_id != once.principal.access_key_id
        assert other.secret_access_key != once.secret_access_key
        assert other.session_token != once.session_token


def test_they_have_the_form_of_those_that_sts_gives() -> None:
    keys = keys_of(KEY, "A", "0" * 12)
    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", keys.principal.access_key_id)
    assert re.fullmatch(r"[A-Za-z0-9_]{40}", keys.secret_access_key)
    assert keys.secret_access_key not in str(keys.session_token)
    told = document(keys, "arn", datetime(2026, 1, 1, tzinfo=UTC))
    assert told["Expiration"] == "2026-01-01T00:15:00Z"


def test_the_installations_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "session-key"
    first = installation_key(path)
    assert (len(first), path.stat().st_mode & 0o777) == (32, 0o600)
    assert installation_key(path) == first
    assert [*tmp_path.iterdir()] == [path]
