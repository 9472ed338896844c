"""What tests of the dialect share: an endpoint whose operations echo, keys, signed requests, botocore's model."""

import asyncio
import http.client
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.parsers
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from fumehood.aws.endpoint import Endpoint, EventStreamReply
from fumehood.calls import Call, CallRecord, KeyRecord, Plane, Principal
from fumehood.settings import Settings

REGION = "us-east-1"
SESSION_ID = "01K00Z3F8WZ9KBBW4QGRJCVBHH"
INTERPRETER_ID = "tests-AbCdEfGhIj"
INTERPRETER_ARN = f"arn:aws:bedrock-agentcore:{REGION}:111122223333:code-interpreter-custom/{INTERPRETER_ID}"
SYSTEM_ARN = f"arn:aws:bedrock-agentcore:{REGION}:aws:code-interpreter/aws.codeinterpreter.v1"
CLIENT_TOKEN = "fc44978d-bb3a-4eb2-a367-fe5a9f65432a"
MOMENT = datetime(2026, 8, 8, 15, 39, 41, 123000, tzinfo=UTC)

ALICE = Principal("alice", "111122223333", "AKIAALICEALICEALICE0")
ALICE_SECRET = "alice/secret+alice/secret+alice/secret+a"
TEMP = Principal("temp", "111122223333", "ASIATEMPTEMPTEMPTEM0")
TEMP_SECRET = "temp/secret/temp/secret/temp/secret/temp"
TEMP_TOKEN = "FwoGZXIvYXdzEBYaDHqa0AP/temporary+token=="
STRANGER = Principal("stranger", "999988887777", "AKIASTRANGERSTRANGER")
STRANGER_SECRET = "stranger/secret/stranger/secret/stranger"
KEYS = {
    ALICE.access_key_id: KeyRecord(ALICE, ALICE_SECRET),
    STRANGER.access_key_id: KeyRecord(STRANGER, STRANGER_SECRET),
    TEMP.access_key_id: KeyRecord(TEMP, TEMP_SECRET, TEMP_TOKEN),
}

