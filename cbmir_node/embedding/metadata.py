"""What an ONNX file says of itself in ``metadata_props``, and how to mend what it says wrongly."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cbmir_node.errors import ModelError
from cbmir_node.imaging.network_input import Preprocessing

CONTRACT_VERSION = "1"

METADATA_KEYS = {
    "cbmir.contract": "version of this contract: 1",
    "cbmir.name": "short name, letters, digits, '.', '_' and '-'",
    "cbmir.version": "version of the model",
    "cbmir.preprocessing": "JSON of Preprocessing",
    "cbmir.labels": "JSON list of K class names, needed with a logits output",
    "cbmir.training_data": "one sentence on what it was trained on, and the licence that follows",
}
"""Keys of ``metadata_props``; all but ``cbmir.labels`` are required."""

_EXAMPLES = {
    "cbmir.contract": "1",
    "cbmir.name": "chest-densenet121",
    "cbmir.version": "1",
    "cbmir.preprocessing": Preprocessing(224, 224, 3, "pad", (127.5,) * 3, (127.5,) * 3).to_json(),
    "cbmir.training_data": "RadImageNet; research only",
}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_TEXT = 64
"""Of an LO (PS3.5 section 6.2), such as Retrieval Model: of ``name:version`` together."""
_PREPROCESSING_KEYS = ("height", "width", "channels", "resize", "mean", "std")


@dataclass(frozen=True)
class Breach:
    """One thing that keeps a file from being a model of the node.

    Attributes
    ----------
    problem : str
        What is wrong.
    remedy : str
        What to do about it.
    """

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}\n      mend: {self.remedy}"


def metadata_breaches(metadata: Mapping[str, str]) -> list[Breach]:
    """Return what is missing or wrong in ``metadata_props``, labels left out."""
    breaches = [
        Breach(
            f"metadata_props lacks {key!r} ({meaning})",
            f"give onnx.helper.set_model_props the entry {key!r}: {_EXAMPLES[key]!r}",
        )
        for key, meaning in METADATA_KEYS.items()
        if key not in metadata and key in _EXAMPLES
    ]
    version = metadata.get("cbmir.contract", CONTRACT_VERSION)
    if version != CONTRACT_VERSION:
        breaches.append(
            Breach(
                f"contract {version!r} is not {CONTRACT_VERSION!r}",
                "update cbmir-node, or export for the contract that this one knows",
            )
        )
    breaches += _name_breaches(metadata)
    if not metadata.get("cbmir.training_data", "?").strip():
        breaches.append(
            Breach(
                "metadata 'cbmir.training_data' is empty",
                "say in one sentence what the network was trained on and under which licence",
            )
        )
    if "cbmir.preprocessing" in metadata:
        breaches += preprocessing_breaches(metadata["cbmir.preprocessing"])
    return breaches


def _name_breaches(metadata: Mapping[str, str]) -> list[Breach]:
    breaches = []
    for key in ("cbmir.name", "cbmir.version"):
        if key in metadata and not _WORD.fullmatch(metadata[key]):
            breaches.append(
                Breach(
                    f"metadata {key!r} is {metadata[key]!r}",
                    "use letters, digits, '.', '_' and '-' only, without spaces: commands name "
                    "the model as name:version",
                )
            )
    together = f"{metadata.get('cbmir.name', '')}:{metadata.get('cbmir.version', '')}"
    if len(together) > _LONGEST_TEXT:
        breaches.append(
            Breach(
                f"name and version have {len(together)} characters together",
                f"shorten them to {_LONGEST_TEXT}: that is what the DICOM element Retrieval Model "
                "holds",
            )
        )
    return breaches


def preprocessing_breaches(text: str) -> list[Breach]:
    """Return what is wrong with the JSON of `Preprocessing`, everything at once."""
    example = f"write it like {_EXAMPLES['cbmir.preprocessing']}"
    try:
        values = json.loads(text)
    except ValueError as error:
        return [Breach(f"metadata 'cbmir.preprocessing' is not JSON: {error}", example)]
    if not isinstance(values, dict):
        return [Breach("metadata 'cbmir.preprocessing' is not a JSON object", example)]
    names = ", ".join(repr(key) for key in _PREPROCESSING_KEYS if key not in values)
    problems = [f"lacks {names}"] if names else []
    unknown = ", ".join(repr(key) for key in values if key not in _PREPROCESSING_KEYS)
    problems += [f"has unknown keys: {unknown}"] if unknown else []
    problems += [
        f"has {key} {values[key]!r}, which is no whole number"
        for key in ("height", "width", "channels")
        if key in values and type(values[key]) is not int
    ]
    problems += [
        f"has {key} {values[key]!r}, which is no list of numbers"
        for key in ("mean", "std")
        if key in values and not _are_numbers(values[key])
    ]
    if not problems:
        try:
            Preprocessing.from_json(text)
        except ModelError as error:
            problems.append(f"cannot be used: {error}")
    return [Breach(f"metadata 'cbmir.preprocessing' {problem}", example) for problem in problems]


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    )


def label_breaches(metadata: Mapping[str, str], classes: int) -> list[Breach]:
    """Return what is wrong with the labels of ``logits`` with this many classes."""
    remedy = (
        f"set metadata 'cbmir.labels' to a JSON list of {classes} class names in the order of the "
        "logits; a network without names for its classes should not export logits"
    )
    if "cbmir.labels" not in metadata:
        return [Breach("output 'logits' needs metadata 'cbmir.labels'", remedy)]
    try:
        labels = json.loads(metadata["cbmir.labels"])
    except ValueError as error:
        return [Breach(f"metadata 'cbmir.labels' is not JSON: {error}", remedy)]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return [Breach("metadata 'cbmir.labels' must be a list of strings", remedy)]
    breaches = []
    if len(labels) != classes:
        breaches.append(Breach(f"{len(labels)} labels for {classes} logits", remedy))
    doubled = sorted({label for label in labels if labels.count(label) > 1 or not label.strip()})
    if doubled:
        names = ", ".join(repr(label) for label in doubled[:5])
        breaches.append(
            Breach(f"labels are empty or there more than once: {names}", "give each its own name")
        )
    return [*breaches, *text_breaches("the label", labels)]


def text_breaches(what: str, texts: Iterable[str]) -> list[Breach]:
    """Return a breach for the first text that is no value of a DICOM LO (PS3.5 section 6.2)."""
    for text in texts:
        if len(text) > _LONGEST_TEXT:
            problem, remedy = f"has more than {_LONGEST_TEXT} characters", "shorten it"
        elif "\\" in text or any(unicodedata.category(letter) == "Cc" for letter in text):
            problem, remedy = "has a backslash or a control character", "leave that out"
        else:
            continue
        return [Breach(f"{what} {text!r} {problem}", f"{remedy}: it is answered as a DICOM LO")]
    return []
