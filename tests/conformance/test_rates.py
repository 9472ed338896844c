"""Rates, as boto3 meets them: its own retries wait and succeed; without them the error arrives at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.service import Service, service

SYSTEM = "aws.codeinterpreter.v1"
_BURST = 5


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with AWS's rates, one of them lower."""
    settings = {"FUMEHOOD_QUOTAS": "aws", "FUMEHOOD_GET_CODE_INTERPRETER_A_SECOND": str(_BURST)}
    with service(tmp_path_factory.mktemp("rates") / "data", settings) as running:
        yield running


def test_over_the_rate_a_caller_without_retries_gets_throttling_exception(limited: Service) -> None:
    client = limited.client("bedrock-agentcore-control", retries={"total_max_attempts": 1}, max_pool_connections=20)

    def get(_: int) -> ClientError | None:
        try:
            client.get_code_interpreter(codeInterpreterId=SYSTEM)
        except ClientError as error:
            return error
        return None

    with ThreadPoolExecutor(20) as pool:
        refused = [error for error in pool.map(get, range(200)) if error is not None]
    assert refused, "two hundred calls at once are more than five"
    for error in refused:
        assert error.response["Error"]["Code"] == "ThrottlingException"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert "GetCodeInterpreter 5 times in a second" in error.response["Error"]["Message"]
        assert "FUMEHOOD_GET_CODE_INTERPRETER_A_SECOND" in error.response["Error"]["Message"]


def test_boto3_s_standard_retries_wait_and_succeed(limited: Service) -> None:
    client = limited.client("bedrock-agentcore-control", retries={"mode": "standard", "total_max_attempts": 10})
    answers = [client.get_code_interpreter(codeInterpreterId=SYSTEM) for _ in range(3 * _BURST)]
    assert {answer["codeInterpreterId"] for answer in answers} == {SYSTEM}
    assert any(answer["ResponseMetadata"]["RetryAttempts"] for answer in answers), "some had to be repeated"


def test_another_operation_is_not_held_up(limited: Service) -> None:
    client = limited.client("bedrock-agentcore-control", retries={"total_max_attempts": 1})
    for _ in range(2 * _BURST):
        try:
            client.get_code_interpreter(codeInterpreterId=SYSTEM)
        except ClientError:
            break
    assert client.list_code_interpreters()["codeInterpreterSummaries"]


def test_whoever_cannot_sign_takes_nothing_from_the_account_s_rate(limited: Service) -> None:
    client = limited.client("bedrock-agentcore-control", retries={"total_max_attempts": 1})
    forger = limited.client("bedrock-agentcore-control", retries={"total_max_attempts": 1})
    forger._request_signer._credentials.secret_key = "not the secret"
    for _ in range(100):
        with pytest.raises(ClientError, match="signature"):
            forger.create_code_interpreter(name="x", networkConfiguration={"networkMode": "SANDBOX"})
    made = client.create_code_interpreter(name="rates", networkConfiguration={"networkMode": "SANDBOX"})
    client.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])
