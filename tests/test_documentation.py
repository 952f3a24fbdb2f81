"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import itertools
import re
import tomllib

import click
import pytest

from cbmir_node.config import load_settings, setting_keys
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
_spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("page", ["cli.md", "configuration.md"])
def test_reference_pages_match_the_code(page: str) -> None:
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == reference.PAGES[page](), f"run: python docs/reference.py (docs/{page} is old)"


def test_every_command_and_option_has_help() -> None:
    for path, command in reference._commands(reference.main, ("cbmir-node",)):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


def test_the_example_configuration_lists_every_setting_at_its_default() -> None:
    example = REPOSITORY / "conf" / "cbmir-node.toml"
    assert load_settings(example, environment={}) == load_settings(environment={})
    named = set()
    section = ""
    for line in example.read_text().splitlines():
        if found := re.fullmatch(r"\[(.+)\]", line):
            section = f"{found[1]}."
        elif found := re.match(r"#?(\w+) = ", line):
            named.add(section + found[1])
    assert named == {key for key, _ in setting_keys()}


def test_the_other_examples_are_valid() -> None:
    for example in (REPOSITORY / "conf").glob("*.toml"):
        load_settings(example, environment={})


def test_every_dependency_is_named_in_the_readme() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    readme = (REPOSITORY / "README.md").read_text().lower()
    names = {re.split(r"[\[<>=~!]", requirement)[0].lower() for requirement in wanted}
    missing = {name for name in names if f"`{name}`" not in readme}
    assert not missing


def test_relative_links_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *DOCS.glob("*.md"), REPOSITORY / "onnx" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
