"""A node's own archive as labelled data: the tags say what an image is of.

Modality and BodyPartExamined together are the class. Whoever filled in the tags decides how much
the figures mean; findings are in no tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.statistics import count_states
from cbmir_node.catalog.vectors.tagged import TaggedVector, tagged_vectors
from cbmir_node.errors import QueryError
from cbmir_node.evaluation.items import Items, Outputs


@dataclass(frozen=True)
class ArchiveImages:
    """The images of an archive that can be measured with.

    Attributes
    ----------
    items : Items
        Labelled ``<Modality>_<BodyPartExamined>``; a frame of a multi-frame image is one item.
    outputs : Outputs
        From the catalogue, as queries see them.
    files : tuple of (Path, int)
        File and frame number of each item.
    left_out : dict of str to int
        Reason to number of images, frames counted singly.
    """

    items: Items
    outputs: Outputs
    files: tuple[tuple[Path, int], ...]
    left_out: dict[str, int]


def read_archive(catalog: Catalog, archive: Archive, model: InstalledModel) -> ArchiveImages:
    """Read what a catalogue knows of its images.

    Raises
    ------
    QueryError
        No image has a vector and both tags.
    """
    states = count_states(catalog, model.row)
    left_out = {
        "not embedded yet": states["pending"],
        "not embeddable": states["failed"] + states["no_pixels"],
        "left out of a long series": states["skipped"],
        "localizers, derived images and secondary captures": 0,
        "without Modality": 0,
        "without BodyPartExamined": 0,
    }
    kept: list[TaggedVector] = []
    for image in tagged_vectors(catalog, model):
        if not image.representative:
            left_out["localizers, derived images and secondary captures"] += 1
        elif not image.modality:
            left_out["without Modality"] += 1
        elif not image.body_part:
            left_out["without BodyPartExamined"] += 1
        else:
            kept.append(image)
    if not kept:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
        raise QueryError(
            f"the archive has no image to measure with ({reasons or 'it is empty'}); an image "
            "needs a vector, Modality and BodyPartExamined"
        )
    return ArchiveImages(
        _items(kept),
        _outputs(kept),
        tuple((archive.path(image.path), image.frame_number) for image in kept),
        {reason: number for reason, number in left_out.items() if number},
    )


def _items(images: list[TaggedVector]) -> Items:
    return Items(
        labels=np.array([f"{i.modality}_{i.body_part}".upper().replace(" ", "_") for i in images]),
        findings=np.full(len(images), "", dtype="<U1"),
        patients=np.array([str(image.patient) for image in images]),
        studies=np.array([str(image.study) for image in images]),
    )


def _outputs(images: list[TaggedVector]) -> Outputs:
    """Stack what the model said; codes and classes only where every image has them."""
    vectors = np.frombuffer(b"".join(image.vector for image in images), dtype="<f4")
    codes = [image.code for image in images if image.code is not None]
    labels = [image.label for image in images if image.label is not None]
    probabilities = [image.probability for image in images if image.probability is not None]
    classified = len(labels) == len(probabilities) == len(images)
    hashed = len(codes) == len(images) and len({len(code) for code in codes}) == 1
    return Outputs(
        {"embedding": vectors.reshape(len(images), -1).astype(np.float32)},
        np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(len(images), -1) if hashed else None,
        np.array(labels) if classified else None,
        np.array(probabilities, dtype=np.float32) if classified else None,
    )
