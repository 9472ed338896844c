"""Sessions of an interpreter whose tags choose sizes have these, and no others have them."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from fumehood.settings import GIB, MIB
from tests.service import Service, Session

_NETWORK = {"networkMode": "SANDBOX"}


@pytest.fixture
def control(server: Service) -> Any:
    return server.client("bedrock-agentcore-control")


def _memory_bytes(session: Session) -> int:
    return int(session.sh("grep MemTotal /proc/meminfo")["structuredContent"]["stdout"].split()[1]) * 1024


def test_a_session_has_the_sizes_that_its_interpreter_s_tags_choose(server: Service, control: Any) -> None:
    tags = {"fumehood:memory": "768MiB", "fumehood:disk": "1GiB", "fumehood:processes": "96"}
    made = control.create_code_interpreter(name="sized", networkConfiguration=_NETWORK, tags=tags)
    session = Session(server.client(), made["codeInterpreterId"])
    try:
        assert _memory_bytes(session) == 768 * MIB
        assert session.sh("ulimit -u")["structuredContent"]["stdout"] == "96\n"
        filled = session.sh("head -c 2G /dev/zero > fill; stat -c %s fill")["structuredContent"]
        assert "No space left on device" in filled["stderr"]
        assert int(filled["stdout"]) < GIB
    finally:
        session.stop()
    control.tag_resource(resourceArn=made["codeInterpreterArn"], tags={"fumehood:memory": "512MiB"})
    later = Session(server.client(), made["codeInterpreterId"])
    try:
        assert _memory_bytes(later) == 512 * MIB
    finally:
        later.stop()
    control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])


@pytest.mark.parametrize("value", ["1TiB", "lots", "300MiB"])
def test_a_size_that_is_none_or_too_large_is_refused_at_creation(control: Any, value: str) -> None:
    with pytest.raises(ClientError) as refused:
        control.create_code_interpreter(name="sized", networkConfiguration=_NETWORK, tags={"fumehood:memory": value})
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "fumehood:memory must be a multiple of 256MiB" in refused.value.response["Error"]["Message"]