IMPLEMENTED = (
    "CreateCodeInterpreter",
    "GetCodeInterpreter",
    "ListCodeInterpreters",
    "DeleteCodeInterpreter",
    "TagResource",
    "UntagResource",
    "ListTagsForResource",
    "StartCodeInterpreterSession",
    "GetCodeInterpreterSession",
    "ListCodeInterpreterSessions",
    "StopCodeInterpreterSession",
    "InvokeCodeInterpreter",
)
CERTIFICATES = [
    {"location": {"secretsManager": {"secretArn": f"arn:aws:secretsmanager:{REGION}:111122223333:secret:ca"}}}
]
S3_FILES_ARN = f"arn:aws:s3files:{REGION}:111122223333:file-system/fs-{'0' * 17}"
FILE_SYSTEMS = [
    {
        "s3FilesConfiguration": {
            "accessPointArn": f"{S3_FILES_ARN}/access-point/fsap-{'1' * 17}",
            "mountPath": "/mnt/data",
            "fileSystemArn": S3_FILES_ARN,
        }
    },
    {
        "efsConfiguration": {
            "accessPointArn": f"arn:aws:elasticfilesystem:{REGION}:111122223333:access-point/fsap-{'1' * 8}",
            "mountPath": "/mnt/more",
            "fileSystemArn": f"arn:aws:elasticfilesystem:{REGION}:111122223333:file-system/fs-{'0' * 8}",
        }
    },
]
# For each operation, parameters with every member that its input has.
FULL_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "CreateCodeInterpreter": {
        "name": "tests",
        "description": "ünïcode, and \U0001f9ea",
        "executionRoleArn": "arn:aws:iam::111122223333:role/path/name",
        "networkConfiguration": {
            "networkMode": "VPC",
            "vpcConfig": {
                "securityGroups": ["sg-12345678"],
                "subnets": ["subnet-12345678"],
                "requireServiceS3Endpoint": False,
            },
        },
        "certificates": CERTIFICATES,
        "filesystemConfigurations": FILE_SYSTEMS,
        "clientToken": CLIENT_TOKEN,
        "tags": {"a key": "a value", "b": ""},
    },
    "GetCodeInterpreter": {"codeInterpreterId": INTERPRETER_ID},
    "ListCodeInterpreters": {"maxResults": 7, "nextToken": "a+b/c=", "type": "CUSTOM"},
    "DeleteCodeInterpreter": {"codeInterpreterId": INTERPRETER_ID, "clientToken": CLIENT_TOKEN},
    "TagResource": {"resourceArn": INTERPRETER_ARN, "tags": {"k": "v"}},
    "UntagResource": {"resourceArn": INTERPRETER_ARN, "tagKeys": ["a b", "c+d", "e:f/g"]},
    "ListTagsForResource": {"resourceArn": INTERPRETER_ARN},
    "StartCodeInterpreterSession": {
        "traceId": "Root=1-5759e988-bd862e3fe1be46a994272793",
        "traceParent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "codeInterpreterIdentifier": SYSTEM_ARN,
        "name": "a session",
        "sessionTimeoutSeconds": 28_800,
        "certificates": CERTIFICATES,
        "filesystemConfigurations": FILE_SYSTEMS,
        "clientToken": CLIENT_TOKEN,
    },
    "GetCodeInterpreterSession": {"codeInterpreterIdentifier": INTERPRETER_ID, "sessionId": SESSION_ID},
    "ListCodeInterpreterSessions": {
        "codeInterpreterIdentifier": INTERPRETER_ID,
        "maxResults": 100,
        "nextToken": "next",
        "status": "READY",
    },
    "StopCodeInterpreterSession": {
        "traceId": "trace",
        "traceParent": "parent",
        "codeInterpreterIdentifier": INTERPRETER_ID,
        "sessionId": SESSION_ID,
        "clientToken": CLIENT_TOKEN,
    },
    "InvokeCodeInterpreter": {
        "codeInterpreterIdentifier": INTERPRETER_ID,
        "sessionId": SESSION_ID,
        "traceId": "trace",
        "traceParent": "parent",
        "name": "writeFiles",
        "arguments": {
            "code": "print('ä\u2028')",
            "language": "python",
            "clearContext": True,
            "command": "ls",
            "path": "a",
            "paths": ["a", "b/ü"],
            "content": [{"path": "t", "text": "x\n"}, {"path": "b", "blob": bytes(range(256))}],
            "directoryPath": "",
            "taskId": "task",
            "runtime": "nodejs",
        },
    },
}
INTERPRETER = {
    "codeInterpreterId": INTERPRETER_ID,
    "codeInterpreterArn": INTERPRETER_ARN,
    "status": "READY",
    "createdAt": MOMENT,
    "lastUpdatedAt": MOMENT,
}
SESSION = {
    "codeInterpreterIdentifier": INTERPRETER_ID,
    "sessionId": SESSION_ID,
    "status": "READY",
    "createdAt": MOMENT,
    "lastUpdatedAt": MOMENT,
}
RESULT = {"content": [{"type": "text", "text": "2"}], "structuredContent": {"exitCode": 0}, "isError": False}


