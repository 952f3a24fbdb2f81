"""How well a model retrieves: the figures of its model card.

Run ``python benchmarks/model_quality.py MANIFEST MODEL`` (``--help`` for the rest). MANIFEST is the
CSV file that ``cbmir-node train`` takes. Choose between models with ``--split val``; ``test``, the
default, is for reporting.

Protocol U (unseen database): every image of the split asks all images of the split's other
patients, as in a hospital none of whose images were trained on. Protocol P: the split asks the
train and val images; a network that has learned its training labels by heart looks better here
than it is. The 24 x 24 pixel row shows how far no network at all gets.

Coarse figures are macro averages over the classes. Finding figures rank within a class, averaged
over its queries and then over the classes, without those whose findings give away the source or the
sequence (`LEAKING_FINDINGS`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.evaluation.metrics import LabelledVectors, finding_scores, retrieval_scores
from cbmir_node.imaging.network_input import network_input
from cbmir_node.training.manifest import LabelledImage, read_manifest, read_picture

LEAKING_FINDINGS = ("CR_CHEST", "MR_PROSTATE")
WINDOWS = [
    (centre, width)
    for centre, width in product((-0.1, 0.0, 0.1), (0.8, 1.0, 1.25))
    if (centre, width) != (0.0, 1.0)
]
"""Display windows tried: shift of the centre as a share of the range, factor on the width."""

Picture = npt.NDArray[np.uint8]
Change = Callable[[Picture], Picture]
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Vectors:
    """What a model makes of N images; no hash or no classes where it has none."""

    embedding: npt.NDArray[np.float32]
    signs: npt.NDArray[np.float32] | None
    labels: list[str]


def embed(
    model: EmbeddingModel,
    images: Sequence[LabelledImage],
    change: Change = lambda picture: picture,
) -> Vectors:
    """Embed all images as the node would, each changed before it is prepared.

    Returns
    -------
    Vectors
        Signs are -1 and +1, whose inner product ranks as Hamming distance.
    """
    embeddings, signs, labels = [], [], []
    for start in range(0, len(images), 256):
        inputs = [
            network_input(change(read_picture(image.file)), model.description.preprocessing)
            for image in images[start : start + 256]
        ]
        outputs = model.embed(np.stack(inputs))
        embeddings.append(unit(outputs.spaces["embedding"]))
        if outputs.codes is not None:
            signs.append(np.unpackbits(outputs.codes, axis=1).astype(np.float32) * 2 - 1)
        if outputs.probabilities is not None:
            labels += [model.description.labels[k] for k in outputs.probabilities.argmax(axis=1)]
    return Vectors(np.concatenate(embeddings), np.concatenate(signs) if signs else None, labels)


def low_resolution(picture: Picture) -> Picture:
    """Bring the longest side down to 64 pixels; the network's own resize brings it up again."""
    image = Image.fromarray(picture)
    scale = 64 / max(image.size)
    if scale >= 1:
        return picture
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def rewindow(picture: Picture, centre: float, width: float) -> Picture:
    """Show a picture through another window (PS3.3 C.11.2.1.2, over the picture's own levels)."""
    values = (picture / 255.0 - 0.5 - centre) / width + 0.5
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def small_pixels(images: Iterable[LabelledImage]) -> npt.NDArray[np.float32]:
    """Return 24 x 24 grey levels as unit vectors, mean and contrast taken out."""
    rows = [
        np.asarray(
            Image.fromarray(read_picture(image.file))
            .convert("L")
            .resize((24, 24), Image.Resampling.BILINEAR),
            dtype=np.float32,
        ).ravel()
        for image in images
    ]
    centred = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
    return unit(centred)


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale rows to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


