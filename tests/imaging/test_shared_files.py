"""Every real file ends in one of the documented outcomes."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import DecoderDiedError, NoPixelsError, PixelError
from cbmir_node.imaging.decoder_process import DecoderProcess

NO_PICTURE_CLASSES = {
    "Segmentation Storage": "pixels are labels",
    "1.2.840.10008.5.1.4.1.1.66.7": "pixels are labels",
    "RT Dose Storage": "pixels are doses",
    "Raw Data Storage": "pixels are raw data",
}

BROKEN = {
    "JPEGProcess10_12TransferSyntax": "",
    "JPEGProcess6_8TransferSyntax": "",
    "will-jxl.dcm": "",
    "WG04/JPLY/": "",
    "MultiframeWindowing.dcm": "",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "",
    "3gb-bulk-data-truncated": "BitsStored is 16 of 8 allocated",
    "invalid_compression.dcm": "Not a JPEG file",
    "Benchmark/Data/multiframe.dcm": "codestream holds 240 x 55 x 3 samples, the header says",
    "GH1376.dcm": "encapsulated although the transfer syntax is native",
    "undefined_length.dcm": "No tag to read",
    "genFile.dcm": "Not a JPEG file",
    "dwv-test_no-number-rows.dcm": "Rows is missing",
    "getdcmtags/test_dcm": "Pixel Data has 10000 bytes, 20000 are needed",
    "Deeply-Nested-Sequence.dcm": "RecursionError",
    "oob-monochrome-65535.dcm": "larger than the limit",
    "JPEG2000-embedded-sequence-delimiter.dcm": "opj_read_header failed",
    "nested_priv_SQ.dcm": "BitsAllocated is missing",
    "JPEG2000Lossless/966.dcm": "opj_decode",
    "no-header_explicit(two-pass).dcm": "no transfer syntax",
    "ZeissOCT-cfind-query.dcm": "neither a SOP class nor Pixel Data",
    "GH340.dcm": "no transfer syntax",
    "PrivateMDNTags.dcm": "no transfer syntax",
    "TransferSyntaxes/1.2.840.10008.1.2.dcm": "no transfer syntax",
    "OT-PAL-8-face.dcm": "no transfer syntax",
    "meta_missing_tsyntax.dcm": "no transfer syntax",
    "Resources/implicitLittleEndian.dcm": "no transfer syntax",
}
"""What other decoders fail on, by source: our reason, or nothing where it becomes a picture."""


def expected(row: dict[str, str]) -> tuple[str, str]:
    """Return the documented outcome of a file, and a part of its reason."""
    if row["sop_class"] in NO_PICTURE_CLASSES:
        return "no picture", NO_PICTURE_CLASSES[row["sop_class"]]
    if row["decodes"] == "ok":
        return "picture", ""
    for source, reason in BROKEN.items():
        if source in row["source"]:
            return ("error" if reason else "picture"), reason
    return "no picture", "there is no Pixel Data"


@pytest.fixture(scope="module")
def outcomes(shared: Path) -> dict[str, tuple[dict[str, str], str, str]]:
    """Decode everything with one child, within the default limits."""
    with (shared / "dicom" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    with DecoderProcess(ImagingSettings()) as decoder:
        for row in rows:
            try:
                pictures = decoder.pictures(shared / "dicom" / row["file"])
            except NoPixelsError as error:
                outcome = ("no picture", str(error))
            except DecoderDiedError as error:
                outcome = ("died", str(error))
            except PixelError as error:
                outcome = ("error", str(error))
            else:
                shapes = {picture.pixels.shape for picture in pictures}
                assert len(shapes) == 1
                assert {picture.pixels.dtype for picture in pictures} == {np.dtype(np.uint8)}
                outcome = ("picture", f"{len(pictures)} of {shapes}")
            found[row["file"]] = (row, *outcome)
    return found


def test_every_file_ends_as_documented(outcomes):
    wrong = []
    for file, (row, outcome, reason) in outcomes.items():
        wanted, part = expected(row)
        if outcome != wanted or part not in reason:
            wrong.append(f"{file} ({row['source']}): {outcome} ({reason}), not {wanted} ({part})")
    assert not wrong, "\n".join(wrong)
    counts = Counter(outcome for _, outcome, _ in outcomes.values())
    assert counts["picture"] > 0.75 * len(outcomes)
    assert counts["died"] == 0


def test_one_image_in_several_lossless_syntaxes_is_one_picture(shared, outcomes):
    """The NEMA WG-04 images are there as JPEG lossless, JPEG-LS, JPEG 2000 and RLE."""
    same = defaultdict(list)
    for file, (row, _, _) in outcomes.items():
        match = re.search(r"([A-Z]{2}\d)_(J2KR|JLSL|JPLL|RLE)", row["source"])
        if match:
            same[match[1]].append(shared / "dicom" / file)
    groups = {name: files for name, files in same.items() if len(files) > 1}
    assert len(groups) >= 5
    with DecoderProcess(ImagingSettings()) as decoder:
        for name, files in groups.items():
            first, *others = [decoder.pictures(file)[0].pixels for file in files]
            for other in others:
                np.testing.assert_array_equal(first, other, err_msg=name)
