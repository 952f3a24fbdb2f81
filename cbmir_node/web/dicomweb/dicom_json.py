"""Data sets as DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement

from cbmir_node.errors import InvalidObjectError
from cbmir_node.web.dicomweb.media_types import JSON_TYPES
from cbmir_node.web.dicomweb.plain_elements import plain_json

JsonDataset = dict[str, dict[str, Any]]
BulkDataUri = Callable[[str], str]
"""From the path of an element, such as ``00281201`` or ``52009230/1/00281052``, to its URL."""

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Of binary values, whose meaning a client must know."""

DATA_SETS: dict[str, Any] = {
    media_type: {"schema": {"type": "array", "items": {"type": "object"}}}
    for media_type in JSON_TYPES
}
"""How OpenAPI is told of a response in DICOM JSON."""

MOST_ELEMENTS = 100_000
"""Elements and items of a data set, at most: each takes some 40 microseconds and 2 kB."""

_LARGEST_INLINE = 1024
_CHUNK_CHARACTERS = 1 << 16
_NOT_FINITE = {"nan": "NaN", "inf": "inf", "-inf": "-inf"}

_log = logging.getLogger(__name__)


def json_dataset(dataset: Dataset, bulk_data_uri: BulkDataUri | None = None) -> JsonDataset:
    """Return the DICOM JSON model of a data set.

    Raises an `InvalidObjectError` where there are more than `MOST_ELEMENTS`.

    Elements whose values cannot be read are left out, as are group lengths (F.2.2).

    Parameters
    ----------
    dataset : Dataset
    bulk_data_uri : callable, optional
        Returns the URL of a large binary value; without it all are written inline.
    """
    return _json_items(dataset, bulk_data_uri, "", iter(range(MOST_ELEMENTS)))


def too_many_elements() -> InvalidObjectError:
    """Return the error of a data set that would take too long to describe."""
    return InvalidObjectError(
        f"it has more than {MOST_ELEMENTS} elements and items; retrieve the object itself"
    )


def _json_items(
    dataset: Dataset, bulk_data_uri: BulkDataUri | None, above: str, left: Iterator[int]
) -> JsonDataset:
    found = {}
    if next(left, None) is None:
        raise too_many_elements()
    for tag, element in sorted((int(tag), element) for tag, element in dataset.items()):
        if next(left, None) is None:
            raise too_many_elements()
        if tag & 0xFFFF == 0:
            continue
        name = f"{tag:08X}"
        plain = plain_json(element) if isinstance(element, RawDataElement) else None
        if plain is not None:
            found[name] = _finite(plain)
            continue
        try:
            found[name] = _json_element(dataset[tag], bulk_data_uri, above + name, left)
        except (InvalidObjectError, RecursionError):
            raise
        except Exception as error:  # pydicom raises many kinds on values that break their VR
            _log.debug("%s is left out: %s", above + name, error)
    return found


def _json_element(
    element: DataElement, bulk_data_uri: BulkDataUri | None, path: str, left: Iterator[int]
) -> dict[str, Any]:
    if element.VR == "SQ":
        items = [
            _json_items(item, bulk_data_uri, f"{path}/{number}/", left)
            for number, item in enumerate(element.value, start=1)
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VM > 1 and "" in element.value:
        return _with_nulls(element)
    is_large = element.VR in BULK_VRS and len(element.value or b"") > _LARGEST_INLINE
    if bulk_data_uri is not None and is_large:
        return {"vr": element.VR, "BulkDataURI": bulk_data_uri(path)}
    return _finite(element.to_json_dict(None, 0))


def _finite(described: dict[str, Any]) -> dict[str, Any]:
    """Write numbers that JSON does not have as PS3.18 F.2.3 wants them: as strings."""
    values = described.get("Value", [])
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        described["Value"] = [_NOT_FINITE.get(str(value), value) for value in values]
    return described


def _with_nulls(element: DataElement) -> dict[str, Any]:
    """Write values of which some are empty and so null (F.2.5), which pydicom does not write."""
    filled = [value for value in element.value if value != ""]
    described = _finite(DataElement(element.tag, element.VR, filled).to_json_dict(None, 0))
    values = iter(described.get("Value", []))
    described["Value"] = [None if value == "" else next(values) for value in element.value]
    return described


def in_order(described: JsonDataset) -> JsonDataset:
    """Return a data set with its elements in the order of their tags (F.2.2)."""
    return dict(sorted(described.items()))


def json_array(datasets: Iterable[JsonDataset]) -> Iterator[bytes]:
    """Yield a JSON array in chunks of a reasonable size."""
    chunk, size = ["["], 1
    separator = ""
    for dataset in datasets:
        text = separator + json.dumps(dataset, ensure_ascii=False, separators=(",", ":"))
        separator = ","
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK_CHARACTERS:
            yield _encoded(chunk)
            chunk, size = [], 0
    yield _encoded([*chunk, "]"])


def _encoded(texts: list[str]) -> bytes:
    # a value may hold what no character set has: half of a surrogate pair
    return "".join(texts).encode("utf-8", "replace")
