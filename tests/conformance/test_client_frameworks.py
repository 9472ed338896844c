"""The agent frameworks' own clients, unmodified, with what `fumehood env` sets: what their models would read."""

import json
from typing import Any

import pytest

from tests import python_clients
from tests.service import Service

_FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"
CODE = {
    "a value": ("python", "x = 6 * 7\nprint(x)"),
    "the state of an earlier call": ("python", "print(x + 1)"),
    "an error": ("python", "print('before')\nundefined_name"),
    "a value of JavaScript": ("javascript", "const y = 6 * 7\nconsole.log(y)"),
    "the state of JavaScript": ("javascript", "console.log(y + 1)"),
    "a value of TypeScript": ("typescript", "const z: number = 6 * 7\nconsole.log(z)"),
    "a figure": ("python", f"print('before')\n{_FIGURE}\nprint('after')"),
    "two figures": ("python", f"{_FIGURE}\nprint('between')\n{_FIGURE}"),
    "a table": ("python", "import pandas\npandas.DataFrame({'quarter': ['first', 'second'], 'sales': [1200, 3400]})"),
    "a large table": ("python", "pandas.set_option('display.max_rows', 2000)\npandas.DataFrame({'n': range(1500)})"),
    "a sound": ("python", "import IPython.display\nprint('before')\nIPython.display.Audio(bytes(8000), rate=8000)"),
}
"""What is run first, in this order, in one session."""

_ENVIRONMENTS = {
    "langchain_toolkit": "frameworks",
    "llama_index_spec": "frameworks",
    "strands_tool": "frameworks",
    "mcp_server": "frameworks",
    "crewai_toolkit": "crewai",
}
_WITH_TASKS = ("langchain_toolkit", "llama_index_spec", "crewai_toolkit")
_LEAVE_IMAGES_OUT = ("langchain_toolkit", "llama_index_spec", "mcp_server", "crewai_toolkit")
_READS_LINKS = ("strands_tool", "mcp_server")
"""Those that show their models the links in the answer of listFiles; the others leave them out."""

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, server: Service) -> Found:
    """What a client, named by the test's parameter, answered to everything that it was asked."""
    script = request.param
    return python_clients.run(_ENVIRONMENTS[script], f"{script}.py", server.environment(), CODE)


