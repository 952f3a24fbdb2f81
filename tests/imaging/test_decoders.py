"""One decoder per transfer syntax: the same pixels, whatever they travelled in."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from cbmir_node.errors import PixelError
from cbmir_node.imaging.decoders import jpeg_photometric
from tests.imaging.image_objects import LOSSLESS, colours, deflate, ramp, rle

BASELINE = "1.2.840.10008.1.2.4.50"
EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"

SIGNED = ramp().astype(np.int16) - 1024
WINDOW = {"WindowCenter": 1000, "WindowWidth": 3000}


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(
    ("stored", "elements"),
    [
        pytest.param(ramp(), {"BitsStored": 12}, id="12 bits"),
        pytest.param(ramp(top=65535), {}, id="16 bits"),
        pytest.param((ramp() >> 4).astype(np.uint8), {}, id="8 bits"),
        pytest.param(SIGNED, WINDOW, id="signed 16 bits"),
        pytest.param(colours(), {}, id="RGB"),
    ],
)
def test_every_lossless_syntax_gives_the_uncompressed_picture(show, syntax, stored, elements):
    expected = show(stored, **elements)
    assert len(np.unique(expected)) > 20
    found = show(stored, syntax=syntax, encode=LOSSLESS[syntax], **elements)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "syntax", sorted(LOSSLESS.keys() - {J2K_LOSSLESS, "1.2.840.10008.1.2.4.201"})
)
def test_signed_12_bit_values_without_sign_extension(show, syntax):
    """A codestream of 12 of 16 bits holds -1 as 0x0FFF; JPEG-like ones carry no sign at all."""
    stored = np.clip(SIGNED, -2048, 2047)
    expected = show(stored, **WINDOW)
    packed = (stored & 0x0FFF).astype(np.uint16)
    found = show(
        packed,
        syntax=syntax,
        encode=LOSSLESS[syntax],
        BitsStored=12,
        PixelRepresentation=1,
        **WINDOW,
    )
    np.testing.assert_array_equal(found, expected)


def test_a_codestream_with_the_wrong_sign_follows_the_header(show):
    expected = show(SIGNED, **WINDOW)
    found = show(
        SIGNED.view(np.uint16),
        syntax=J2K_LOSSLESS,
        encode=LOSSLESS[J2K_LOSSLESS],
        PixelRepresentation=1,
        **WINDOW,
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("syntax", sorted(LOSSLESS))
def test_bits_above_bits_stored_are_not_pixels(show, syntax):
    """Old objects keep an overlay in the unused bits (PS3.5 8.1.1)."""
    overlay = ramp()
    overlay[5:10, 5:10] |= 0x8000
    found = show(overlay, syntax=syntax, encode=LOSSLESS[syntax], BitsStored=12)
    np.testing.assert_array_equal(found, show(ramp(), BitsStored=12))
    np.testing.assert_array_equal(found, show(overlay, BitsStored=12))


def test_a_lossy_overshoot_stays_bright(show):
    stored = ramp(top=1023)
    stored[8:12, 8:12] = 1025  # what a decoder makes of 10 bits at a sharp edge
    found = show(
        stored,
        syntax=J2K,
        encode=LOSSLESS[J2K_LOSSLESS],
        BitsStored=10,
        WindowCenter=512,
        WindowWidth=1024,
    )
    assert (found[8:12, 8:12] == 255).all()


@pytest.mark.parametrize(
    ("syntax", "encode", "tolerance"),
    [
        (BASELINE, lambda f: imagecodecs.jpeg8_encode(f, level=95), 6),
        (JPEG_LS_NEAR, lambda f: imagecodecs.jpegls_encode(f, level=2), 3),
        (J2K, lambda f: imagecodecs.jpeg2k_encode(f, level=45, codecformat="J2K"), 6),
        (
            "1.2.840.10008.1.2.4.203",
            lambda f: imagecodecs.htj2k_encode(f, level=0.002, reversible=False),
            6,
        ),
        ("1.2.840.10008.1.2.4.112", lambda f: imagecodecs.jpegxl_encode(f, distance=0.5), 8),
    ],
)
def test_lossy_syntaxes_come_close(show, syntax, encode, tolerance):
    stored = (ramp() >> 4).astype(np.uint8)
    difference = show(stored, syntax=syntax, encode=encode).astype(int) - stored
    assert np.abs(difference).max() <= tolerance


def test_12_bit_jpeg_extended(show):
    stored = ramp()

    def encode(frame: np.ndarray) -> bytes:
        return imagecodecs.jpeg8_encode(frame, level=98, bitspersample=12)

    found = show(stored, syntax=EXTENDED, encode=encode, BitsStored=12)
    assert np.abs(found.astype(int) - show(stored, BitsStored=12)).max() <= 2


def jpeg(frame: np.ndarray, inside: str, subsampling: str = "444", header: bool = True) -> bytes:
    """Encode RGB with the codestream's own colour space `inside`, with or without its markers."""
    codestream = imagecodecs.jpeg8_encode(
        frame, level=98, colorspace="RGB", outcolorspace=inside, subsampling=subsampling
    )
    return codestream if header else without_application_segments(codestream)


