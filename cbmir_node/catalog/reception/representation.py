"""Which images stand for a study, and which of a long series are embedded at all."""

from __future__ import annotations

import re
import zlib

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"  # CR; DX, mammography and intra-oral below it
_FOR_PROCESSING = frozenset(f"{_RADIOGRAPHY}.{number}.1" for number in (1, 2, 3))
_NOT_REPRESENTATIVE = frozenset({"LOCALIZER", "SCOUT", "PROJECTION IMAGE", "SCREEN SAVE"})
_PROJECTION = re.compile(r"(MIP|MINIP|MPR)(_.*)?")  # as MR scanners mark them, ORIGINAL or not

_INTEGER = re.compile(r"[+-]?\d{1,10}")
_NUMBER_BITS = 32
_DIGEST_BITS = 16


def is_representative(image_type: str, sop_class_uid: str) -> bool:
    """Tell whether an image may stand for its study.

    Image Type value 1 tells originals from derived images, value 3 localizers and projections
    (PS3.3 C.7.6.1.1.2). In radiography the processed image is DERIVED and PRIMARY, and the raw
    one "for processing" is what no reader looks at. A secondary capture, single or multi-frame,
    is a picture of a screen.

    Parameters
    ----------
    image_type : str
        Values joined by backslash; empty where absent, which tells nothing against the image.
    sop_class_uid : str
    """
    if _in_family(sop_class_uid, _SECONDARY_CAPTURE) or sop_class_uid in _FOR_PROCESSING:
        return False
    values = image_type.upper().split("\\")
    if _NOT_REPRESENTATIVE & set(values) or any(map(_PROJECTION.fullmatch, values)):
        return False
    processed = _in_family(sop_class_uid, _RADIOGRAPHY) and "SECONDARY" not in values
    return processed or "DERIVED" not in values


def _in_family(sop_class_uid: str, root: str) -> bool:
    return sop_class_uid == root or sop_class_uid.startswith(f"{root}.")


def number_of(text: str) -> int | None:
    """Return an integer string (VR IS); ``None`` where it is absent or no number."""
    return int(text) if _INTEGER.fullmatch(text) else None


def frame_count(number_of_frames: str) -> int:
    """Return a Number of Frames (VR IS) as a number, at least 1: most images do not have it."""
    return max(1, number_of(number_of_frames) or 1)


def sampling_order(instance_number: str, sop_instance_uid: str, *, representative: bool) -> int:
    """Return an image's place in the order in which the images of its series are embedded.

    The first N of a series in this order are spread evenly over its Instance Numbers, for every N
    and however the series grows: it is the order of the numbers' bits read backwards (van der
    Corput's sequence), so that first come the multiples of a power of two, then what lies half-way
    between them, and so on. Images that share a number, or have none, are ordered by a digest of
    their UID, which is a random sample. What may not stand for a study comes last.
    """
    number = number_of(instance_number)
    bits = f"{(number or 0) % (1 << _NUMBER_BITS):0{_NUMBER_BITS}b}"
    digest = zlib.crc32(sop_instance_uid.encode()) % (1 << _DIGEST_BITS)
    order = (int(bits[::-1], 2) << _DIGEST_BITS) + digest
    return order + (0 if representative else 1 << (_NUMBER_BITS + _DIGEST_BITS))
