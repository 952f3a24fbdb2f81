"""Settings: sources, types, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbmir_node.config import load_settings
from cbmir_node.errors import ConfigurationError


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[dicom]\nport = 1\nae_title = 'FILE'\n[http]\nport = 2\n")
    settings = load_settings(
        file,
        {"http.port": 5, "dicom.port": None},
        {"CBMIR_DICOM__PORT": "3", "CBMIR_HTTP__PORT": "4", "OTHER": "x"},
    )
    assert (settings.dicom.port, settings.http.port) == (3, 5)
    assert settings.dicom.ae_title == "FILE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dicom]\nprot = 1", r"dicom\.prot: unknown key \(did you mean dicom\.port\?\)"),
        ("[dicom]\nport = 'x'", r"dicom\.port: .*integer"),
        ("[dicom]\nport = 70000", r"dicom\.port"),
        ("[dicom]\nhost = '0.0.0.0'", r"dicom\.host: must be a loopback address"),
        ("[http]\nhost = '192.168.1.5'", r"http: host: .* is not loopback"),
        ("[http]\nviewers = { X = 'javascript:alert(1)//{StudyInstanceUID}' }", "javascript: runs"),
        ("[http]\nviewers = { X = 'JavaScript:alert(1)//{StudyInstanceUID}' }", "lower case"),
        ('[http]\nviewers = { X = "\\tdata:x,{StudyInstanceUID}" }', "must be a URL"),
        ("[http]\nviewers = { X = 'weasis://x' }", r"\{StudyInstanceUID\} in it"),
        ("[dicom]\nae_title = 'SEVENTEEN_LETTERS'", r"dicom\.ae_title: must be 1-16"),
        ("[dicom]\nae_title = ' '", r"dicom\.ae_title"),
        ("[archive]\nduplicates = 'both'", r"archive\.duplicates"),
        ("colour = 'blue'", r"colour: unknown key"),
        ("[dicom", r"not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_settings(file, environment={})


def test_a_viewer_may_be_a_program(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    links = {
        "Weasis": "weasis://%24dicom%3Ars%20-r%20%22studyUID%3D{StudyInstanceUID}%22",
        "RadiAnt": "radiant://?n=paet&v=PACS&n=pstv&v=0020000D&v=%22{StudyInstanceUID}%22",
        "OsiriX": "osirix://?methodName=displayStudy&StudyInstanceUID={StudyInstanceUID}",
    }
    lines = [f"{name} = '{link}'" for name, link in links.items()]
    file.write_text("\n".join(["[http.viewers]", *lines]))
    assert load_settings(file, environment={}).http.viewers == links


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"dicom\.prot"):
        load_settings(environment={"CBMIR_DICOM__PROT": "1"})
    with pytest.raises(ConfigurationError, match="CBMIR_LOG_LEVEL__X"):
        load_settings(environment={"CBMIR_LOG_LEVEL": "info", "CBMIR_LOG_LEVEL__X": "1"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml")
