"""docs/identity.md names every action, condition key and value of a profile there is, and its examples are right."""

import json
import re
from pathlib import Path

import pytest
from tests.operations import every_route

from fumehood.identity.authorisation import PolicyFile
from fumehood.identity.condition_keys import CALLER, ROLE, TRUST, ConditionKeys
from fumehood.identity.conditions import OPERATORS
from fumehood.identity.principals import VALUES
from fumehood.identity.roles import Roles

PAGE = (Path(__file__).parents[3] / "docs" / "identity.md").read_text()


def test_it_names_every_action_of_our_own_and_no_other() -> None:
    table = PAGE[PAGE.index("| action | on |") : PAGE.index("**Condition keys.**")]
    assert set(re.findall(r"fumehood:(\w+)", table)) == {route.operation for route in every_route()}


@pytest.mark.parametrize("keys", [CALLER, ROLE, TRUST], ids=["caller", "role", "trust"])
def test_it_names_every_condition_key(keys: ConditionKeys) -> None:
    assert [name for name in keys.names if f"`{name}`" not in PAGE and f"`{name}…`" not in PAGE] == []


def test_it_names_every_operator() -> None:
    spelled_out = [name for name in OPERATORS if not name.startswith(("Numeric", "Date"))]
    assert [name for name in spelled_out if f"`{name}`" not in PAGE] == []


def test_it_names_every_value_of_a_profile() -> None:
    assert [name for name in VALUES if f"`{name}`" not in PAGE] == []


def test_its_examples_are_read_as_they_are(tmp_path: Path) -> None:
    policies, roles = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    for name, text in (("policies.json", policies), ("roles.json", roles)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    assert PolicyFile.load(tmp_path / "policies.json", required=True).names == ["analyst"]
    arn = json.loads(roles)["roles"][0]["arn"]
    assert Roles.load(tmp_path / "roles.json", required=True).find(arn) is not None
