"""Commands called inside the test process, on a data folder with a tiny network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cbmir_node.cli import main
from cbmir_node.config import Settings
from cbmir_node.stores import Stores
from tests.small_node import open_small_stores

Command = Callable[..., Result]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open a data folder with a tiny network in use."""
    opened = open_small_stores(Settings(data_dir=tmp_path / "data"))
    yield opened
    opened.close()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Run a command on the data folder, which need not exist; log levels are put back."""
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}

    def run(*arguments: object) -> Result:
        words = [*map(str, arguments), "--data-dir", str(tmp_path / "data")]
        return CliRunner().invoke(main, words, prog_name="cbmir-node")

    yield run
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
