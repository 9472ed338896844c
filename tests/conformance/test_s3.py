"""S3 from inside a sandbox with no network, by the clients that people use, with no configuration of theirs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_roles import prefix_policy, printed, server_with_roles, session_with_role, stdout
from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

ROWS = 20_000
MIB = 1024 * 1024


@contextlib.contextmanager
def _server(data: Path) -> Iterator[Service]:
    """A server with a role for one prefix of a bucket, which a table lies below."""
    with server_with_roles(data, {"mine": [prefix_policy("work", "mine")]}) as running:
        folder = running.data / "s3" / "buckets" / "work" / "mine"
        folder.mkdir(parents=True)
        lines = "".join(f"{number},{number % 7}\n" for number in range(ROWS))
        (folder / "table.csv").write_text(f"number,group\n{lines}")
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Such a server, for all tests that leave it as it is."""
    with _server(tmp_path_factory.mktemp("s3") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def inside(server: Service) -> Iterator[Session]:
    """A session with that role."""
    session = session_with_role(server, "mine")
    yield session
    session.stop()


def test_aws_cli_copies_lists_synchronises_and_removes(inside: Session, server: Service) -> None:
    stdout(inside, "mkdir -p tree/sub && echo one > tree/one && echo two > 'tree/sub/two & ü'")
    stdout(inside, "aws s3 sync tree s3://work/mine/tree --no-progress")
    assert "tree/sub/two & ü" in stdout(inside, "aws s3 ls --recursive s3://work/mine/tree/")
    stdout(inside, "aws s3 sync s3://work/mine/tree back --no-progress && diff -r tree back")
    stdout(inside, "aws s3 mv s3://work/mine/tree/one s3://work/mine/tree/moved --no-progress")
    assert stdout(inside, "aws s3 cp s3://work/mine/tree/moved -") == "one\n"
    stdout(inside, "aws s3 rm --recursive s3://work/mine/tree")
    assert not [*(server.data / "s3/buckets/work/mine").glob("tree/**/*")]


def test_aws_cli_copies_in_parts_up_down_and_across(inside: Session) -> None:
    stdout(inside, f"head -c {40 * MIB} /dev/urandom > large")
    stdout(inside, "aws s3 cp large s3://work/mine/large --no-progress")
    stdout(inside, "aws s3 cp s3://work/mine/large s3://work/mine/copy --no-progress")
    stdout(inside, "aws s3 cp s3://work/mine/copy again --no-progress && cmp large again && rm large again")


def test_what_the_role_does_not_allow_is_denied_in_awss_words(inside: Session) -> None:
    put = inside.sh("head -c 100000 /dev/zero > x; aws s3 cp x s3://work/theirs/x")["structuredContent"]["stderr"]
    assert "An error occurred (AccessDenied) when calling the PutObject operation: User: arn:aws:sts::" in put
    told = inside.sh("aws s3 ls s3://work/theirs/")["structuredContent"]["stderr"]
    assert "An error occurred (AccessDenied) when calling the ListObjectsV2 operation: User: arn:aws:sts::" in told
    assert 'is not authorized to perform: s3:ListBucket on resource: "arn:aws:s3:::work"' in told


def test_boto3_reads_writes_and_tells_what_is_missing(inside: Session) -> None:
    code = """
import boto3, botocore, json
s3 = boto3.client("s3")
s3.put_object(Bucket="work", Key="mine/a b+ü%2F~.txt", Body=b"hello", Metadata={"colour": "red"}, ContentType="text/x")
got = s3.get_object(Bucket="work", Key="mine/a b+ü%2F~.txt", Range="bytes=1-3")
told = [got["Body"].read().decode(), got["Metadata"], got["ContentType"], got["ResponseMetadata"]["HTTPStatusCode"]]
told.append([each["Key"] for each in s3.list_objects_v2(Bucket="work", Prefix="mine/a")["Contents"]])
for key in ("mine/none", "theirs/none"):
    try:
        s3.get_object(Bucket="work", Key=key)
    except botocore.exceptions.ClientError as error:
        told.append(error.response["Error"]["Code"])
for algorithm in ("CRC32", "SHA1", "SHA256"):
    answer = s3.put_object(Bucket="work", Key=f"mine/{algorithm}", Body=b"x" * 100_000, ChecksumAlgorithm=algorithm)
    told.append(answer["ResponseMetadata"]["HTTPStatusCode"])
print(json.dumps(told))
"""
    metadata = {"colour": "red"}
    expected = ["ell", metadata, "text/x", 206, ["mine/a b+ü%2F~.txt"], "NoSuchKey", "AccessDenied", 200, 200, 200]
    found = json.loads(printed(inside, code))
    found[1] = {name.lower(): value for name, value in found[1].items()}
    assert found == expected


def test_presigned_urls_work_inside(inside: Session) -> None:
    code = """
import urllib.request
s3 = boto3.client("s3")
def url(what): return s3.generate_presigned_url(what, Params={"Bucket": "work", "Key": "mine/presigned"})
put = urllib.request.Request(url("put_object"), data=b"by its URL", method="PUT")
print(urllib.request.urlopen(put).status, urllib.request.urlopen(url("get_object")).read().decode())
"""
    assert printed(inside, "import boto3\n" + code) == "200 by its URL"


def test_pandas_reads_and_writes(inside: Session) -> None:
    code = """
import pandas as pd
table = pd.read_csv("s3://work/mine/table.csv")
table.groupby("group").size().reset_index(name="n").to_parquet("s3://work/mine/groups.parquet")
print(len(table), int(pd.read_parquet("s3://work/mine/groups.parquet")["n"].sum()))
"""
    assert printed(inside, code) == f"{ROWS} {ROWS}"


def test_polars_scans_and_writes(inside: Session) -> None:
    code = """
import polars as pl
table = pl.scan_csv("s3://work/mine/table.csv").group_by("group").len().collect()
table.write_parquet("s3://work/mine/polars.parquet")
print(table["len"].sum(), pl.scan_parquet("s3://work/mine/polars.parquet").collect()["len"].sum())
"""
    assert printed(inside, code) == f"{ROWS} {ROWS}"


def test_s3fs_and_duckdb_over_it(inside: Session) -> None:
    code = """
import duckdb, s3fs
files = s3fs.S3FileSystem()
with files.open("work/mine/written.txt", "w") as file:
    file.write("by s3fs")
print(files.cat("work/mine/written.txt").decode(), "work/mine/table.csv" in files.ls("work/mine/"))
duckdb.register_filesystem(files)
print(duckdb.execute("select count(*) from 's3://work/mine/table.csv'").fetchone()[0])
"""
    assert printed(inside, code) == f"by s3fs True\n{ROWS}"


def test_tasks_and_other_languages_find_it_too(inside: Session) -> None:
    code = "console.log(process.env.AWS_ENDPOINT_URL_S3)"
    told = inside.invoke("executeCode", language="javascript", code=code)["structuredContent"]["stdout"]
    assert told.startswith("http://127.0.0.1:")
    task = inside.invoke("startCommandExecution", command="aws s3 cp s3://work/mine/table.csv - | head -1")
    task_id = task["structuredContent"]["taskId"]

    def ended() -> Any:
        told = inside.invoke("getTask", taskId=task_id)["structuredContent"]
        return told if told["taskStatus"] not in ("submitted", "working") else None

    wait_until(lambda: ended() is not None, "the task's end")
    assert ended()["stdout"] == "number,group\n"


def test_a_call_is_not_held_up_by_a_large_copy(inside: Session) -> None:
    """While gigabytes go through, calls of the same session are answered, each before the copy is over."""
    stdout(inside, "truncate -s 2G huge")
    started = inside.invoke("startCommandExecution", command="aws s3 cp huge s3://work/mine/huge --no-progress")
    task_id = started["structuredContent"]["taskId"]

    def status() -> str:
        return inside.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"]

    for number in range(5):
        assert printed(inside, f"print({number})") == str(number)
    assert status() == "working", "the copy was over before the calls: it is too short to show anything"
    wait_until(lambda: status() != "working", "the end of the copy", seconds=300)
    assert status() == "completed"
    stdout(inside, "rm huge && aws s3 rm s3://work/mine/huge")


HELD = "print(held.head_object(Bucket='work', Key='mine/table.csv')['ContentLength'])"
KEY_ID = """
import json, os, urllib.request
headers = {"Authorization": open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read()}
request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers=headers)
print(json.load(urllib.request.urlopen(request))["AccessKeyId"])
"""


def test_the_door_goes_on_through_a_killed_server_and_hibernation_and_a_fork_has_its_own(tmp_path: Path) -> None:
    with _server(tmp_path / "data") as first:
        session = session_with_role(first, "mine")
        size = printed(session, f"import boto3\nheld = boto3.client('s3')\n{HELD}")
        key_id = printed(session, KEY_ID)
        first.kill()
        following = first.restarted()
        try:
            session.client = following.client(read_timeout=900)
            assert (printed(session, HELD), printed(session, KEY_ID)) == (size, key_id)
            _post(following, f"{session.id}/pause")
            assert (printed(session, HELD), printed(session, KEY_ID)) == (size, key_id)
            parent, session.id = session.id, _post(following, f"{session.id}/fork")["sessionId"]
            assert printed(session, HELD) == size, "a client made before the fork uses the fork's own keys"
            assert printed(session, KEY_ID) != key_id
            session.id = parent
            assert (printed(session, HELD), printed(session, KEY_ID)) == (size, key_id)
        finally:
            following.stop()


def _post(server: Service, what: str) -> dict[str, Any]:
    answer = Caller(server).call("POST", f"/fumehood/v1/sessions/{what}")
    assert answer.status in (200, 201), answer.body
    return json.loads(answer.body)
