"""Files of any accepted kind become DICOM files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Literal

from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive
from cbmir_node.errors import InvalidObjectError, NotAnObjectError, UploadError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.presentation.decoding import decode_with

ExampleKind = Literal["dicom", "png", "jpeg"]

_SIGNATURES: Final[tuple[tuple[bytes, ExampleKind], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
)
_CHUNK: Final = 1 << 20


def write_dicom_file(
    file: Path,
    destination: Path,
    *,
    name: str,
    modality: str,
    archive: Archive,
    decoders: DecoderPool,
) -> ExampleKind:
    """Write a DICOM, PNG or JPEG file, told apart by its first bytes, as a DICOM file.

    Parameters
    ----------
    file : Path
        Left alone.
    destination : Path
        Becomes readable for this user only.
    name, modality : str
        Of a picture, see `image_files.secondary_capture`.
    archive : Archive
        Whose limits a DICOM file has to keep.
    decoders : DecoderPool
        Of the caller.

    Raises
    ------
    UploadError
        It is none of these, or damaged.
    DecoderDiedError, DecoderUnavailableError, OutOfSpaceError
        The picture cannot be decoded, or not be written.
    """
    with file.open("rb") as opened:
        head = opened.read(16)
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            destination.touch(mode=0o600, exist_ok=False)
            decode_with(
                decoders,
                lambda decoder: decoder.secondary_capture(file, modality, destination, name),
            )
            return kind
    try:
        _copy_object(file, destination, archive)
    except NotAnObjectError as error:
        raise UploadError(
            "the file is no DICOM object, PNG or JPEG: export it as one of these"
        ) from error
    except InvalidObjectError as error:
        raise UploadError(f"the DICOM file cannot be used: {error}") from error
    return "dicom"


def _copy_object(file: Path, destination: Path, archive: Archive) -> None:
    """Copy a DICOM file; one without preamble gets its file meta information (PS3.10 7.1)."""
    header = archive.read_header(file)
    with IncomingObject(destination.parent, archive.max_object_bytes) as copy:
        copy.begin(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, "")
        with file.open("rb") as original:
            original.seek(header.dataset_offset)
            shutil.copyfileobj(original, copy, _CHUNK)
        copy.finish()
        copy.path.rename(destination)
