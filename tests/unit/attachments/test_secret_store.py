"""Secrets are their account's, and a file that others could have written or read is none."""

import os
from pathlib import Path

import pytest

from fumehood.attachments.secret_store import BYTES_MAX, SecretDeniedError, SecretNotFoundError, SecretStore

ACCOUNT, OTHER_ACCOUNT = "000000000000", "111111111111"


def arn(name: str, account: str = ACCOUNT, region: str = "us-east-1") -> str:
    return f"arn:aws:secretsmanager:{region}:{account}:secret:{name}"


def put(folder: Path, name: str, content: bytes = b"secret", account: str = ACCOUNT) -> Path:
    path = folder / account / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    """A store in which both accounts have a secret."""
    put(tmp_path, "mine-AbCdEf")
    put(tmp_path, "team%2Fours", b"of the team")
    put(tmp_path, "theirs", account=OTHER_ACCOUNT)
    return SecretStore(tmp_path, "us-east-1")


def test_a_secret_is_the_file_that_its_arn_names(store: SecretStore) -> None:
    assert store.read(ACCOUNT, arn("mine-AbCdEf")) == b"secret"
    assert store.read(ACCOUNT, arn("team/ours")) == b"of the team"
    assert store.read(OTHER_ACCOUNT, arn("theirs", OTHER_ACCOUNT)) == b"secret"


@pytest.mark.parametrize(
    "wrong",
    [
        arn("nowhere"),
        arn("theirs"),
        arn("mine"),
        arn("mine-AbCdEf", region="eu-west-1"),
        arn(f"../{OTHER_ACCOUNT}/theirs"),
        arn(f"x/../../{OTHER_ACCOUNT}/theirs"),
        arn(".."),
        arn("."),
        arn("/etc/passwd"),
        arn("x" * 300),
        arn("mine-AbCdEf/"),
        arn("mine-AbCdEf\n"),
        arn("mine-AbCdEf%2F"),
        "arn:aws:s3:::bucket/key",
        "",
    ],
)
def test_what_is_no_secret_of_the_accounts_is_not_found(store: SecretStore, wrong: str) -> None:
    with pytest.raises(SecretNotFoundError):
        store.read(ACCOUNT, wrong)


@pytest.mark.parametrize("name", ["theirs", "nowhere", "../000000000000/mine-AbCdEf"])
def test_another_accounts_secret_is_denied_whether_or_not_it_exists(store: SecretStore, name: str) -> None:
    with pytest.raises(SecretDeniedError):
        store.read(ACCOUNT, arn(name, OTHER_ACCOUNT))


def test_an_account_that_has_no_folder_has_no_secrets(tmp_path: Path) -> None:
    with pytest.raises(SecretNotFoundError):
        SecretStore(tmp_path / "nowhere", "us-east-1").read(ACCOUNT, arn("mine"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_file_that_is_open_to_others_is_denied(store: SecretStore, tmp_path: Path, mode: int) -> None:
    put(tmp_path, "open").chmod(mode)
    with pytest.raises(SecretDeniedError):
        store.read(ACCOUNT, arn("open"))


def test_a_file_of_another_user_is_denied(store: SecretStore, tmp_path: Path) -> None:
    os.chown(put(tmp_path, "foreign"), 1000, 1000)
    with pytest.raises(SecretDeniedError):
        store.read(ACCOUNT, arn("foreign"))


def test_links_pipes_folders_and_large_files_are_denied_at_once(store: SecretStore, tmp_path: Path) -> None:
    folder = tmp_path / ACCOUNT
    (folder / "link").symlink_to(tmp_path / OTHER_ACCOUNT / "theirs")
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "folder").mkdir(mode=0o700)
    put(tmp_path, "large", b"x" * (BYTES_MAX + 1))
    for name in ("link", "pipe", "folder", "large"):
        with pytest.raises(SecretDeniedError):
            store.read(ACCOUNT, arn(name))
    put(tmp_path, "just", b"x" * BYTES_MAX)
    assert len(store.read(ACCOUNT, arn("just"))) == BYTES_MAX
