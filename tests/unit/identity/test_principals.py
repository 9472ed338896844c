"""The credentials file: made once, for us alone, read strictly, followed when it changes."""

import configparser
import multiprocessing
import re
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from fumehood import clock
from fumehood.errors import ConfigurationError
from fumehood.identity.principals import Principals, make_credentials

ACCOUNT = "123456789012"
KEY_ID, OTHER_KEY_ID = "AKIA234567ABCDEFGHIJ", "AKIA765432JIHGFEDCBA"
SECRET = "not-a-secret-that-anything-uses/+%=:;#"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "credentials"


def profile(name: str = "default", **values: str | None) -> str:
    """A well-formed profile with some values replaced, or left out where None."""
    all_values = {
        "aws_access_key_id": KEY_ID,
        "aws_secret_access_key": SECRET,
        "aws_account_id": ACCOUNT,
        **values,
    }
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in all_values.items() if value is not None), ""])


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


# Making


def test_the_file_and_its_folder_are_for_the_owner_only(path: Path) -> None:
    assert make_credentials(path, ACCOUNT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["credentials"]


def test_it_holds_a_root_and_an_ordinary_principal_with_keys_of_their_own(path: Path) -> None:
    make_credentials(path, ACCOUNT)
    principals = Principals.load(path)
    assert principals.names == ["root", "default"]
    root, ordinary = principals.find_profile("root"), principals.find_profile("default")
    assert root is not None
    assert ordinary is not None
    assert root.principal.is_administrator
    assert not ordinary.principal.is_administrator
    assert root.principal.access_key_id != ordinary.principal.access_key_id
    assert root.secret_access_key != ordinary.secret_access_key
    for record in (root, ordinary):
        assert re.fullmatch(r"AKIA[A-Z2-7]{16}", record.principal.access_key_id)
        assert re.fullmatch(r"[A-Za-z0-9]{40}", record.secret_access_key)
        assert record.session_token is None
        assert record.principal.account_id == ACCOUNT
        assert principals.find_key(record.principal.access_key_id) is record


def test_awss_own_reader_takes_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    make_credentials(path, ACCOUNT)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    credentials = botocore.session.Session().get_credentials()
    record = Principals.load(path).find_profile("default")
    assert record is not None
    assert credentials is not None
    assert (credentials.access_key, credentials.secret_key) == (
        record.principal.access_key_id,
        record.secret_access_key,
    )


def test_a_file_that_is_there_is_never_overwritten(path: Path) -> None:
    make_credentials(path, ACCOUNT)
    first = path.read_bytes()
    assert not make_credentials(path, ACCOUNT)
    assert path.read_bytes() == first


def test_a_dangling_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    assert not make_credentials(path, ACCOUNT)
    assert not (tmp_path / "elsewhere").exists()


def test_servers_that_make_it_at_once_agree(path: Path) -> None:
    path.parent.mkdir()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.starmap(make_credentials, [(path, ACCOUNT)] * 16)
    assert made.count(True) == 1
    assert [file.name for file in path.parent.iterdir()] == ["credentials"]
    Principals.load(path)


# Reading


def test_each_profile_is_a_principal_of_its_account(path: Path) -> None:
    tenant = profile(
        "tenant", aws_access_key_id=OTHER_KEY_ID, aws_account_id="000000000001", aws_session_token="tok=en"
    )
    write(path, profile() + tenant)
    record = Principals.load(path).find_key(OTHER_KEY_ID)
    assert record is not None
    assert record.principal.arn == "arn:aws:iam::000000000001:user/tenant"
    assert record.secret_access_key == SECRET
    assert record.session_token == "tok=en"


def test_an_unknown_key_and_an_unknown_profile_are_none(path: Path) -> None:
    write(path, profile())
    principals = Principals.load(path)
    assert principals.find_key("") is None
    assert principals.find_key(OTHER_KEY_ID) is None
    assert principals.find_key(KEY_ID.lower()) is None
    assert principals.find_profile("other") is None


def test_secrets_are_in_no_representation(path: Path) -> None:
    write(path, profile(aws_session_token="session-token"))
    principals = Principals.load(path)
    shown = repr(principals.find_key(KEY_ID)) + repr(principals)
    assert SECRET not in shown
    assert "session-token" not in shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_file_that_others_can_touch_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    write(path, profile(), mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        Principals.load(path)


def test_a_missing_file_is_refused_by_name(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{path}: No such file"):
        Principals.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (profile(aws_access_key_id=None), r"\[default\]: aws_access_key_id is missing"),
        (profile(aws_secret_access_key=None), r"\[default\]: aws_secret_access_key is missing"),
        (profile(aws_account_id=None), r"\[default\]: aws_account_id is missing; it must be 12 digits"),
        (profile(aws_account_id="12345"), r"\[default\]: aws_account_id must be 12 digits"),
        (profile(aws_account_id="١٢٣٤٥٦٧٨٩٠١٢"), r"\[default\]: aws_account_id must be 12 digits"),
        (profile(aws_access_key_id="short"), r"\[default\]: aws_access_key_id must be 16 to 128 letters and digits"),
        (profile(aws_secret_access_key=""), r"\[default\]: aws_secret_access_key must be"),
        (profile(aws_secret_access_key="two words, no secret"), r"\[default\]: aws_secret_access_key must be"),
        (profile(aws_secret_access_key="0123456789012345\n 67"), r"\[default\]: aws_secret_access_key must be"),
        (profile(aws_session_token=""), r"\[default\]: aws_session_token must be"),
        (profile(aws_sesion_token="x"), r"\[default\]: aws_sesion_token is not known here"),
        (profile("two words"), r"\[two words\]: a name must be"),
        (profile("x" * 65), r"a name must be"),
        (profile() + profile(aws_access_key_id=OTHER_KEY_ID), r"line 5: profile \[default\] is there twice"),
        (profile() + "aws_account_id = 000000000000\n", r"line 5: profile \[default\] has aws_account_id twice"),
        (profile() + profile("twin"), r"\[default\] and \[twin\] have the same aws_access_key_id"),
        ("aws_access_key_id = x\n", r"line 1: a \[profile\] heading must come first"),
        ("[default]\nnonsense\n", r"line 2: must be of the form: key = value"),
        ("x" * (1024 * 1024 + 1), r"larger than 1048576 bytes"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place_and_no_secret(path: Path, text: str, message: str) -> None:
    write(path, text)
    with pytest.raises(ConfigurationError, match=message) as refused:
        Principals.load(path)
    assert SECRET not in refused.value.message


def test_a_file_that_is_not_text_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"[default]\n\xff")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        Principals.load(path)


def test_a_line_that_cannot_be_read_is_not_repeated(path: Path) -> None:
    write(path, f"[default]\n{SECRET.replace('=', '').replace(':', '')}\n")
    with pytest.raises(ConfigurationError) as refused:
        Principals.load(path)
    assert "not-a-secret" not in refused.value.message
    assert refused.value.__cause__ is None


def test_profiles_called_default_and_DEFAULT_lend_each_other_nothing(path: Path) -> None:  # noqa: N802
    write(path, profile("DEFAULT") + profile("other", aws_access_key_id=None))
    with pytest.raises(ConfigurationError, match=r"\[other\]: aws_access_key_id is missing"):
        Principals.load(path)


# Following


def test_a_changed_file_counts_within_a_second(path: Path, pass_a_second: Callable[[], None]) -> None:
    write(path, profile())
    principals = Principals.load(path)
    write(path, profile(aws_access_key_id=OTHER_KEY_ID))
    pass_a_second()
    assert principals.find_key(KEY_ID) is None
    assert principals.find_key(OTHER_KEY_ID) is not None


def test_a_replaced_file_counts_within_a_second(path: Path, pass_a_second: Callable[[], None]) -> None:
    write(path, profile())
    principals = Principals.load(path)
    write(path.with_name("new"), profile(aws_access_key_id=OTHER_KEY_ID))
    path.with_name("new").replace(path)
    pass_a_second()
    assert principals.find_key(OTHER_KEY_ID) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: write(path, "nonsense"),
        lambda path: write(path, profile(aws_access_key_id=OTHER_KEY_ID), 0o644),
        lambda path: path.unlink(),
    ],
    ids=["malformed", "open to others", "gone"],
)
def test_a_broken_change_changes_nothing_and_a_mended_one_counts(
    path: Path, pass_a_second: Callable[[], None], spoil: Callable[[Path], None]
) -> None:
    write(path, profile())
    principals = Principals.load(path)
    spoil(path)
    pass_a_second()
    assert principals.find_key(KEY_ID) is not None
    assert principals.find_key(OTHER_KEY_ID) is None
    write(path, profile(aws_access_key_id=OTHER_KEY_ID))
    pass_a_second()
    assert principals.find_key(KEY_ID) is None
    assert principals.find_key(OTHER_KEY_ID) is not None


def test_the_made_file_is_plain_ini(path: Path) -> None:
    make_credentials(path, ACCOUNT)
    parser = configparser.ConfigParser()
    parser.read(path)
    assert parser.sections() == ["root", "default"]


# What the server alone reads


def test_a_disabled_principal_s_keys_are_unknown(path: Path, pass_a_second: Callable[[], None]) -> None:
    write(path, profile(fumehood_disabled="true"))
    principals = Principals.load(path)
    assert principals.find_key(KEY_ID) is None
    assert principals.find_profile("default") is not None
    write(path, profile(fumehood_disabled="false"))
    pass_a_second()
    assert principals.find_key(KEY_ID) is not None


PREVIOUS = {
    "fumehood_previous_access_key_id": OTHER_KEY_ID,
    "fumehood_previous_secret_access_key": f"{SECRET}-before",
}


def test_an_earlier_key_is_good_until_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, profile(**PREVIOUS, fumehood_previous_until="2026-11-29T12:00:00Z"))
    principals = Principals.load(path)
    for moment, is_good in (("2026-11-29T11:59:59Z", True), ("2026-11-29T12:00:00Z", False)):
        monkeypatch.setattr(clock, "now", lambda moment=moment: datetime.fromisoformat(moment))
        earlier = principals.find_key(OTHER_KEY_ID)
        assert (earlier is not None) is is_good
        if earlier is not None:
            assert earlier.secret_access_key == f"{SECRET}-before"
            assert earlier.principal.access_key_id == OTHER_KEY_ID
            assert earlier.principal.arn == f"arn:aws:iam::{ACCOUNT}:user/default"
        present = principals.find_key(KEY_ID)
        assert present is not None
        assert present.secret_access_key == SECRET


