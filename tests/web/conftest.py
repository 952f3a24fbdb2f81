"""A node's HTTP port on a free port of loopback, over a few images that are embedded already.

Everything is real but the worker beside the node, which would have nothing to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import MultiFrameGrayscaleByteSecondaryCaptureImageStorage, generate_uid

from cbmir_node.config import Settings
from cbmir_node.node import Node
from cbmir_node.web.access.passwords import hash_password
from cbmir_node.web.services import WebServices
from cbmir_node.worker import Worker
from tests.objects import make_object
from tests.small_node import drain, keep, open_small_stores

SIDE = 32


class IdleSupervisor:
    """Stands for the worker process, for which there is nothing to do."""

    restarts = 0

    def __init__(self, *_arguments: object) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def is_running(self) -> bool:
        return True


@dataclass
class WebNode:
    """A running node and what is in it."""

    node: Node
    objects: list[Dataset]

    @property
    def services(self) -> WebServices:
        return self.node.services

    @property
    def port(self) -> int:
        return self.node.http.port

    @property
    def url(self) -> str:
        scheme = "https" if self.node.settings.http.certificate else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def evict(self, sop_instance_uid: str) -> None:
        """Forget where an image's file is, as retention does."""
        with self.node.stores.catalog.write() as connection:
            connection.exec_driver_sql(
                "UPDATE instances SET path = '' WHERE sop_instance_uid = ?", (sop_instance_uid,)
            )

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the port; keyword arguments are those of `httpx.Client`."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=20, **options)


def make_images() -> list[Dataset]:
    """Make eight images of four patients, of which any two look different.

    P1 has two CT studies, the first of two series of two images; P2 a CT, P3 an MR study, and P4
    three frames of ultrasound in one object.
    """
    first = {"PatientID": "P1", "PatientName": "Adams^Ann", "PatientBirthDate": "19600101"}
    head = {**first, "StudyInstanceUID": generate_uid(), "AccessionNumber": "A1"}
    axial = {**head, "SeriesInstanceUID": generate_uid(), "SeriesDescription": "axial"}
    coronal = {**head, "SeriesInstanceUID": generate_uid(), "SeriesNumber": 2}
    frames = {
        "SOPClassUID": MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        "NumberOfFrames": 3,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": b"".join(_picture(seed, np.uint8) for seed in (7, 8, 9)),
    }
    plans: list[dict[str, Any]] = [
        {**axial, "InstanceNumber": 1},
        {**axial, "InstanceNumber": 2},
        {**coronal, "InstanceNumber": 1},
        {**coronal, "InstanceNumber": 2},
        {**first, "StudyDate": "20240601", "AccessionNumber": "A2", "StudyDescription": "Neck"},
        {"PatientID": "P2", "PatientName": "Brown^Bob", "PatientSex": "M", "AccessionNumber": "A3"},
        {"PatientID": "P3", "PatientName": "Cole^Cleo", "Modality": "MR", "AccessionNumber": "A4"},
        {"PatientID": "P4", "PatientName": "Diaz^Dora", "Modality": "US", **frames},
    ]
    return [
        make_object(**{"size": SIDE, "PixelData": _picture(seed, np.int16), **plan})
        for seed, plan in enumerate(plans)
    ]


def _picture(seed: int, kind: type[np.integer[Any]]) -> bytes:
    """Return the pixels of a picture of 4 x 4 even squares, at random."""
    squares = np.random.default_rng(seed).integers(0, 200, (4, 4))
    return squares.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1).astype(kind).tobytes()


def quick_hash(password: str) -> str:
    """Return a hash of a password that takes no time to compare, unlike those in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cbmir_node.web.access.passwords._N", 16)
        return hash_password(password)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Dataset]]:
    """Make a data folder with embedded images once; return it and the images."""
    folder = tmp_path_factory.mktemp("embedded")
    stores = open_small_stores(Settings(data_dir=folder / "data"))
    images = make_images()
    try:
        keep(stores, folder, *images)
        with Worker(stores) as worker:
            drain(worker, stores.registry.active())
    finally:
        stores.close()
    return folder / "data", images


@pytest.fixture(scope="module")
def start_web(
    embedded: tuple[Path, list[Dataset]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., WebNode]]:
    """Return a function that starts a node with a copy of the images; keywords are of `http`.

    ``sections`` holds other sections of `Settings`.
    """
    template, images = embedded
    nodes: list[Node] = []

    def start(sections: dict[str, Any] | None = None, **http: Any) -> WebNode:
        data_dir = tmp_path_factory.mktemp("web") / "data"
        shutil.copytree(template, data_dir)
        tree = {"data_dir": data_dir, "dicom": {"port": 0}, **(sections or {})}
        settings = Settings.model_validate({**tree, "http": {"port": 0, **http}})
        nodes.append(Node(settings).__enter__())
        return WebNode(nodes[-1], images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cbmir_node.node.WorkerSupervisor", IdleSupervisor)
        yield start
        for node in nodes:
            node.__exit__(None, None, None)


@pytest.fixture(scope="module")
def web(start_web: Callable[..., WebNode]) -> WebNode:
    """Start a node with default settings: nobody has to log in."""
    return start_web()


@pytest.fixture(scope="module")
def client(web: WebNode) -> Iterator[httpx.Client]:
    """Return a client of that node."""
    with web.client() as opened:
        yield opened
