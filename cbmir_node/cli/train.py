"""``train`` and ``export``: make a model of one's own. PyTorch is imported only when they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cbmir_node.errors import MissingPackageError

if TYPE_CHECKING:
    from cbmir_node.training.loop import EpochReport

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("train")
@click.argument("manifest", type=_FILE)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the checkpoint; made if absent.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=13,
    show_default=True,
    help="Passes over the training images.",
)
@click.option(
    "--size",
    type=click.IntRange(min=32),
    default=128,
    show_default=True,
    help="Height and width of the network's input in pixels, a multiple of 32.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=8),
    default=64,
    show_default=True,
    help="Images per step.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Start of all random choices.")
@click.option(
    "--init",
    type=click.Choice(["imagenet", "random"]),
    default="imagenet",
    show_default=True,
    help="Where the backbone starts from.",
)
@click.option(
    "--ignore-findings",
    multiple=True,
    metavar="LABEL",
    help="Do not learn the findings of this label, because they give away the image's source. "
    "Repeatable.",
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="Go on from the checkpoint in the output folder, or begin anew.",
)
def train_command(
    manifest: Path,
    output: Path,
    epochs: int,
    size: int,
    batch_size: int,
    seed: int,
    init: Literal["imagenet", "random"],
    ignore_findings: tuple[str, ...],
    resume: bool,
) -> None:
    """Train the retrieval network on the images listed in MANIFEST.

    MANIFEST is a CSV file with the columns file (relative to it), label, finding (may be empty),
    patient_id and split (train, val or test). The test images are never read. A checkpoint is
    written after every epoch; run the same command again after an interruption.
    """
    with _training_packages():
        from cbmir_node.training.loop import train  # noqa: PLC0415  (optional package)
        from cbmir_node.training.settings import TrainingSettings  # noqa: PLC0415  (optional package)
    settings = TrainingSettings(
        epochs=epochs,
        size=size,
        batch_size=batch_size,
        seed=seed,
        init=init,
        ignored_findings=ignore_findings,
    )
    checkpoint = train(manifest, output, settings, resume=resume, report=_show_epoch)
    click.echo(f"Wrote {checkpoint}. Make a model of it with: cbmir-node export {checkpoint}")


@click.command("export")
@click.argument("checkpoint", type=_FILE)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The ONNX file; replaced if it exists.",
)
@click.option("--name", required=True, help="Name of the model: letters, digits, '.', '_', '-'.")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option(
    "--training-data",
    required=True,
    metavar="TEXT",
    help="One sentence on what it was trained on, and the licence that follows.",
)
def export_command(
    checkpoint: Path, output: Path, name: str, version: str, training_data: str
) -> None:
    """Turn a CHECKPOINT into an ONNX file that `cbmir-node model install` accepts."""
    with _training_packages():
        from cbmir_node.training.export import export_onnx  # noqa: PLC0415  (optional package)
    description = export_onnx(
        checkpoint, output, name=name, version=version, training_data=training_data
    )
    click.echo(
        f"Wrote {output}: {description.name} {description.version}, "
        f"{description.dimension}-dimensional, SHA-256 {description.sha256}"
    )


@contextmanager
def _training_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cbmir_node"):
            raise
        raise MissingPackageError(
            f"this needs the package {error.name}: pip install 'cbmir-node[train]'"
        ) from error


def _show_epoch(report: EpochReport) -> None:
    click.echo(
        f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  "
        f"validation mAP {report.validation:.4f}  {report.seconds:.0f} s"
    )