def test_a_disabled_principal_s_earlier_key_is_unknown_too(path: Path) -> None:
    write(path, profile(**PREVIOUS, fumehood_previous_until="9999-01-01T00:00:00Z", fumehood_disabled="true"))
    assert Principals.load(path).find_key(OTHER_KEY_ID) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), ("", ()), ("one", ("one",)), ("one, two,three", ("one", "two", "three"))],
)
def test_a_profile_names_its_policies(path: Path, given: str | None, expected: tuple[str, ...] | None) -> None:
    write(path, profile(fumehood_policies=given))
    record = Principals.load(path).find_key(KEY_ID)
    assert record is not None
    assert record.principal.policies == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fumehood_disabled": "yes"}, "fumehood_disabled must be true or false"),
        ({"fumehood_policies": "one two"}, "fumehood_policies must be names of policies"),
        ({"fumehood_policies": "one,,two"}, "fumehood_policies must be names of policies"),
        ({"fumehood_policies": "one,\n two"}, "fumehood_policies must be names of policies"),
        ({"fumehood_policy": "one"}, "fumehood_policy is not known here"),
        (PREVIOUS, "fumehood_previous_until go together"),
        ({**PREVIOUS, "fumehood_previous_until": "soon"}, "fumehood_previous_until must be a moment"),
        ({**PREVIOUS, "fumehood_previous_until": "2026-99-99T00:00:00Z"}, "fumehood_previous_until is no date"),
        (
            {**PREVIOUS, "fumehood_previous_access_key_id": KEY_ID, "fumehood_previous_until": "2026-11-29T12:00:00Z"},
            r"\[default\] and \[default\] have the same aws_access_key_id",
        ),
    ],
)
def test_what_the_server_alone_reads_is_checked_too(path: Path, values: dict[str, str], message: str) -> None:
    write(path, profile(**values))
    with pytest.raises(ConfigurationError, match=message) as refused:
        Principals.load(path)
    assert SECRET not in refused.value.message


def test_the_root_has_no_policies(path: Path) -> None:
    write(path, profile("root", fumehood_policies="all"))
    with pytest.raises(ConfigurationError, match="the root may do nothing that a policy could allow"):
        Principals.load(path)
