"""`fumehood principals`: what it changes, what it leaves, and what it never shows."""

import os
import re
import stat
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fumehood import clock
from fumehood.calls import KeyRecord
from fumehood.cli.principals import profile_line
from fumehood.errors import ConfigurationError
from fumehood.identity import credentials_file
from fumehood.identity.principals import Principals, make_credentials

ACCOUNT = "123456789012"
COMMAND = Path(sys.executable).parent / "fumehood"
COMMENTED = """# Who may call.

[root]
aws_access_key_id = AKIAROOTROOTROOTROOT
aws_secret_access_key = the-secret-of-the-root
aws_account_id = 123456789012

[ann]
# Ann's key, of 2026.
aws_access_key_id=AKIAANNANNANNANNANN2
Aws_Secret_Access_Key : the-secret-of-ann
aws_account_id = 123456789012
; more to come

# Bob left.
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "credentials"
    make_credentials(path, ACCOUNT)
    return path


def found(path: Path, name: str) -> KeyRecord:
    record = Principals.load(path).find_profile(name)
    assert record is not None
    return record


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), "principals", *arguments],
        env={"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(path.parent), "FUMEHOOD_ACCOUNT_ID": ACCOUNT},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_an_added_principal_has_the_key_that_is_printed(path: Path) -> None:
    done = run(path, "add", "ann", "--account", "111122223333")
    assert done.returncode == 0, done.stderr
    record = found(path, "ann")
    assert done.stdout == (
        f"[ann]\naws_access_key_id = {record.principal.access_key_id}\n"
        f"aws_secret_access_key = {record.secret_access_key}\naws_account_id = 111122223333\n"
    )
    assert record.principal.account_id == "111122223333"
    assert record.principal.policies is None
    assert found(path, "default").principal.account_id == ACCOUNT


def test_a_profile_is_written_for_its_owner_alone(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "ann"
    done = run(path, "add", "ann", "--output", str(output))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert found(path, "ann").secret_access_key in output.read_text()


@pytest.mark.parametrize("command", ["add", "rotate"])
def test_no_key_is_made_where_it_cannot_be_handed_over(path: Path, tmp_path: Path, command: str) -> None:
    output = tmp_path / "there"
    output.write_text("kept")
    before = path.read_bytes()
    done = run(path, command, "ann" if command == "add" else "default", "--output", str(output))
    assert done.returncode == 1
    assert "cannot be made: File exists" in done.stderr
    assert (path.read_bytes(), output.read_text()) == (before, "kept")


def test_a_principal_is_added_with_policies_that_there_are(path: Path) -> None:
    policies = path.parent / "policies.json"
    statement = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'
    policies.write_text(f'{{"policies": {{"one": {statement}, "two": {statement}}}}}')
    policies.chmod(0o600)
    assert run(path, "add", "ann", "--policy", "one", "--policy", "two").returncode == 0
    assert found(path, "ann").principal.policies == ("one", "two")
    refused = run(path, "add", "bob", "--policy", "three")
    assert refused.returncode == 1
    assert f"There is no policy 'three' in {policies}; there are: one, two." in refused.stderr
    assert Principals.load(path).find_profile("bob") is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "default"), "There is a principal 'default' already"),
        (("add", "a b"), "a name must be"),
        (("add", "a]\n[b"), ""),
        (("add", "ann", "--account", "12"), "aws_account_id must be 12 digits"),
        (("disable", "nobody"), "There is no principal 'nobody'; there are: root, default."),
        (("remove", "nobody"), "There is no principal 'nobody'; there are: root, default."),
        (("remove", "root"), "root is the only administrator and cannot be removed"),
        (("rotate", "nobody"), "There is no principal 'nobody'; there are: root, default."),
        (("rotate", "default", "--overlap-seconds", "-1"), "--overlap-seconds must be 0 to 7776000."),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(path: Path, arguments: tuple[str, ...], says: str) -> None:
    before = path.read_bytes()
    done = run(path, *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert path.read_bytes() == before


def test_the_list_shows_all_but_secrets(path: Path) -> None:
    credentials_file.add(path, "ann", ACCOUNT, ("one", "two"))
    credentials_file.rotate(path, "ann", 3600)
    credentials_file.set_disabled(path, "ann", True)
    profiles = Principals.load(path).profiles
    done = run(path, "list")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [profile_line(profile) for profile in profiles]
    root, default, ann = done.stdout.splitlines()
    assert root.endswith("enabled, administration only")
    assert (
        default
        == f"default {ACCOUNT} {found(path, 'default').principal.access_key_id}, enabled, anything in its account"
    )
    assert re.fullmatch(rf"ann {ACCOUNT} AKIA\w{{16}} and until \S+ AKIA\w{{16}}, disabled, policies: one, two", ann)
    text = path.read_text()
    secrets = re.findall(r"secret_access_key = (\S+)", text)
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in done.stdout]


def test_disabling_and_enabling(path: Path) -> None:
    key_id = found(path, "default").principal.access_key_id
    before = path.read_text()
    assert run(path, "disable", "default").stdout == "disabled default\n"
    assert Principals.load(path).find_key(key_id) is None
    assert run(path, "enable", "default").stdout == "enabled default\n"
    assert Principals.load(path).find_key(key_id) is not None
    assert path.read_text() == before


def test_a_removed_principal_is_gone_and_what_was_added_leaves_no_line(path: Path) -> None:
    before = path.read_text()
    first = credentials_file.add(path, "ann", ACCOUNT, ("one",))
    second = credentials_file.rotate(path, "ann", 3600)
    done = run(path, "remove", "ann")
    assert (done.returncode, done.stdout) == (0, "removed ann\n"), done.stderr
    assert path.read_text() == before
    principals = Principals.load(path)
    assert [principals.find_key(key.access_key_id) for key in (first, second)] == [None, None]


def test_the_last_principal_but_root_can_be_removed(path: Path) -> None:
    assert run(path, "remove", "default").returncode == 0
    assert Principals.load(path).names == ["root"]


@pytest.mark.parametrize("indent", ["", "  "])
def test_removing_keeps_all_lines_that_are_not_the_profiles(path: Path, indent: str) -> None:
    text = COMMENTED.replace("\naws_", f"\n{indent}aws_").replace("\nAws_", f"\n{indent}Aws_")
    bob = (
        "\n# Bob is back.\n[bob]\naws_access_key_id = AKIABOBBOBBOBBOBBOB2\naws_secret_access_key = the-secret-of-bob\n"
    )
    text += bob + "aws_account_id = 123456789012\n"
    path.write_text(text)
    credentials_file.remove(path, "ann")
    head, _, rest = text.partition("[ann]\n")
    assert path.read_text() == head + rest.partition("aws_account_id = 123456789012\n")[2]
    assert "the-secret-of-ann" not in path.read_text()
    credentials_file.remove(path, "bob")
    assert path.read_text() == head + "; more to come\n\n# Bob left.\n\n# Bob is back.\n"


def test_the_help_says_what_becomes_of_the_sessions(path: Path) -> None:
    assert "sessions go on until" in " ".join(run(path, "remove", "--help").stdout.split())


def test_a_new_key_takes_the_place_of_the_old_one_at_once(path: Path) -> None:
    old = found(path, "default")
    done = run(path, "rotate", "default")
    new = found(path, "default")
    assert new.principal.access_key_id in done.stdout
    assert new.secret_access_key in done.stdout
    principals = Principals.load(path)
    assert principals.find_key(old.principal.access_key_id) is None
    assert principals.find_key(new.principal.access_key_id) == new
    assert old.secret_access_key not in path.read_text()


def test_an_overlap_keeps_the_old_key_for_its_time_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found(path, "default")
    credentials_file.rotate(path, "default", 3600)
    second = found(path, "default")
    principals = Principals.load(path)
    earlier = principals.find_key(first.principal.access_key_id)
    assert earlier is not None
    assert earlier.secret_access_key == first.secret_access_key
    later: datetime = clock.now() + timedelta(seconds=3601)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert principals.find_key(first.principal.access_key_id) is None
    credentials_file.rotate(path, "default", 3600)
    principals = Principals.load(path)
    assert principals.find_key(first.principal.access_key_id) is None
    assert principals.find_key(second.principal.access_key_id) is not None
    assert first.secret_access_key not in path.read_text()


def test_comments_and_all_other_lines_stay_as_they_are(path: Path) -> None:
    path.write_text(COMMENTED)
    credentials_file.set_disabled(path, "ann", True)
    assert path.read_text() == COMMENTED.replace(
        "aws_account_id = 123456789012\n; more", "aws_account_id = 123456789012\nfumehood_disabled = true\n; more"
    )
    credentials_file.set_disabled(path, "ann", False)
    assert path.read_text() == COMMENTED
    key = credentials_file.rotate(path, "ann", 0)
    assert path.read_text() == COMMENTED.replace(
        "aws_access_key_id=AKIAANNANNANNANNANN2\nAws_Secret_Access_Key : the-secret-of-ann",
        f"aws_access_key_id = {key.access_key_id}\naws_secret_access_key = {key.secret_access_key}",
    )
    credentials_file.add(path, "bob", ACCOUNT, ())
    assert path.read_text().endswith("# Bob left.\n" + "\n[bob]\n" + path.read_text().partition("[bob]\n")[2])
    assert found(path, "bob").principal.policies == ()


def test_an_indented_profile_is_changed_too(path: Path) -> None:
    path.write_text(COMMENTED.replace("\naws_", "\n  aws_").replace("\nAws_", "\n  Aws_"))
    key = credentials_file.rotate(path, "ann", 60)
    assert found(path, "ann").secret_access_key == key.secret_access_key


def test_the_file_is_replaced_whole_for_its_owner_alone(path: Path) -> None:
    first = path.stat()
    credentials_file.add(path, "ann", ACCOUNT, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != first.st_ino
    assert sorted(file.name for file in path.parent.iterdir()) == ["credentials", "credentials.lock"]


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    credentials_file.add(path, "ann", ACCOUNT, None)
    assert path.is_symlink()
    assert found(path, "ann").principal.name == "ann"


def test_a_file_that_others_can_read_is_not_touched(path: Path) -> None:
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        credentials_file.add(path, "ann", ACCOUNT, None)


def test_runs_at_once_lose_nothing(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fumehood.identity import credentials_file\n"
        "for number in range(5): credentials_file.add(Path(sys.argv[1]), f'{sys.argv[2]}{number}', sys.argv[3], None)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name, ACCOUNT]) for name in ("a", "b", "c", "d")
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0, 0]
    expected = {f"{name}{number}" for name in "abcd" for number in range(5)}
    assert set(Principals.load(path).names) == {"root", "default"} | expected


def test_a_key_is_not_in_its_representation(path: Path) -> None:
    key = credentials_file.add(path, "ann", ACCOUNT, None)
    assert key.secret_access_key not in repr(key)
