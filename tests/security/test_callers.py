"""Principals of one account that may do different things, against a real server; and what a role takes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fumehood.identity import credentials_file
from fumehood.identity.trust import SERVICE
from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

SYSTEM = "aws.codeinterpreter.v1"
ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reports"
SANDBOX = {"networkMode": "SANDBOX"}
CONTROL = "bedrock-agentcore-control"
TOKEN = "6f2c1a7e-93b1-4a3e-b0de-4a6a3c0d5b12"
DENIED, UNKNOWN_KEY = "AccessDeniedException", "UnrecognizedClientException"


def allow(action: object, resource: object = "*", **condition: object) -> dict[str, object]:
    return {"Effect": "Allow", "Action": action, "Resource": resource} | ({"Condition": condition} if condition else {})


def document(*statements: dict[str, object]) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def write(path: Path, content: object) -> None:
    """As an editor that is careful would: complete or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(content))
    new.chmod(0o600)
    new.replace(path)


def write_roles(server: Service, *, trusted: bool = True) -> None:
    who = SERVICE if trusted else "lambda.amazonaws.com"
    trust = {"Effect": "Allow", "Principal": {"Service": who}, "Action": "sts:AssumeRole"}
    trust["Condition"] = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    role = {"arn": ROLE, "policies": [], "trust": document(trust), "credentials": {"embedded": True}}
    write(server.data / "roles.json", {"roles": [role]})


def is_done(attempt: Callable[[], object], code: str) -> bool:
    """Whether it succeeds; false where it ends in this error. Others are raised."""
    try:
        attempt()
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
        return False
    return True


@pytest.fixture(scope="module")
def callers(server: Service, client: Any) -> Iterator[Service]:
    """The shared server with principals of several powers, one role, and two interpreters."""
    control = server.client(CONTROL)
    made = {
        name: control.create_code_interpreter(name=name, networkConfiguration=SANDBOX)
        for name in ("open_one", "closed_one")
    }
    write_roles(server)
    write(
        server.data / "policies.json",
        {
            "policies": {
                "use": document(allow(["bedrock-agentcore:*", "fumehood:*"])),
                "pass": document(
                    allow("iam:PassRole", ROLE, StringEquals={"iam:PassedToService": SERVICE}),
                ),
                "narrow": document(
                    allow(["bedrock-agentcore:*", "fumehood:*"], made["open_one"]["codeInterpreterArn"]),
                ),
            }
        },
    )
    path = server.data / "credentials"
    credentials_file.add(path, "builder", ACCOUNT, ("use",))
    credentials_file.add(path, "passer", ACCOUNT, ("use", "pass"))
    credentials_file.add(path, "narrow", ACCOUNT, ("narrow",))
    credentials_file.add(path, "passing-by", ACCOUNT, None)
    passer = server.client(CONTROL, "passer")
    wait_until(lambda: may_list(passer), "the new principals and policies to be in force")
    yield server
    for interpreter in made.values():
        empty_and_delete(client, control, interpreter["codeInterpreterId"])


def may_list(control: Any) -> bool:
    try:
        control.list_code_interpreters()
    except ClientError as error:
        assert error.response["Error"]["Code"] in (DENIED, UNKNOWN_KEY)
        return False
    return True


def empty_and_delete(client: Any, control: Any, interpreter: str) -> None:
    for item in client.list_code_interpreter_sessions(codeInterpreterIdentifier=interpreter)["items"]:
        client.stop_code_interpreter_session(codeInterpreterIdentifier=interpreter, sessionId=item["sessionId"])
    control.delete_code_interpreter(codeInterpreterId=interpreter)


def interpreters_of(server: Service) -> dict[str, str]:
    """The account's interpreters: name → id."""
    listed = server.client(CONTROL).list_code_interpreters(maxResults=100)["codeInterpreterSummaries"]
    return {entry["name"]: entry["codeInterpreterId"] for entry in listed}


