"""Objects made uncompressed: the pixels stay, the header says what they are."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import (
    DecoderDiedError,
    DecoderUnavailableError,
    OutOfSpaceError,
    PixelError,
)
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.pixel_source import open_pixels
from cbmir_node.imaging.transcoding import can_transcode, transcode
from tests.imaging.image_objects import (
    CT,
    LOSSLESS,
    colours,
    deflate,
    jpeg_lossless,
    ramp,
    rle,
    write_object,
)

JPEG_BASELINE, JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
RLE, JPEG_LOSSLESS, DEFLATED_FRAMES = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.8.1",
)
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
NO_LIMIT = 1 << 32


def transcoded(path: Path, syntax: str, max_bytes: int = NO_LIMIT) -> Path:
    """Transcode a file; return the result with file meta information before it."""
    destination = path.with_suffix(f".{syntax[-1]}")
    transcode(path, syntax, destination, max_bytes)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    result = path.with_suffix(f".{syntax[-1]}.dcm")
    result.write_bytes(b"\0" * 128 + b"DICM" + head.getvalue() + destination.read_bytes())
    return result


def stored_frames(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Decode all frames with the node's own decoders, without conversion of colours."""
    with open_pixels(path, pictures_only=False) as source:
        frames = [source.frame(index) for index in range(source.image.number_of_frames)]
    return [f.values for f in frames], [f.photometric_interpretation for f in frames]


def assert_pixels(after: Path, expected: np.ndarray) -> None:
    """Compare with what was encoded, by a decoder that is not the node's."""
    np.testing.assert_array_equal(pixel_array(dcmread(after), raw=True), expected)


@pytest.mark.parametrize("target", UNCOMPRESSED)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_keeps_every_pixel(tmp_path: Path, syntax: str, target: UID) -> None:
    encode = LOSSLESS[syntax]
    twelve_bits = np.stack([ramp(), ramp()[::-1]])
    grey = write_object(
        tmp_path / "grey.dcm",
        twelve_bits,
        syntax=syntax,
        encode=encode,
        BitsStored=12,
        NumberOfFrames=2,
    )
    colour = write_object(tmp_path / "colour.dcm", colours(), syntax=syntax, encode=encode)
    for path, encoded in ((grey, twelve_bits), (colour, colours())):
        after = transcoded(path, target)
        assert_pixels(after, encoded)
        dataset = dcmread(after)
        assert dataset.get("PlanarConfiguration") == (0 if path == colour else None)
        assert dataset.HighBit == dataset.BitsStored - 1
        assert "LossyImageCompression" not in dataset
        assert len(dataset.PixelData) % 2 == 0


def test_an_odd_number_of_bytes_is_padded_and_signed_values_keep_their_sign(tmp_path: Path) -> None:
    signed = (ramp(5, 5, 400).astype(np.int16) - 200).astype(np.int16)
    odd = np.arange(25, dtype=np.uint8).reshape(5, 5)
    for stored in (signed, odd):
        path = write_object(
            tmp_path / "object.dcm", stored, syntax=JPEG_LOSSLESS, encode=jpeg_lossless
        )
        after = transcoded(path, ExplicitVRLittleEndian)
        assert dcmread(after).pixel_array.tolist() == stored.tolist()


def test_values_above_the_low_bits_of_their_cells_come_down(tmp_path: Path) -> None:
    high = (ramp() << 4).astype(np.uint16)
    path = write_object(
        tmp_path / "high.dcm", high, syntax=RLE, encode=rle, BitsStored=12, HighBit=15
    )
    dataset = dcmread(transcoded(path, ExplicitVRLittleEndian))
    assert dataset.HighBit == 11
    assert dataset.pixel_array.tolist() == ramp().tolist()


def test_one_bit_pixels_run_on_from_frame_to_frame(tmp_path: Path) -> None:
    frames = np.random.default_rng(5).random((3, 5, 5)) < 0.5
    elements: dict[str, Any] = {
        "NumberOfFrames": 3,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation: no picture, and sent too
    }
    path = write_object(
        tmp_path / "bits.dcm", frames, syntax=DEFLATED_FRAMES, encode=deflate, **elements
    )
    after = transcoded(path, ExplicitVRLittleEndian)
    assert dcmread(after).pixel_array.tolist() == frames.astype(int).tolist()


