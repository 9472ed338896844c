"""What is large arrives whole, and leaves the server small: tool calls to 100 MB, file transfers beyond."""

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from fumehood.settings import MIB
from tests.service import Service, Session
from tests.signing import Caller, text_of

_BLOB_BYTES = 75_000_000
_STREAMED_BYTES = 300 * MIB
_PIECE = random.Random(1).randbytes(MIB)
# A streamed transfer holds windows and pieces, never the file.
_STREAMING_GROWTH_MAX_BYTES = 64 * MIB


def _peak(server: Service) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _reset_peak(server: Service) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def patient(server: Service) -> Iterator[Session]:
    """A session whose client waits for large answers."""
    session = Session(server.client(read_timeout=300))
    yield session
    session.stop()


@pytest.fixture(scope="module")
def transfer(server: Service) -> Caller:
    return Caller(server)


def test_75_megabytes_written_by_one_call_are_read_back_to_the_byte(
    server: Service, patient: Session, transfer: Caller
) -> None:
    blob = random.Random(2).randbytes(_BLOB_BYTES)
    _reset_peak(server)
    before = _peak(server)
    wrote = patient.invoke("writeFiles", content=[{"path": "large.bin", "blob": blob}])
    assert text_of(wrote) == "Successfully wrote all 1 files"
    # As encoded it is 100 MB: once as it came and once as it was understood.
    assert _peak(server) - before < _BLOB_BYTES * 3
    digest = hashlib.sha256(blob).hexdigest()
    assert patient.sh("sha256sum large.bin")["structuredContent"]["stdout"].split()[0] == digest
    answer = transfer.get_file(patient.id, "large.bin")
    assert (answer.status, answer.headers["content-length"]) == (200, str(_BLOB_BYTES))
    assert answer.body == blob


def test_a_file_too_large_for_one_answer_is_an_error_that_names_size_limit_and_other_ways(patient: Session) -> None:
    patient.sh("head -c 30000000 /dev/urandom > beyond.bin")
    result = patient.invoke("readFiles", paths=["beyond.bin"])
    assert result["isError"] is True
    told = text_of(result)
    assert "beyond.bin" in told
    assert "30000000 bytes" in told
    assert "/fumehood/v1/sessions/{id}/files/{path}" in told


def test_16_mebibytes_read_by_one_call_are_in_memory_once(server: Service, patient: Session) -> None:
    blob = random.Random(3).randbytes(16 * MIB)
    patient.invoke("writeFiles", content=[{"path": "sixteen.bin", "blob": blob}])
    _reset_peak(server)
    before = _peak(server)
    result = patient.invoke("readFiles", paths=["sixteen.bin"])
    assert result["content"][0]["resource"]["blob"] == blob
    assert _peak(server) - before < 3 * len(blob)


def test_files_that_fit_one_by_one_come_in_several_events(patient: Session) -> None:
    patient.sh("for n in 1 2 3; do head -c 12000000 /dev/urandom > part$n; done")
    sums = patient.sh("sha256sum part1 part2 part3 | cut -d' ' -f1")["structuredContent"]["stdout"].split()
    results = patient.invoke_all("readFiles", paths=["part1", "part2", "part3"])
    assert len(results) > 1
    blobs = [block["resource"]["blob"] for result in results for block in result["content"]]
    assert [hashlib.sha256(blob).hexdigest() for blob in blobs] == sums


def test_300_mebibytes_stream_in_and_out_of_a_server_that_stays_small(
    server: Service, patient: Session, transfer: Caller
) -> None:
    count = _STREAMED_BYTES // len(_PIECE)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(_PIECE)
    target = f"/fumehood/v1/sessions/{patient.id}/files/streamed/file.bin"
    sizes = {"content-length": str(_STREAMED_BYTES), "x-amz-content-sha256": digest.hexdigest()}
    _reset_peak(server)
    before = _peak(server)
    put = transfer.send("PUT", target, transfer.sign("PUT", target, b"", sizes), (_PIECE for _ in range(count)))
    assert (put.status, put.body) == (204, b"")
    assert _peak(server) - before < _STREAMING_GROWTH_MAX_BYTES
    found = patient.sh("sha256sum streamed/file.bin")["structuredContent"]["stdout"]
    assert found.split()[0] == digest.hexdigest()
    _reset_peak(server)
    before = _peak(server)
    got = transfer.get_file(patient.id, "streamed/file.bin")
    assert got.status == 200
    assert hashlib.sha256(got.body).hexdigest() == digest.hexdigest()
    assert _peak(server) - before < _STREAMING_GROWTH_MAX_BYTES
    patient.invoke("removeFiles", paths=["streamed"])


def test_a_transfer_of_a_body_that_is_not_what_was_signed_changes_nothing(patient: Session, transfer: Caller) -> None:
    target = f"/fumehood/v1/sessions/{patient.id}/files/forged.bin"
    sizes = {"content-length": str(4 * MIB), "x-amz-content-sha256": hashlib.sha256(_PIECE * 4).hexdigest()}
    pieces = [_PIECE, _PIECE, _PIECE, bytes(MIB)]
    answer = transfer.send("PUT", target, transfer.sign("PUT", target, b"", sizes), pieces)
    assert answer.status == 403
    assert patient.sh("test -e forged.bin")["structuredContent"]["exitCode"] == 1


def test_an_unsigned_payload_is_taken_as_the_clients_of_aws_send_it(patient: Session, transfer: Caller) -> None:
    target = f"/fumehood/v1/sessions/{patient.id}/files/unsigned.txt"
    headers = transfer.sign("PUT", target, b"", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert transfer.send("PUT", target, headers, b"content").status == 204
    assert transfer.get_file(patient.id, "unsigned.txt").body == b"content"


def test_a_request_that_is_too_large_is_a_validation_exception(server: Service, patient: Session) -> None:
    # Refused by its length before anything of it is read.
    caller = Caller(server)
    target = "/code-interpreters/aws.codeinterpreter.v1/tools/invoke"
    headers = caller.sign("POST", target, b"", {"x-amzn-code-interpreter-session-id": patient.id})
    answer = caller.send("POST", target, headers | {"content-length": str(140 * MIB)}, [])
    assert (answer.status, answer.error) == (400, "ValidationException")
    assert b"too large" in answer.body


def test_boto3_is_told_that_its_request_is_too_large(server: Service, patient: Session) -> None:
    variables = server.environment()
    client = boto3.client(
        "bedrock-agentcore",
        endpoint_url=server.url,
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError, match="too large") as told:
        client.invoke_code_interpreter(
            codeInterpreterIdentifier="aws.codeinterpreter.v1",
            sessionId=patient.id,
            name="writeFiles",
            arguments={"content": [{"path": "x", "blob": bytes(110_000_000)}]},
        )
    assert told.value.response["Error"]["Code"] == "ValidationException"