class Rows:
    """Turns vectors of the query and the database images into rows of the table."""

    def __init__(self, queries: Sequence[LabelledImage], database: Sequence[LabelledImage]) -> None:
        self._sides = [
            {
                "labels": np.array([image.label for image in images]),
                "findings": np.array([image.finding for image in images]),
                "patients": np.array([image.patient_id for image in images]),
            }
            for images in (queries, database)
        ]

    def __call__(
        self, query_vectors: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        """Return one row: the query images' vectors ask the database images' vectors."""
        asking, answering = (
            LabelledVectors(values, side["labels"], side["patients"])
            for values, side in zip((query_vectors, vectors), self._sides, strict=True)
        )
        coarse = retrieval_scores(asking, answering)
        findings = finding_scores(
            asking, self._sides[0]["findings"], answering, self._sides[1]["findings"]
        )
        counted = [s for label, s in findings.items() if label not in LEAKING_FINDINGS]
        return {
            "coarse mAP": coarse.mean_average_precision,
            "coarse P@10": coarse.precision[10],
            "finding mAP": float(np.mean([s.mean_average_precision for s in counted])),
            "finding vote@10": float(np.mean([s.majority_vote[10] for s in counted])),
            "worst class mAP": min(coarse.average_precision.values()),
        }


def retrieval_table(
    model: EmbeddingModel, images: list[LabelledImage], seen: list[LabelledImage]
) -> tuple[Table, Vectors]:
    """Measure protocol U, and P where seen images are given; also return the images' vectors."""
    vectors = embed(model, images)
    pixels = small_pixels(images)
    row = Rows(images, images)
    table = {
        "U: pixels 24 x 24": row(pixels, pixels),
        "U: embedding": row(vectors.embedding, vectors.embedding),
        "U: embedding, queries at 64 px": row(
            embed(model, images, low_resolution).embedding, vectors.embedding
        ),
    }
    if vectors.signs is not None:
        table[f"U: hash, {model.description.code_bits} bits"] = row(vectors.signs, vectors.signs)
    if seen:
        row = Rows(images, seen)
        table["P: pixels 24 x 24"] = row(pixels, small_pixels(seen))
        table["P: embedding"] = row(vectors.embedding, embed(model, seen).embedding)
    return table, vectors


def window_table(
    model: EmbeddingModel, images: list[LabelledImage], embedding: npt.NDArray[np.float32]
) -> Table:
    """Measure how far another display window moves the embedding of the same image."""
    row = Rows(images, images)
    table: Table = {}
    for centre, width in WINDOWS:
        change = partial(rewindow, centre=centre, width=width)
        changed = embed(model, images, change).embedding
        cosines = (changed * embedding).sum(axis=1)
        table[f"centre {centre:+.0%}, width x {width}"] = {
            "cosine mean": float(cosines.mean()),
            "cosine 1st percentile": float(np.percentile(cosines, 1)),
            "cosine min": float(cosines.min()),
            "coarse mAP": row(changed, embedding)["coarse mAP"],
        }
    return table


def show(title: str, table: Table) -> None:
    """Print a table as Markdown."""
    columns = list(next(iter(table.values())))
    print(f"\n| {title} | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, values in table.items():
        print(f"| {name} | " + " | ".join(f"{values[column]:.3f}" for column in columns) + " |")


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--provider", choices=["auto", "cuda", "cpu"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    arguments = parser.parse_args()

    images = read_manifest(arguments.manifest, arguments.split)
    seen = [i for i in read_manifest(arguments.manifest) if i.split in ("train", "val")]
    model = EmbeddingModel.load(
        arguments.model, EmbeddingSettings(provider=arguments.provider, batch_size=16)
    )
    retrieval, vectors = retrieval_table(model, images, seen if arguments.split == "test" else [])
    windows = window_table(model, images, vectors.embedding)
    right = [label == image.label for label, image in zip(vectors.labels, images, strict=False)]
    accuracy = float(np.mean(right)) if right else None
    print(f"{len(images)} {arguments.split} images; class accuracy {accuracy}")
    show("retrieval", retrieval)
    show("display window", windows)
    if arguments.json:
        figures = {"accuracy": accuracy, "retrieval": retrieval, "windows": windows}
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