def test_who_may_create_and_invoke_but_not_pass_gets_no_session_with_a_role(callers: Service) -> None:
    control, data = callers.client(CONTROL, "builder"), callers.client(principal="builder")
    with pytest.raises(ClientError) as refused:
        control.create_code_interpreter(name="escalated", networkConfiguration=SANDBOX, executionRoleArn=ROLE)
    assert refused.value.response["Error"] == {
        "Code": DENIED,
        "Message": f"User: arn:aws:iam::{ACCOUNT}:user/builder is not authorized to perform: iam:PassRole on resource: "
        f"{ROLE} because no identity-based policy allows the iam:PassRole action",
    }
    assert "escalated" not in interpreters_of(callers)
    made = control.create_code_interpreter(name="harmless", networkConfiguration=SANDBOX)["codeInterpreterId"]
    session = Session(data, made)
    assert session.sh("echo runs")["structuredContent"]["stdout"] == "runs\n"
    assert "executionRoleArn" not in control.get_code_interpreter(codeInterpreterId=made)
    session.stop()
    control.delete_code_interpreter(codeInterpreterId=made)


def test_repeating_the_request_of_who_may_pass_a_role_does_not_pass_it(callers: Service) -> None:
    wanted = {"name": "passed", "networkConfiguration": SANDBOX, "executionRoleArn": ROLE, "clientToken": TOKEN}
    passer = callers.client(CONTROL, "passer")
    made = passer.create_code_interpreter(**wanted)
    with pytest.raises(ClientError, match="iam:PassRole"):
        callers.client(CONTROL, "builder").create_code_interpreter(**wanted)
    assert passer.get_code_interpreter(codeInterpreterId=made["codeInterpreterId"])["executionRoleArn"] == ROLE
    passer.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])


@pytest.mark.parametrize("name", ["reports", "nowhere"])
def test_another_account_s_role_cannot_be_named_whether_it_is_there_or_not(
    callers: Service, stranger: Any, name: str
) -> None:
    assert stranger
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    with pytest.raises(ClientError) as refused:
        callers.client(CONTROL, "stranger").create_code_interpreter(
            name="crossed", networkConfiguration=SANDBOX, executionRoleArn=arn
        )
    assert refused.value.response["Error"] == {"Code": DENIED, "Message": "Cross-account pass role is not allowed."}


def test_no_session_starts_with_a_role_that_trusts_no_more(callers: Service) -> None:
    passer, data = callers.client(CONTROL, "passer"), callers.client(principal="passer")
    made = passer.create_code_interpreter(name="trusted", networkConfiguration=SANDBOX, executionRoleArn=ROLE)
    interpreter = made["codeInterpreterId"]
    session = Session(data, interpreter)
    by_hand = Caller(callers, "passer")
    snapshot = json.loads(by_hand.call("POST", f"/fumehood/v1/sessions/{session.id}/snapshot").body)["snapshotId"]
    write_roles(callers, trusted=False)

    def starts() -> bool:
        return is_done(lambda: Session(data, interpreter).stop(), "ValidationException")

    try:
        wait_until(lambda: not starts(), "the role's withdrawal to be in force")
        with pytest.raises(ClientError) as refused:
            Session(data, interpreter)
        assert f"Role validation failed for '{ROLE}'" in refused.value.response["Error"]["Message"]
        images = (callers.data / "images").stat().st_mtime_ns
        for target in (f"sessions/{session.id}/fork", f"snapshots/{snapshot}/sessions"):
            answer = by_hand.call("POST", f"/fumehood/v1/{target}")
            assert (answer.status, answer.error) == (400, "ValidationException")
            assert b"Role validation failed" in answer.body
        assert (callers.data / "images").stat().st_mtime_ns == images, "no image is made for what may not start"
        with pytest.raises(ClientError, match="Role validation failed"):
            passer.create_code_interpreter(name="again", networkConfiguration=SANDBOX, executionRoleArn=ROLE)
    finally:
        write_roles(callers)
    wait_until(starts, "the role to be trusted again")
    session.stop()
    by_hand.call("DELETE", f"/fumehood/v1/snapshots/{snapshot}")
    passer.delete_code_interpreter(codeInterpreterId=interpreter)