def test_lossless_ybr_stays_and_lossy_ybr_becomes_rgb(tmp_path: Path) -> None:
    ybr = write_object(
        tmp_path / "rle.dcm",
        colours(),
        syntax=RLE,
        encode=rle,
        PhotometricInterpretation="YBR_FULL",
    )
    after = transcoded(ybr, ExplicitVRLittleEndian)
    assert dcmread(after).PhotometricInterpretation == "YBR_FULL"
    assert_pixels(after, colours())
    jpeg = write_object(
        tmp_path / "jpeg.dcm",
        colours(),
        syntax=JPEG_BASELINE,
        encode=lambda frame: imagecodecs.jpeg8_encode(frame, level=95),
        PhotometricInterpretation="YBR_FULL_422",
    )
    dataset = dcmread(transcoded(jpeg, ExplicitVRLittleEndian))
    assert (dataset.PhotometricInterpretation, dataset.PlanarConfiguration) == ("RGB", 0)
    assert np.abs(dataset.pixel_array.astype(int) - colours()).max() < 12
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"


def test_lossy_values_stay_within_bits_stored_and_what_is_known_of_the_loss_stays(
    tmp_path: Path,
) -> None:
    stripes = np.where(np.indices((32, 32)).sum(0) % 3 == 0, 4095, 0).astype(np.uint16)
    path = write_object(
        tmp_path / "lossy.dcm",
        stripes,
        syntax=JPEG_2000_LOSSY,
        encode=lambda frame: imagecodecs.jpeg2k_encode(frame, level=25, codecformat="J2K"),
        BitsStored=12,
        LossyImageCompression="01",
        LossyImageCompressionMethod=["ISO_10918_1", "ISO_15444_1"],
    )
    assert max(values.max() for values in stored_frames(path)[0]) > 4095
    dataset = dcmread(transcoded(path, ExplicitVRLittleEndian))
    assert dataset.pixel_array.max() == 4095
    assert dataset.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1"]