def without_application_segments(codestream: bytes) -> bytes:
    kept, position = codestream[:2], 2
    while codestream[position + 1] & 0xF0 == 0xE0:
        position += 2 + int.from_bytes(codestream[position + 2 : position + 4], "big")
    return kept + codestream[position:]


@pytest.mark.parametrize(
    ("encode", "labelled"),
    [
        pytest.param(lambda f: jpeg(f, "YCbCr"), "YBR_FULL", id="honest 4:4:4"),
        pytest.param(lambda f: jpeg(f, "YCbCr", "422"), "YBR_FULL_422", id="honest 4:2:2"),
        pytest.param(lambda f: jpeg(f, "YCbCr"), "RGB", id="RGB label, JFIF says YCbCr"),
        pytest.param(lambda f: jpeg(f, "YCbCr", header=False), "YBR_FULL_422", id="no marker"),
        pytest.param(
            lambda f: jpeg(f, "YCbCr", "422", header=False), "RGB", id="RGB label, subsampled"
        ),
        pytest.param(lambda f: jpeg(f, "RGB"), "RGB", id="honest RGB"),
        pytest.param(lambda f: jpeg(f, "RGB"), "YBR_FULL", id="YBR label, Adobe says RGB"),
    ],
)
def test_jpeg_colour_is_converted_once_by_what_the_codestream_is(show, encode, labelled):
    stored = colours()
    found = show(stored, syntax=BASELINE, encode=encode, PhotometricInterpretation=labelled)
    assert found.shape == stored.shape
    assert np.abs(found.astype(int) - stored).max() <= 12


def test_without_any_sign_the_header_decides_a_jpegs_colour_space():
    plain = jpeg(colours(), "YCbCr", header=False)
    assert jpeg_photometric(plain, "RGB") == "RGB"
    assert jpeg_photometric(plain, "YBR_FULL_422") == "YBR_FULL"
    assert jpeg_photometric(b"\xff\xd8 no segments", "RGB") == "RGB"


@pytest.mark.parametrize(
    ("mct", "labelled"), [(True, "YBR_RCT"), (True, "YBR_FULL"), (False, "RGB")]
)
def test_jpeg_2000_colour_transforms_are_undone_once(show, mct, labelled):
    stored = colours()
    found = show(
        stored,
        syntax=J2K_LOSSLESS,
        encode=lambda f: imagecodecs.jpeg2k_encode(
            f, level=0, codecformat="J2K", reversible=True, mct=mct
        ),
        PhotometricInterpretation=labelled,
    )
    np.testing.assert_array_equal(found, stored)


def test_untransformed_ybr_in_jpeg_2000_and_rle_is_converted(show):
    luminance_only = np.full((8, 8, 3), 128, np.uint8)
    luminance_only[:, 4:, 0] = 200
    for syntax, encode in ((J2K_LOSSLESS, LOSSLESS[J2K_LOSSLESS]), ("1.2.840.10008.1.2.5", rle)):
        found = show(
            luminance_only, syntax=syntax, encode=encode, PhotometricInterpretation="YBR_FULL"
        )
        assert (found[:, :4] == 128).all()
        assert (found[:, 4:] == 200).all()


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.102", "is video but cannot be decoded"),
        ("1.2.840.10008.1.2.4.108", "is video but cannot be decoded"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced is stored but cannot be decoded"),
        ("1.2.840.10008.1.2.4.92", "is stored but cannot be decoded"),
        ("1.2.840.113619.5.2", "1.2.840.113619.5.2 is stored but cannot be decoded"),
    ],
)
def test_a_syntax_without_decoder_is_named(show, syntax, reason):
    with pytest.raises(PixelError, match=reason):
        show(ramp(), syntax=syntax, encode=lambda frame: b"\0" * 64)


@pytest.mark.parametrize("syntax", sorted(LOSSLESS))
def test_a_damaged_codestream_is_a_pixel_error(show, syntax):
    with pytest.raises(PixelError):
        show(ramp(), syntax=syntax, encode=lambda frame: LOSSLESS[syntax](frame)[:40])
    with pytest.raises(PixelError):
        show(ramp(), syntax=syntax, encode=lambda frame: b"not a codestream")


def test_a_codestream_of_another_size_is_refused(show):
    syntax = J2K_LOSSLESS
    with pytest.raises(PixelError, match="holds 12 x 32 samples, the header says 24 x 32"):
        show(ramp(), syntax=syntax, encode=lambda frame: LOSSLESS[syntax](frame[:12]))


def test_a_deflate_bomb_is_not_unpacked(show):
    found = show(
        ramp(),
        syntax="1.2.840.10008.1.2.8.1",
        encode=lambda frame: deflate(
            np.concatenate([frame, np.zeros((1 << 14, 1 << 10), "u2")], axis=None)
        ),
        BitsStored=12,
    )
    np.testing.assert_array_equal(found, show(ramp(), BitsStored=12))
