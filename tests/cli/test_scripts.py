"""The scripts of the checkout, with stand-ins for what they would install."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


class Checkout:
    """A checkout whose ``pip`` writes down what it is asked to install."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(REPOSITORY / "scripts", root / "scripts")
        (root / "pyproject.toml").write_text("version 1")
        self._log = root / "pip.log"
        (root / ".venv" / "bin").mkdir(parents=True)
        self._program("pip", "")
        self._program("python", f'echo "${{@: -1}}" >>"{self._log}"')
        self._program("cbmir-node", 'echo "$PWD" "$@"')

    def _program(self, name: str, body: str) -> None:
        file = self.root / ".venv" / "bin" / name
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)

    def run(self, script: str, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [self.root / "scripts" / script, *arguments],
            cwd=cwd or self.root,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"]},
        )
        return done.stdout

    def installed(self) -> list[str]:
        """Return what was installed since the last call."""
        if not self._log.exists():
            return []
        lines = self._log.read_text().splitlines()
        self._log.unlink()
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout with a blank")


def test_serve_stays_in_the_callers_folder(checkout: Checkout, tmp_path: Path) -> None:
    shown = checkout.run("serve", "--data-dir", "./x", cwd=tmp_path)
    assert shown.splitlines() == [f"{tmp_path} serve --data-dir ./x"]


def test_serve_installs_what_an_upgrade_needs(checkout: Checkout) -> None:
    checkout.run("install", "cpu")
    assert checkout.installed() == [".[cpu]"]
    checkout.run("serve")
    assert checkout.installed() == []
    (checkout.root / "pyproject.toml").write_text("version 2, with another dependency")
    checkout.run("serve")
    assert checkout.installed() == [".[cpu]"]


def test_extras_add_up(checkout: Checkout) -> None:
    checkout.run("install", "test")
    assert checkout.installed() == [".[cpu,test]"]
    checkout.run("install", "cpu")
    checkout.run("serve")
    assert checkout.installed() == []
    checkout.run("install", "postgresql")
    assert checkout.installed() == [".[cpu,postgresql,test]"]


def test_a_gpu_installation_stays_one(checkout: Checkout) -> None:
    checkout.run("install", "gpu")
    checkout.run("serve")
    assert checkout.installed() == [".[gpu]"]
    checkout.run("install", "test")
    assert checkout.installed() == [".[gpu,test]"]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        checkout.run("install", "cpu")
    assert "exclude each other" in refused.value.stderr
    assert checkout.installed() == []


def test_an_environment_made_by_other_means_is_left_alone(checkout: Checkout) -> None:
    checkout.run("serve")
    assert checkout.installed() == []


def test_the_service_and_other_commands_find_its_data_in_one_configuration() -> None:
    text = (REPOSITORY / "conf" / "cbmir-node.service").read_text()
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text)
    assert unit["Service"]["ExecStart"].endswith(" serve --config /etc/cbmir-node.toml")
    data_dir = f'data_dir = "/var/lib/{unit["Service"]["StateDirectory"]}"'
    assert f"# /etc/cbmir-node.toml needs: {data_dir}\n" in text
    assert f"#{data_dir}\n" in (REPOSITORY / "conf" / "cbmir-node.toml").read_text()
