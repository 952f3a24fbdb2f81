"""Which frames are chosen, and that the others cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import PixelError
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.frames import chosen_frames
from cbmir_node.imaging.pictures import pictures
from tests.imaging.image_objects import LOSSLESS, ramp, write_object

JPEG_LS = "1.2.840.10008.1.2.4.80"


def test_the_centre_of_each_part_is_chosen():
    assert chosen_frames(1, 16) == [0]
    assert chosen_frames(16, 16) == list(range(16))
    assert chosen_frames(100, 1) == [50]
    assert chosen_frames(100, 4) == [12, 37, 62, 87]
    assert chosen_frames(17, 16)[0] == 0


@given(st.integers(1, 10**6), st.integers(1, 1024))
def test_chosen_frames_are_distinct_ordered_and_centred(number_of_frames, cap):
    chosen = chosen_frames(number_of_frames, cap)
    assert len(chosen) == min(number_of_frames, cap)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < number_of_frames
    margins = chosen[0], number_of_frames - 1 - chosen[-1]
    assert abs(margins[0] - margins[1]) <= 1


def numbered_frames(count: int) -> np.ndarray:
    """Return frames [count, 4, 256] where frame n is black up to column n, so that it is known."""
    frames = np.zeros((count, 4, 256), np.uint8)
    for number in range(count):
        frames[number, :, number:] = 255
    return frames


def recognised(found: list) -> list[tuple[int, int]]:
    return [(picture.frame_number, int((picture.pixels[0] == 0).sum()) + 1) for picture in found]


@pytest.mark.parametrize("table", ["none", "basic", "extended", "fragments"])
def test_single_frames_are_found_with_and_without_offset_tables(tmp_path, table):
    frames = numbered_frames(20)
    codestreams = [LOSSLESS[JPEG_LS](frame) for frame in frames]
    path = write_object(
        tmp_path / "o.dcm", frames, syntax=JPEG_LS, encode=LOSSLESS[JPEG_LS], NumberOfFrames=20
    )
    dataset = dcmread(path)
    if table == "extended":
        pixels, offsets, lengths = encapsulate_extended(codestreams)
        dataset.PixelData = pixels
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        dataset.PixelData = encapsulate(
            codestreams,
            has_bot=table == "basic",
            fragments_per_frame=2 if table == "fragments" else 1,
        )
    dataset.save_as(path)
    assert recognised(pictures(path, 4)) == [(3, 3), (8, 8), (13, 13), (18, 18)]


def test_native_frames_and_their_numbers(tmp_path):
    path = write_object(tmp_path / "o.dcm", numbered_frames(20), NumberOfFrames=20)
    assert recognised(pictures(path, 4)) == [(3, 3), (8, 8), (13, 13), (18, 18)]
    assert [picture.frame_number for picture in pictures(path, 100)] == list(range(1, 21))


def test_a_huge_object_costs_its_chosen_frames_only(tmp_path):
    """3.9 GiB of frames, in a sparse file, under a limit of 512 MiB."""
    count = 8000
    path = write_object(tmp_path / "o.dcm", ramp(512, 512)[np.newaxis], NumberOfFrames=1)
    dataset = dcmread(path, stop_before_pixels=True)
    dataset.NumberOfFrames = count
    dataset.PixelData = b"\0" * 512
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path)
    length = count * 512 * 512 * 2
    with path.open("r+b") as file:
        position = dcmread(path)["PixelData"].file_tell
        file.seek(position - 4)
        file.write(length.to_bytes(4, "little"))
        file.seek(position + 250 * 512 * 512 * 2)  # the first of 16 chosen
        file.write(ramp(512, 512).tobytes())
        file.truncate(position + length)
    with DecoderProcess(ImagingSettings(decode_memory_mib=512)) as decoder:
        found = decoder.pictures(path)
    assert [picture.frame_number for picture in found[:2]] == [251, 751]
    assert found[0].pixels.max() == 255
    assert found[1].pixels.max() == 0


def test_a_missing_last_frame_is_an_error_and_not_a_shorter_object(tmp_path):
    frames = numbered_frames(4)
    path = write_object(tmp_path / "o.dcm", frames[:3], NumberOfFrames=4)
    with pytest.raises(PixelError, match="Pixel Data has 3072 bytes, 4096 are needed"):
        pictures(path, 1)
