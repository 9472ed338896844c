"""The service models are botocore's, and nothing else's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dialect import IMPLEMENTED, operation_model
from fumehood.aws.model import operations


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_operation_is_as_botocore_reads_it(name: str) -> None:
    ours, theirs = operations()[name], operation_model(name)
    assert (ours.method, ours.uri_template) == (theirs.http["method"], theirs.http["requestUri"])
    assert ours.response_code == theirs.http["responseCode"]
    assert ours.input is not None
    assert list(ours.input.members) == list(theirs.input_shape.members)
    assert list(ours.input.required) == theirs.input_shape.required_members
    assert set(ours.errors) == {shape.name for shape in theirs.error_shapes}
    assert (ours.event_stream is not None) == theirs.has_event_stream_output


def test_models_in_the_users_folder_do_not_redefine_the_api(tmp_path: Path) -> None:
    for folder in ("bedrock-agentcore", "bedrock-agentcore-control"):
        model = tmp_path / folder / "2099-01-01" / "service-2.json"
        model.parent.mkdir(parents=True)
        model.write_text('{"metadata": {}, "operations": {}, "shapes": {}}')
    code = "from fumehood.aws.model import operations; print('InvokeCodeInterpreter' in operations())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"AWS_DATA_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == "True\n"