def members(source: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those members of `source` that are named."""
    return {name: source[name] for name in names}


# For each operation, the members of an answer.
ANSWERS: Mapping[str, dict[str, Any]] = {
    "CreateCodeInterpreter": members(INTERPRETER, "codeInterpreterId", "codeInterpreterArn", "createdAt", "status"),
    "GetCodeInterpreter": {**INTERPRETER, "name": "tests", "networkConfiguration": {"networkMode": "SANDBOX"}},
    "ListCodeInterpreters": {"codeInterpreterSummaries": [INTERPRETER], "nextToken": "next"},
    "DeleteCodeInterpreter": members(INTERPRETER, "codeInterpreterId", "status", "lastUpdatedAt"),
    "TagResource": {},
    "UntagResource": {},
    "ListTagsForResource": {"tags": {"k": "v"}},
    "StartCodeInterpreterSession": members(SESSION, "codeInterpreterIdentifier", "sessionId", "createdAt"),
    "GetCodeInterpreterSession": {
        **members(SESSION, "codeInterpreterIdentifier", "sessionId", "status", "createdAt"),
        "sessionTimeoutSeconds": 900,
    },
    "ListCodeInterpreterSessions": {"items": [SESSION]},
    "StopCodeInterpreterSession": members(SESSION, "codeInterpreterIdentifier", "sessionId", "lastUpdatedAt"),
}


class Echo:
    """An endpoint whose operations note the call and give the answer of the table; with the records it wrote."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.calls: list[Call] = []
        self.records: list[CallRecord] = []
        self.settings = Settings(data=data, region=REGION, **settings)
        operations = dict.fromkeys(IMPLEMENTED, self._answer) | {"InvokeCodeInterpreter": self._stream}
        self.endpoint = Endpoint(self.settings, KEYS.get, self._authorise, operations, self.records.append)

    async def _authorise(self, call: Call) -> None:
        self.calls.append(call)

    async def _answer(self, call: Call) -> Mapping[str, Any]:
        return ANSWERS[call.operation]

    async def _stream(self, call: Call) -> EventStreamReply:
        return EventStreamReply({"sessionId": call.parameters.get("sessionId")}, Events(self._events()))

    async def _events(self) -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        yield "result", RESULT


class Events:
    """The events of a generator, as an iterator that loses nothing where a wait for the next of them is given up."""

    def __init__(self, generator: AsyncGenerator[tuple[str, Mapping[str, Any]]]) -> None:
        self._generator = generator
        self._next: asyncio.Task[tuple[str, Mapping[str, Any]] | None] | None = None

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> tuple[str, Mapping[str, Any]]:
        if self._next is None:
            self._next = asyncio.ensure_future(self._ask())
        try:
            event = await asyncio.shield(self._next)
        finally:
            if self._next.done():
                self._next = None
        if event is None:
            raise StopAsyncIteration
        return event

    async def _ask(self) -> tuple[str, Mapping[str, Any]] | None:
        return await anext(self._generator, None)


def endpoint(data: Path, **replaced: Any) -> tuple[Endpoint, list[CallRecord]]:
    """An endpoint with the operations given as `operations`, and whatever else is replaced; with its records."""
    records: list[CallRecord] = []

    async def allow(_call: Call) -> None:
        return None

    settings = replaced.get("settings", {})
    made = Endpoint(
        Settings(data=data, region=REGION, **settings),
        KEYS.get,
        replaced.get("authorise", allow),
        replaced["operations"],
        replaced.get("record", records.append),
    )
    return made, records


def plane_of(operation: str) -> Plane:
    """The plane that an operation belongs to."""
    return Plane.DATA if operation in service_model(Plane.DATA).operation_names else Plane.CONTROL


@cache
def service_model(plane: Plane) -> botocore.model.ServiceModel:
    """botocore's own view of a plane's model."""
    raw = botocore.loaders.create_loader().load_service_model(plane.value, "service-2")
    return botocore.model.ServiceModel(raw, plane.value)


def operation_model(operation: str) -> botocore.model.OperationModel:
    """botocore's own view of an operation."""
    return service_model(plane_of(operation)).operation_model(operation)


@contextmanager
def client(url: str, plane: Plane, principal: Principal = ALICE, **config: Any) -> Iterator[Any]:
    """A real boto3 client, closed at the end."""
    record = KEYS[principal.access_key_id]
    made = boto3.client(
        plane.value,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=principal.access_key_id,
        aws_secret_access_key=record.secret_access_key,
        aws_session_token=record.session_token,
        config=botocore.config.Config(**config),
    )
    try:
        yield made
    finally:
        made.close()


def method_of(boto3_client: Any, operation: str) -> Callable[..., Any]:
    """The client's method for an operation."""
    names = {api: python for python, api in boto3_client.meta.method_to_api_mapping.items()}
    return getattr(boto3_client, names[operation])


class Answer:
    """An HTTP answer, whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def error(self) -> str:
        """The AWS name of the error."""
        return self.headers["x-amzn-errortype"]


def send(url: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> Answer:
    """Send a request as given: `target` and `headers` go out unchanged, with content-length where it is missing."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def signed(
    url: str,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    principal: Principal = ALICE,
    region: str = REGION,
    service: str = "bedrock-agentcore",
) -> list[tuple[str, str]]:
    """Headers of a request signed by botocore, `Host` among them."""
    record = KEYS[principal.access_key_id]
    credentials = botocore.credentials.Credentials(
        principal.access_key_id, record.secret_access_key, record.session_token
    )
    request = AWSRequest(method, url + target, headers=dict(headers or {}), data=body)
    SigV4Auth(credentials, service, region).add_auth(request)
    return [("Host", urlsplit(url).netloc), *request.headers.items()]


def parse_error(operation: str, answer: Answer) -> dict[str, Any]:
    """An error answer as botocore's client would give it, with the members that the error's model has."""
    model = operation_model(operation)
    parser = botocore.parsers.create_parser("rest-json")
    response = {"headers": answer.headers, "status_code": answer.status, "body": answer.body}
    parsed = parser.parse(response, model.output_shape)
    shape = model.service_model.shape_for_error_code(parsed["Error"]["Code"])
    return parsed | (parser.parse(response, shape) if shape else {})
