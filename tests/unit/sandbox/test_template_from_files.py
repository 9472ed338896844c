"""What requirements files, package.json files and recipes say, and which of them are refused, with what is right."""

from pathlib import Path

import pytest

from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.layers import Copy, Env, Layers, Npm, Pip, Run, Workdir, read


def recipe(tmp_path: Path, text: str) -> Layers:
    """The layers of a recipe."""
    file = tmp_path / "Recipe"
    file.write_text(text)
    return read(file, None, "base")


def test_a_recipe_is_its_steps_in_order(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# comment\nhumanize==4.9.0 ; python_version > '3.8'\n\nrich\\\n>=13\n")
    text = """# a comment
        FROM standard
        pip cowsay==6.1 "numpy>=2,<3" -r requirements.txt
        NPM slugify@1.6.6 @scope/name lodash@^4
        COPY a 'b c' /srv/
        ENV A=1 B="two words"
        WORKDIR /srv
        RUN echo one && \\
            echo two
    """
    found = recipe(tmp_path, text)
    assert found.parent == "standard"
    assert found.steps == (
        Pip(3, ("cowsay==6.1", "numpy<3,>=2", 'humanize==4.9.0; python_version > "3.8"', "rich>=13")),
        Npm(4, {"slugify": "1.6.6", "@scope/name": "latest", "lodash": "^4"}),
        Copy(5, ("a", "b c"), "/srv/"),
        Env(6, {"A": "1", "B": "two words"}),
        Workdir(7, "/srv"),
        Run(8, "echo one && echo two"),
    )


def test_requirements_keep_their_hashes(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    digest = "sha256:" + "0" * 64
    file.write_text(f"humanize==4.9.0 --hash={digest} \\\n  --hash={digest}\n")
    assert read(file, None, "base").steps == (Pip(1, (f"humanize==4.9.0 --hash={digest} --hash={digest}",)),)


def test_a_package_json_is_its_dependencies(tmp_path: Path) -> None:
    file = tmp_path / "package.json"
    file.write_text('{"dependencies": {"a": "^1"}, "optionalDependencies": {"b": "*"}, "devDependencies": {"c": "2"}}')
    found = read(file, "standard", "base")
    assert (found.parent, found.steps) == ("standard", (Npm(1, {"a": "^1", "b": "*"}),))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no FROM line"),
        ("RUN true", "line 1: the first instruction is FROM"),
        ("FROM a b", "line 1: FROM takes the name of one template"),
        ("FROM base AS build", "line 1: FROM takes the name of one template"),
        ("FROM base\nFROM base", "line 2: a second FROM"),
        ("FROM base\nADD a /b", "line 2: ADD is not supported; there is FROM, COPY, RUN, PIP, NPM, ENV, WORKDIR"),
        ("FROM base\nUSER root", "line 2: USER is not supported"),
        ("FROM base\nFOO x", "line 2: FOO is no instruction"),
        ("FROM base\nRUN", "line 2: RUN of nothing"),
        ('FROM base\nRUN ["true"]', "line 2: RUN takes a shell command, not a list"),
        ("FROM base\nRUN cd x && apt-get install -y curl", "line 2: RUN has no network, which apt-get needs"),
        ("FROM base\nRUN A=b wget x", "line 2: RUN has no network, which wget needs"),
        ("FROM base\nRUN pip install humanize", "line 2: RUN has no network: name Python packages in a PIP line"),
        ("FROM base\nRUN python3 -m pip install x", "line 2: RUN has no network: name Python packages in a PIP line"),
        ("FROM base\nRUN npm ci", "line 2: RUN has no network: name npm packages in an NPM line"),
        ("FROM base\nRUN git clone x", "line 2: RUN has no network, which git needs"),
        ("FROM base\nCOPY a", "line 2: COPY takes files or folders beside the recipe and a target"),
        ("FROM base\nCOPY --from=x a b", "line 2: COPY takes files or folders beside the recipe and a target"),
        ("FROM base\nCOPY /etc/shadow /b", "line 2: /etc/shadow is outside the recipe's folder"),
        ("FROM base\nCOPY a/../../b /b", "line 2: a/../../b is outside the recipe's folder"),
        ("FROM base\nCOPY a b c", "line 2: COPY of several files takes a folder as target"),
        ("FROM base\nCOPY 'a b", "line 2: No closing quotation"),
        ("FROM base\nENV A b", "line 2: ENV takes NAME=value"),
        ("FROM base\nENV HOME=/x", "line 2: HOME is set by the sandbox"),
        ("FROM base\nENV 1A=x", "line 2: '1A' is no name of a variable"),
        ("FROM base\nWORKDIR a b", "line 2: WORKDIR takes one folder"),
        ("FROM base\nPIP -r ../requirements.txt", "line 2: ../requirements.txt is outside the recipe's folder"),
        ("FROM base\nPIP -r missing.txt", "missing.txt cannot be read: No such file or directory"),
        ("FROM base\nPIP ./wheel.whl", r"line 2: '\./wheel.whl' is no package"),
        ("FROM base\nNPM git+ssh://x/y", "line 2: 'git[+]ssh://x/y' is no package of the registry"),
        ("FROM base\nNPM user/repository", "line 2: 'user/repository' is no package of the registry"),
        ("FROM base\nNPM a@file:../b", "line 2: 'a@file:../b' is no package of the registry"),
        ("FROM base\n\x1b]0;x\x07 y", r"line 2: \\x1b\]0;X\\x07 is no instruction"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        recipe(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no package"),
        ("a\n-r other.txt", "requirements.txt, line 2: -r is not taken"),
        ("-e .", "line 1: -e is not taken"),
        ("--index-url=https://example.com", "line 1: --index-url is not taken"),
        ("git+https://example.com/x", "line 1: .* is no package with a version"),
        ("x @ https://example.com/x.whl", "line 1: x from an address is not taken"),
        ("x @ file:///tmp/x", "line 1: x from an address is not taken"),
        ("./x", "line 1: .* is no package with a version"),
        ("humanize==4.9.0 --global-option=x", "line 1: .* is no package with a version"),
    ],
)
def test_requirements_that_are_more_than_packages_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(text)
    with pytest.raises(TemplateError, match=says):
        read(file, None, "base")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"dependencies": {"a": "file:../b"}}',
        '{"dependencies": {"a": "git+https://example.com/x"}}',
        '{"dependencies": {"a": "user/repository"}}',
        '{"dependencies": {"a": "https://example.com/x.tgz"}}',
        '{"dependencies": {"../a": "1"}}',
        '{"dependencies": {"a": 1}}',
    ],
)
def test_a_package_json_of_anything_but_the_registry_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "package.json"
    file.write_text(text)
    with pytest.raises(TemplateError, match=r"package\.json"):
        read(file, None, "base")


def test_a_link_beside_a_recipe_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("humanize")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "requirements.txt").symlink_to(outside)
    with pytest.raises(TemplateError, match=r"requirements\.txt leads outside the recipe's folder"):
        recipe(inside, "FROM base\nPIP -r requirements.txt")


def test_on_goes_not_with_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "Recipe"
    file.write_text("FROM base")
    with pytest.raises(TemplateError, match="its FROM line names the template"):
        read(file, "base", "base")
