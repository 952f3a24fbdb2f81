"""Uploads to DICOMweb, and what a data folder holds after them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from sqlalchemy import select

from cbmir_node.catalog import schema
from cbmir_node.stores import Stores

DICOM = "application/dicom"
TYPE = f'multipart/related; type="{DICOM}"; boundary=here'


def encoded(dataset: Dataset) -> bytes:
    """Return an object as a file."""
    buffer = io.BytesIO()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def related(*files: bytes, part_type: str = DICOM) -> bytes:
    """Return files as the body that `TYPE` names."""
    head = f"--here\r\nContent-Type: {part_type}\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + b"--here--\r\n"


def stored(stores: Stores) -> dict[str, Path]:
    """Return the file of each object in the catalogue by its SOP Instance UID."""
    columns = schema.instances.c
    with stores.catalog.read() as connection:
        rows = connection.execute(select(columns.sop_instance_uid, columns.path))
        return {uid: stores.archive.path(path) for uid, path in rows}


def left_over(stores: Stores) -> list[Path]:
    """Return what lies in the archive or among the examples and belongs to no object."""
    known = set(stored(stores).values())
    kept = {stores.archive.path(path) for path in stores.archive.files()}
    incoming = (stores.archive.root / "incoming").iterdir()
    examples = stores.settings.examples_path
    return [*incoming, *(kept - known), *(examples.iterdir() if examples.exists() else ())]


def values(answer: Any, keyword_tag: str) -> list[Any]:
    """Return the values of an element in DICOM JSON."""
    found: list[Any] = answer.get(keyword_tag, {}).get("Value", [])
    return found
