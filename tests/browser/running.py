"""Nodes with phantoms in them, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset

from cbmir_node.config import load_settings
from cbmir_node.stores import open_stores
from cbmir_node.worker import Worker
from tests.end_to_end.conftest import RunningNode
from tests.small_node import drain, keep, open_small_stores


def start_node(
    folder: Path, datasets: Iterable[Dataset], configuration: str = "", *, shipped: bool = False
) -> RunningNode:
    """Start a node that holds and has embedded some objects.

    Parameters
    ----------
    folder : Path
        Empty; the data folder and the configuration lie in it.
    datasets : iterable of Dataset
    configuration : str
        TOML.
    shipped : bool
        With the shipped network; else with a tiny one.
    """
    file = folder / "node.toml"
    file.write_text(configuration)
    settings = load_settings(file, environment={"CBMIR_DATA_DIR": str(folder / "data")})
    stores = open_stores(settings, create=True) if shipped else open_small_stores(settings)
    keep(stores, folder, *datasets)
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())
    stores.close()
    return RunningNode(settings.data_dir, "--config", str(file))
