from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cbmir_node.config import ImagingSettings, Settings
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.stores import Stores
from tests.small_node import open_small_stores


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(ImagingSettings(decode_memory_mib=512), 1) as pool:
        yield pool


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Open stores with a tiny network, which tests of a module share."""
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path_factory.mktemp("presented") / "data",
            "peers": {"PACS": {"host": "127.0.0.1", "port": 4242}},
            "retention": {"retrieve_from": "PACS"},
        }
    )
    opened = open_small_stores(settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def network(stores: Stores) -> ActiveNetwork:
    return ActiveNetwork(stores)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a file may be written."""
    return tmp_path / "file"
