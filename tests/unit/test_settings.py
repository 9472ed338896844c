"""Settings are read as a person writes them, and a misspelt one is not passed over."""

import pytest
from pydantic import ValidationError

from fumehood.cli.serve import unknown_setting_lines
from fumehood.errors import ConfigurationError
from fumehood.settings import GIB, MIB, Settings, check_names, check_together, unknown_variables


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1234", 1234),
        ("8G", 8 * GIB),
        ("8g", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("512M", 512 * MIB),
        (" 512MiB ", 512 * MIB),
        ("64K", 64 * 1024),
        ("1T", 1024 * GIB),
    ],
)
def test_a_size_may_have_a_unit(monkeypatch: pytest.MonkeyPatch, written: str, read: int) -> None:
    monkeypatch.setenv("FUMEHOOD_IMAGES_MAX_BYTES", written)
    assert Settings().images_max_bytes == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALL_TIMEOUT_SECONDS", "-1"),
        ("TASK_TIMEOUT_SECONDS", "0"),
        ("KEEP_ALIVE_SECONDS", "0"),
        ("CALL_MEMORY_SECONDS", "-1"),
        ("TERMINATED_SESSION_RETENTION_SECONDS", "-1"),
        ("SANDBOX_MEMORY_BYTES", "1000"),
        ("SANDBOX_DISK_BYTES", "1M"),
        ("SANDBOX_PROCESSES", "1"),
        ("SANDBOX_START_TIMEOUT_SECONDS", "0"),
        ("REQUEST_BODY_TIMEOUT_SECONDS", "0"),
        ("SESSIONS_MAX", "-1"),
        ("INTERPRETERS_MAX", "-1"),
        ("SNAPSHOTS_MAX", "-1"),
    ],
)
def test_what_no_call_could_work_with_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FUMEHOOD_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("written", ["8GB", "8 giga", "1.5G", "-1", "-1G", "G", "", "8G8G", "\u0668G"])
@pytest.mark.parametrize("name", [name for name in Settings.model_fields if "_bytes" in name])
def test_what_is_no_size_is_refused_with_what_would_be(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    monkeypatch.setenv(f"FUMEHOOD_{name.upper()}", written)
    with pytest.raises(ValidationError, match="such as 8G or 512MiB") as refused:
        Settings()
    assert [problem["loc"] for problem in refused.value.errors()] == [(name,)]


@pytest.mark.parametrize("name", ["FUMEHOOD_SANDBOX_PROCESSES_MAX", "fumehood_sandbox_processes_max"])
def test_a_setting_by_its_former_name_is_refused_with_the_present_one(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is set, and is called FUMEHOOD_SANDBOX_PROCESSES now"):
        check_names(["PATH", name])
    check_names(["PATH", "FUMEHOOD_SANDBOX_PROCESSES"])


@pytest.mark.parametrize(
    "given",
    [
        {"POOL_MIN": "9"},
        {"POOL_MIN": "3", "POOL_MAX": "2"},
        {"SNAPSHOTS_MAX_BYTES": "2G", "IMAGES_MAX_BYTES": "1G"},
        {"REQUEST_MAX_BYTES": "200M", "UNVERIFIED_BYTES_MAX": "199M"},
        {"SANDBOX_CPUS": "4", "LARGEST_SANDBOX_CPUS": "3"},
        {"SANDBOX_MEMORY_BYTES": "2G", "LARGEST_SANDBOX_MEMORY_BYTES": "1G"},
        {"SANDBOX_DISK_BYTES": "2G", "LARGEST_SANDBOX_DISK_BYTES": "1G"},
        {"SANDBOX_PROCESSES": "64", "LARGEST_SANDBOX_PROCESSES": "32"},
        {"S3_PATH_STYLE": "true"},
        {"S3_CA_BUNDLE": "/etc/ssl/own.pem"},
        {"S3_CA_BUNDLE": "/etc/ssl/own.pem", "S3_ENDPOINT_URL": "http://s3.example"},
    ],
    ids=lambda given: " ".join(f"{name}={value}" for name, value in given.items()),
)
def test_settings_of_which_one_undoes_the_other_are_refused_with_both_names(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"FUMEHOOD_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        check_together(Settings())
    assert all(f"FUMEHOOD_{name} " in refused.value.message for name in given)
    assert refused.value.message.count("FUMEHOOD_") >= 2, "what else would mend it"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"POOL_MIN": "2", "POOL_MAX": "2"},
        # Without a pool, and less than a default that nobody has asked for.
        {"POOL_MIN": "3", "POOL_MAX": "0"},
        {"POOL_MAX": "1"},
        {"SNAPSHOTS_MAX_BYTES": "1G", "IMAGES_MAX_BYTES": "1G"},
        {"REQUEST_MAX_BYTES": "200M", "UNVERIFIED_BYTES_MAX": "200M"},
        {"SANDBOX_CPUS": "4", "LARGEST_SANDBOX_CPUS": "4"},
        {"S3_PATH_STYLE": "true", "S3_CA_BUNDLE": "/etc/ssl/own.pem", "S3_ENDPOINT_URL": "https://s3.example"},
    ],
    ids=lambda given: " ".join(f"{name}={value}" for name, value in given.items()) or "none",
)
def test_settings_that_go_together_are_taken(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"FUMEHOOD_{name}", value)
    check_together(Settings())


def test_a_variable_that_is_no_setting_is_told_with_the_nearest_that_is_one() -> None:
    names = ["PATH", "FUMEHOOD_PORT", "fumehood_host", "FUMEHOOD_SANDBOX_MEMORY", "FUMEHOOD_XYZZY"]
    assert unknown_variables(names) == {
        "FUMEHOOD_SANDBOX_MEMORY": "FUMEHOOD_SANDBOX_MEMORY_BYTES",
        "FUMEHOOD_XYZZY": None,
    }
    lines = unknown_setting_lines(names)
    assert len(lines) == 2
    assert "FUMEHOOD_SANDBOX_MEMORY_BYTES" in lines[0]
    assert "README" in lines[1]