def _of(*clients: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("found", clients or _ENVIRONMENTS, indirect=True)


@_of()
def test_code_runs_in_a_session_that_keeps_its_state(found: Found) -> None:
    assert "42" in found["a value"]
    assert "43" in found["the state of an earlier call"]


@_of()
def test_javascript_and_typescript_run_as_python_does(found: Found) -> None:
    assert "42" in found["a value of JavaScript"]
    assert "43" in found["the state of JavaScript"]
    assert "42" in found["a value of TypeScript"]


@_of()
def test_an_error_is_read_with_what_was_printed_before_it(found: Found) -> None:
    assert "NameError: name 'undefined_name' is not defined" in found["an error"]
    assert "before" in found["an error"]


@_of()
def test_all_that_a_plotting_program_prints_is_read(found: Found) -> None:
    text = found["a figure"]
    assert -1 < text.find("before") < text.find("<Figure size 640x480 with 1 Axes>") < text.find("after")
    assert "between" in found["two figures"]


@_of(*_LEAVE_IMAGES_OUT)
def test_a_figure_costs_the_model_nothing_where_its_client_leaves_images_out(found: Found) -> None:
    assert len(found["a figure"]) < 500


@_of("strands_tool")
def test_strands_prints_figures_at_its_model(found: Found) -> None:
    """Known and written down in docs/clients.md: its way out is to have images as links."""
    assert "'mimeType': 'image/png'" in found["a figure"]


@_of()
def test_a_table_is_read_as_text(found: Found) -> None:
    for cell in ("quarter", "sales", "second", "3400"):
        assert cell in found["a table"]


@_of()
def test_the_html_of_a_large_table_is_not_put_into_the_model_s_context(found: Found) -> None:
    assert "1499" in found["a large table"]
    assert "<td>" not in found["a large table"]


@_of()
def test_no_client_loses_a_result_with_a_sound_in_it(found: Found) -> None:
    assert "before" in found["a sound"]
    assert "IPython.lib.display.Audio object" in found["a sound"]
    assert len(found["a sound"]) < 1000


@_of()
def test_a_command_s_two_outputs_are_read(found: Found) -> None:
    assert "from the shell" in found["command"]
    assert "and an error" in found["command"]


@_of()
def test_what_is_written_to_a_file_is_read_back(found: Found) -> None:
    assert "the content" in found["read"]


@_of(*_READS_LINKS)
def test_a_folder_s_files_are_listed(found: Found) -> None:
    assert "a.txt" in found["list"]


@_of("langchain_toolkit", "llama_index_spec", "strands_tool", "crewai_toolkit")
def test_a_removed_file_is_told_to_be_missing(found: Found) -> None:
    assert "Successfully removed all 1 files" in found["delete"]
    assert "dir/a.txt: No such file or directory" in found["read again"]


@_of("langchain_toolkit", "llama_index_spec", "strands_tool", "crewai_toolkit")
def test_another_conversation_has_a_session_of_its_own(found: Found) -> None:
    assert "False" in found["another conversation"]


@_of(*_WITH_TASKS)
def test_a_task_can_be_followed_and_stopped_by_what_the_model_reads(found: Found) -> None:
    assert "submitted" in found["task"]
    assert "working" in found["task running"]
    assert "canceled" in found["task stopped"]


@_of("langchain_toolkit", "mcp_server")
def test_an_installation_that_cannot_be_done_is_told(found: Found) -> None:
    assert "No matching distribution found for no-such-package" in found["install"]


@_of("langchain_toolkit")
def test_the_langchain_toolkit_has_the_tools_it_documents(found: Found) -> None:
    assert len(found["tools"]) == 11
    assert "a,b\n1,2" in found["read"]


@_of("llama_index_spec")
def test_llama_index_downloads_what_it_uploads_and_clears_the_context(found: Found) -> None:
    assert "a,b\n1,2" in found["download"]
    assert "False" in found["cleared"]


@_of("strands_tool")
def test_strands_finds_its_session_again(found: Found) -> None:
    assert "42" in found["reconnected"]


@_of("mcp_server")
def test_the_mcp_server_manages_sessions_and_tells_failure(found: Found) -> None:
    assert json.loads(found["a value"]) | {"message": ""} == {
        "stdout": "42", "stderr": "", "exit_code": 0, "is_error": False, "content": "42", "message": ""
    }  # fmt: skip
    failed = json.loads(found["command"])
    assert (failed["exit_code"], failed["is_error"]) == (3, True)
    session = found["session"]["session_id"]
    assert json.loads(found["described"])["status"] == "READY"
    assert session in [each["session_id"] for each in json.loads(found["sessions"])["sessions"]]
    assert json.loads(found["described again"])["status"] == "TERMINATED"


@pytest.fixture(scope="module")
def deep_agents(server: Service) -> Found:
    """What the backend of Deep Agents answered."""
    return python_clients.run("frameworks", "deep_agents_backend.py", server.environment(), None)


def test_deep_agents_backend_works_on_files_by_commands_and_by_the_api_alike(deep_agents: Found) -> None:
    home = deep_agents["home"]
    assert deep_agents["write"] == {"error": None, "path": f"{home}/src/app.py"}
    assert "second = 2" in deep_agents["read"]["file_data"]["content"]
    assert deep_agents["edit"]["occurrences"] == 1
    assert deep_agents["edited"] == "first = 1\nsecond = 40\nthird = first + second\n"
    assert [entry["path"] for entry in deep_agents["ls"]["entries"]] == [f"{home}/src/app.py"]
    assert [(match["path"], match["line"]) for match in deep_agents["grep"]["matches"]] == [
        (f"{home}/src/app.py", 2),
        (f"{home}/src/app.py", 3),
    ]
    assert [match["path"] for match in deep_agents["glob"]["matches"]] == [f"{home}/src/app.py"]
    assert deep_agents["rewrite"]["error"] is None
    assert deep_agents["rewritten"] == "zeroth = 0\n"


def test_deep_agents_backend_carries_any_bytes_and_names_what_is_missing(deep_agents: Found) -> None:
    assert [each["error"] for each in deep_agents["upload"]] == [None]
    assert deep_agents["download"] == [True, None, None, "file_not_found"]


def test_deep_agents_backend_runs_commands_at_once_and_reads_all_of_a_long_output(deep_agents: Found) -> None:
    assert "from the shell" in deep_agents["command"]
    assert "and an error" in deep_agents["command"]
    assert deep_agents["at once"] == ["0", "1", "2", "3", "4", "5"]
    assert deep_agents["long"] - deep_agents["expected long"] in (0, 1)


def test_deep_agents_backend_tells_an_ended_session(deep_agents: Found) -> None:
    assert "AgentCore session has expired" in deep_agents["expired"]
