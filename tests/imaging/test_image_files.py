"""PNG and JPEG pictures as Secondary Capture objects, good ones and hostile ones."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import DecoderDiedError, UploadError
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.image_files import secondary_capture
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.imaging.pictures import pictures
from tests.imaging.image_objects import colours, ramp, write_object

GREY = ramp(25, 31, top=255).astype(np.uint8)
ONE = Preprocessing(16, 20, 1, "pad", (127.0,), (128.0,))
THREE = Preprocessing(16, 20, 3, "stretch", (127.0,) * 3, (128.0,) * 3)


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    with DecoderProcess(ImagingSettings(decode_timeout_s=2, decode_memory_mib=512)) as process:
        yield process


def with_alpha(alpha: int) -> Image.Image:
    image = Image.fromarray(colours())
    image.putalpha(alpha)
    return image


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def converted(file: Path) -> np.ndarray:
    secondary_capture(file, "", file.with_suffix(".dcm"))
    return pictures(file.with_suffix(".dcm"), 1)[0].pixels


PICTURES: dict[str, tuple[Image.Image, str, dict[str, Any], np.ndarray | None]] = {
    "grey": (Image.fromarray(GREY), "png", {}, GREY),
    "colour": (Image.fromarray(colours()), "png", {}, colours()),
    "palette": (Image.fromarray(colours()).quantize(64), "png", {}, None),
    "opaque": (with_alpha(255), "png", {}, colours()),
    "transparent": (with_alpha(0), "png", {}, np.zeros_like(colours())),
    "grey, transparent": (
        *(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (31, 25))]), "png", {}),
        np.zeros_like(GREY),
    ),
    "black and white": (Image.fromarray(GREY > 127), "png", {}, (GREY > 127) * np.uint8(255)),
    "grey JPEG": (Image.fromarray(GREY), "jpg", {}, None),
    "colour JPEG": (Image.fromarray(colours()), "jpg", {}, None),
    "CMYK JPEG": (Image.fromarray(colours()).convert("CMYK"), "jpg", {}, None),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_and_its_object_are_the_same_to_the_network(tmp_path: Path, kind: str) -> None:
    image, suffix, options, expected = PICTURES[kind]
    file = tmp_path / f"picture.{suffix}"
    image.save(file, **options)
    with Image.open(file) as saved:
        is_grey = saved.mode in ("L", "1", "LA")
        if expected is None:
            expected = np.asarray(saved.convert("L" if is_grey else "RGB"))
    shown = converted(file)
    for preprocessing in (ONE, THREE):
        np.testing.assert_array_equal(
            network_input(shown, preprocessing), network_input(expected, preprocessing)
        )
    assert dcmread(file.with_suffix(".dcm")).SamplesPerPixel == (1 if is_grey else 3)


def test_a_photo_stands_upright(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    Image.fromarray(GREY).save(file, exif=exif(6), quality=100)
    with Image.open(file) as saved:
        lying = np.asarray(saved)
    np.testing.assert_array_equal(converted(file), np.rot90(lying, -1))


def test_of_a_phones_pictures_the_first_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(file, "MPO", save_all=True, append_images=[second], quality=100)
    assert np.abs(converted(file).astype(int) - GREY).max() < 8
    assert dcmread(file.with_suffix(".dcm")).LossyImageCompression == "01"


def test_deep_grey_keeps_its_values(tmp_path: Path) -> None:
    deep = ramp(top=60000)
    file = tmp_path / "deep.png"
    Image.fromarray(deep).save(file)
    shown = converted(file)
    dataset = dcmread(file.with_suffix(".dcm"))
    np.testing.assert_array_equal(dataset.pixel_array, deep)
    np.testing.assert_array_equal(
        shown, pictures(write_object(tmp_path / "same.dcm", deep), 1)[0].pixels
    )


def test_the_object_says_what_is_known_and_invents_nothing(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "scan.jpg")
    for number in (1, 2):
        secondary_capture(
            tmp_path / "scan.jpg", "CR", tmp_path / f"{number}.dcm", "thorax\\ä\x00 (1).jpg"
        )
    first, second = (dcmread(tmp_path / f"{number}.dcm") for number in (1, 2))
    assert first.SOPClassUID == SecondaryCaptureImageStorage
    assert (first.Modality, first.StudyDescription) == ("CR", "thoraxä (1).jpg")
    assert (first.PatientID, first.PatientName, first.StudyDate) == ("", "", "")
    assert (first.LossyImageCompression, first.PhotometricInterpretation) == ("01", "RGB")
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert first[keyword].value.is_valid
        assert first[keyword].value != second[keyword].value


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def write_bomb(path: Path) -> None:
    """Write a PNG of a few bytes whose header promises 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + png_chunk(b"IEND", b"")
    )


def write_truncated(path: Path) -> None:
    Image.fromarray(colours(200, 200)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def write_wide(path: Path) -> None:
    Image.new("L", (70000, 1)).save(path, "PNG")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_bomb, "too large"),
        (write_wide, "too large"),
        (lambda path: Image.new("1", (8001, 8001)).save(path, "PNG"), "64 million pixels"),
        (write_truncated, "save it again"),
        (lambda path: path.write_text("Dear colleague, " * 50), "save it again"),
        (lambda path: Image.fromarray(GREY).save(path, "GIF"), "save it again"),
        (lambda path: path.write_bytes(b""), "save it again"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_remedy(
    tmp_path: Path, decoder: DecoderProcess, write: Any, message: str
) -> None:
    write(tmp_path / "picture")
    with pytest.raises(UploadError, match=message) as refused:
        decoder.secondary_capture(tmp_path / "picture", "OT", tmp_path / "object.dcm")
    assert str(tmp_path) not in str(refused.value)


def test_a_file_that_ends_its_decoder_takes_nothing_else_with_it(
    tmp_path: Path, decoder: DecoderProcess
) -> None:
    os.mkfifo(tmp_path / "endless")  # a pipe that nobody writes to
    with pytest.raises(DecoderDiedError, match="longer than 2 s"):
        decoder.secondary_capture(tmp_path / "endless", "OT", tmp_path / "object.dcm")
    Image.fromarray(GREY).save(tmp_path / "good.png")
    decoder.secondary_capture(tmp_path / "good.png", "OT", tmp_path / "object.dcm")
    assert dcmread(tmp_path / "object.dcm").Rows == len(GREY)