def test_the_system_interpreter_has_no_role(callers: Service) -> None:
    shown = callers.client(CONTROL, "passer").get_code_interpreter(codeInterpreterId=SYSTEM)
    assert "executionRoleArn" not in shown


def test_a_principal_for_one_interpreter_reaches_no_other(callers: Service, client: Any) -> None:
    ids = interpreters_of(callers)
    data, control = callers.client(principal="narrow"), callers.client(CONTROL, "narrow")
    by_hand = Caller(callers, "narrow")
    own, others = Session(data, ids["open_one"]), Session(client, ids["closed_one"])
    system = Session(client)
    names = {"codeInterpreterIdentifier": ids["closed_one"], "sessionId": others.id}
    for attempt in (
        lambda: data.start_code_interpreter_session(codeInterpreterIdentifier=ids["closed_one"]),
        lambda: data.start_code_interpreter_session(codeInterpreterIdentifier=SYSTEM),
        lambda: data.get_code_interpreter_session(**names),
        lambda: data.stop_code_interpreter_session(**names),
        lambda: data.invoke_code_interpreter(**names, name="executeCommand", arguments={"command": "touch reached"}),
        lambda: data.list_code_interpreter_sessions(codeInterpreterIdentifier=ids["closed_one"]),
        lambda: control.get_code_interpreter(codeInterpreterId=ids["closed_one"]),
        lambda: control.delete_code_interpreter(codeInterpreterId=ids["closed_one"]),
        control.list_code_interpreters,
        lambda: control.create_code_interpreter(name="more", networkConfiguration=SANDBOX),
    ):
        with pytest.raises(ClientError) as refused:
            attempt()
        assert refused.value.response["Error"]["Code"] == DENIED
    # The right interpreter in the name, another's session: it is not found, as for everybody.
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        data.get_code_interpreter_session(codeInterpreterIdentifier=ids["open_one"], sessionId=others.id)
    unknown = "01K00Z3F8WZ9KBBW4QGRJCVBHH"
    messages: set[bytes] = set()
    for session_id in (others.id, system.id, unknown):
        answer = by_hand.call("GET", f"/fumehood/v1/sessions/{session_id}")
        assert (answer.status, answer.error) == (403, DENIED)
        messages.add(answer.body.replace(session_id.encode(), b""))
    assert len(messages) == 1, "it cannot be told from the answer which of them exist"
    assert by_hand.call("GET", f"/fumehood/v1/sessions/{own.id}").status == 200
    assert others.sh("ls")["structuredContent"]["stdout"] == ""
    for session in (own, others, system):
        session.stop()


def test_a_disabled_principal_is_refused_within_a_second_and_an_enabled_one_served(callers: Service) -> None:
    control, path = callers.client(CONTROL, "passing-by"), callers.data / "credentials"
    control.list_code_interpreters()
    credentials_file.set_disabled(path, "passing-by", True)
    wait_until(
        lambda: not is_done(control.list_code_interpreters, UNKNOWN_KEY),
        "the principal to be refused",
    )
    credentials_file.set_disabled(path, "passing-by", False)
    wait_until(lambda: is_done(control.list_code_interpreters, UNKNOWN_KEY), "the principal to be served")


def test_a_rotated_key_works_beside_the_new_one_and_then_no_more(callers: Service) -> None:
    path = callers.data / "credentials"
    control = callers.client(CONTROL, "passing-by")
    credentials_file.rotate(path, "passing-by", 3600)
    renewed = callers.ask_for_environment("passing-by")
    callers._known["passing-by"] = renewed
    new = callers.client(CONTROL, "passing-by")
    wait_until(lambda: is_done(new.list_code_interpreters, UNKNOWN_KEY), "the new key to be known")
    control.list_code_interpreters()
    credentials_file.rotate(path, "passing-by", 0)
    for former in (control, new):
        wait_until(
            lambda former=former: not is_done(former.list_code_interpreters, UNKNOWN_KEY),
            "the former keys to be refused",
        )