def rich_object(path: Path, syntax: UID) -> Path:
    """Write an object with numbers of all sizes, sequences, private elements and an icon."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Jörg"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.FrameIncrementPointer = 0x00181063
    dataset.RecommendedDisplayFrameRateInFloat = 12.5
    dataset.DiffusionBValue = 1000.25
    dataset.ReferencedSegmentNumber = [1, 2, 513]
    inner = Dataset()
    inner.CodeValue, inner.SimpleFrameList = "113100", [70000, 2]
    outer = Dataset()
    outer.ConceptNameCodeSequence = [inner]
    outer.ExposureIndex = 1.5
    dataset.AcquisitionContextSequence = [outer, Dataset()]
    block = dataset.private_block(0x0019, "SOMEBODY", create=True)
    block.add_new(0x01, "FD", 0.125)
    block.add_new(0x02, "SQ", [inner])
    dataset.Rows = dataset.Columns = 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.add_new("SmallestImagePixelValue", "SS", -300)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = (np.arange(16) * 77 - 300).astype(f"{order}i2").tobytes()
    dataset["PixelData"].VR = "OW"
    behind = dataset.private_block(0x7FE1, "SOMEBODY", create=True)
    behind.add_new(0x10, "UL", [1, 70000])
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("target", UNCOMPRESSED)
@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, DeflatedExplicitVRLittleEndian])
def test_elements_survive_in_every_encoding(tmp_path: Path, syntax: UID, target: UID) -> None:
    before = dcmread(rich_object(tmp_path / "object.dcm", syntax))
    after = dcmread(transcoded(tmp_path / "object.dcm", target))
    if ExplicitVRBigEndian in (syntax, target):
        assert after.pixel_array.tolist() == before.pixel_array.tolist()
    if ImplicitVRLittleEndian in (syntax, target):  # which keeps no VR of private elements
        for dataset in (before, after):
            dataset.remove_private_tags()
            assert "SmallestImagePixelValue" in dataset
    if ExplicitVRBigEndian in (syntax, target):
        del before.PixelData, after.PixelData
    assert after.to_json_dict() == before.to_json_dict()


def test_values_that_break_their_vr_are_passed_on_as_they_are(tmp_path: Path) -> None:
    path = rich_object(tmp_path / "object.dcm", ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes().replace(b"113100", b"\x1b\xff\xfe\\|0"))
    after = transcoded(path, ImplicitVRLittleEndian)
    assert after.read_bytes().count(b"\x1b\xff\xfe\\|0") == 2


def test_an_icon_that_is_compressed_is_left_out(tmp_path: Path) -> None:
    icon = Dataset()
    icon.Rows = icon.Columns = 5
    icon.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    path = write_object(
        tmp_path / "icon.dcm",
        ramp(),
        syntax=RLE,
        encode=rle,
        IconImageSequence=[icon],
        PatientID="P",
    )
    after = dcmread(transcoded(path, ExplicitVRLittleEndian))
    assert "IconImageSequence" not in after
    assert after.PatientID == "P"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NumberOfFrames": 3}, "frames are missing"),
        ({"Rows": 25}, "the header says 25 x 32"),
        ({"Rows": 65535, "Columns": 65535}, "larger than the limit"),
        ({"NumberOfFrames": 30000, "Rows": 8000, "Columns": 8000}, "more than a value can have"),
    ],
)
def test_what_cannot_be_decoded_says_why(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    frames = np.stack([ramp(), ramp()])
    path = write_object(
        tmp_path / "bad.dcm",
        frames,
        syntax=JPEG_LOSSLESS,
        encode=jpeg_lossless,
        NumberOfFrames=2,
    )
    dataset = dcmread(path)
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    with pytest.raises(PixelError, match=reason):
        transcoded(path, ExplicitVRLittleEndian)


def test_pixels_beyond_the_limit_are_not_written(tmp_path: Path) -> None:
    path = write_object(tmp_path / "object.dcm", ramp(), syntax=RLE, encode=rle)
    size = ramp().nbytes
    transcoded(path, ExplicitVRLittleEndian, max_bytes=size)
    with pytest.raises(OutOfSpaceError, match=f"{size} bytes of pixels are more"):
        transcoded(path, ExplicitVRLittleEndian, max_bytes=size - 1)


def test_what_nobody_decodes_is_known_beforehand() -> None:
    assert all(can_transcode(syntax) for syntax in (*LOSSLESS, *UNCOMPRESSED, JPEG_BASELINE))
    assert not can_transcode("1.2.840.10008.1.2.4.102")  # MPEG-4
    assert not can_transcode("1.2.840.113619.5.2")


def test_the_limit_of_time_is_one_of_each_frame(tmp_path: Path) -> None:
    """An object of many frames takes longer than any limit that fits a single one."""
    large, out = np.zeros((4096, 4096), np.uint8), tmp_path / "out"
    frame, many = rle(large[:1024, :1024]), 250
    path = write_object(
        tmp_path / "many.dcm",
        np.broadcast_to(large[:1024, :1024], (many, 1024, 1024)),
        syntax=RLE,
        encode=lambda _: frame,
        NumberOfFrames=many,
    )
    with DecoderProcess(ImagingSettings(decode_timeout_s=0.5, decode_memory_mib=512)) as decoder:
        decoder.transcode(path, ExplicitVRLittleEndian, out, NO_LIMIT)
        assert out.stat().st_size > many << 20
        with pytest.raises(DecoderDiedError, match="given up"):
            decoder.transcode(path, ExplicitVRLittleEndian, out, NO_LIMIT, lambda: True)
    path = write_object(tmp_path / "large.dcm", large, syntax=RLE, encode=rle)
    with (
        DecoderProcess(ImagingSettings(decode_timeout_s=0.005)) as decoder,
        pytest.raises(DecoderDiedError, match="longer than"),
    ):
        decoder.transcode(path, ExplicitVRLittleEndian, out, NO_LIMIT)


def test_decoders_that_are_lent_are_kept_and_end_with_their_pool(tmp_path: Path) -> None:
    path = write_object(tmp_path / "object.dcm", ramp(), syntax=RLE, encode=rle)
    job = (path, ExplicitVRLittleEndian, tmp_path / "out", NO_LIMIT)
    children = []
    with DecoderPool(ImagingSettings(decode_memory_mib=512), 2) as pool:
        for _ in range(2):
            with pool.lend() as decoder:
                decoder.transcode(*job)
                children += [child.pid for child in multiprocessing.active_children()]
        with (
            pool.lend(),
            pool.lend(),
            pytest.raises(DecoderUnavailableError),
            pool.lend(lambda: True),
        ):
            pass
    assert len(children) == 2
    assert len(set(children)) == 1
    assert not multiprocessing.active_children()


def test_a_file_that_is_gone_is_not_the_fault_of_its_pixels(tmp_path: Path) -> None:
    with (
        DecoderProcess(ImagingSettings(decode_memory_mib=512)) as decoder,
        pytest.raises(FileNotFoundError),
    ):
        decoder.transcode(tmp_path / "gone", ExplicitVRLittleEndian, tmp_path / "out", NO_LIMIT)


def test_rle_of_one_bit_pixels_has_no_decoder(tmp_path: Path) -> None:
    bits: dict[str, Any] = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    cells = np.ones((8, 8), np.uint8)
    path = write_object(tmp_path / "bits.dcm", cells, syntax=RLE, encode=rle, **bits)
    with pytest.raises(PixelError, match="RLE of one-bit pixels"):
        transcoded(path, ExplicitVRLittleEndian)


def test_so_many_wait_for_a_decoder_and_no_more() -> None:
    with (
        DecoderPool(ImagingSettings(), 1, most_waiting=0) as pool,
        pool.lend(),
        pytest.raises(DecoderUnavailableError, match="many wait"),
        pool.lend(),
    ):
        pass
