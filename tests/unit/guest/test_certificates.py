"""Trusting certificates adds them to what a template trusts, in whichever files it keeps that."""

import os
from pathlib import Path

import pytest

from fumehood.guest.certificates import trust
from fumehood.sandbox.trust import ENVIRONMENT

OWN, USUAL = b"own\n", b"usual\n"
BUNDLE, SESSION = "etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/fumehood-session.pem"


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_file_that_programs_are_told_of_is_there(tmp_path: Path) -> None:
    trust(OWN, tmp_path)
    assert {Path(path) for path in ENVIRONMENT.values()} == {Path("/", BUNDLE), Path("/", SESSION)}
    for path in ENVIRONMENT.values():
        file = tmp_path / path.lstrip("/")
        assert file.read_bytes() == OWN
        assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", [BUNDLE, "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/cert.pem"])
def test_what_a_template_trusts_is_trusted_still(tmp_path: Path, name: str) -> None:
    file = put(tmp_path, name, USUAL)
    trust(OWN, tmp_path)
    assert file.read_bytes() == USUAL + OWN
    assert (tmp_path / SESSION).read_bytes() == OWN
    assert sorted(path.name for path in file.parent.iterdir() if path.name.startswith(".")) == []


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    target = put(tmp_path, "elsewhere", USUAL)
    bundle = tmp_path / BUNDLE
    bundle.parent.mkdir(parents=True)
    bundle.symlink_to(target)
    trust(OWN, tmp_path)
    assert target.read_bytes() == USUAL
    assert not bundle.is_symlink()
    assert bundle.read_bytes() == USUAL + OWN


def test_files_that_are_several_names_of_one_get_the_certificates_once_each(tmp_path: Path) -> None:
    bundle = put(tmp_path, BUNDLE, USUAL)
    other = tmp_path / "usr/lib/ssl/cert.pem"
    other.parent.mkdir(parents=True)
    other.symlink_to(bundle)
    trust(OWN, tmp_path)
    assert bundle.read_bytes() == other.read_bytes() == USUAL + OWN


def test_a_template_cannot_hold_the_agent_up(tmp_path: Path) -> None:
    bundle = tmp_path / BUNDLE
    bundle.parent.mkdir(parents=True)
    os.mkfifo(bundle)
    trust(OWN, tmp_path)
    assert bundle.read_bytes() == OWN
