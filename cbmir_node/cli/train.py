"""``train`` and ``export``: make a model of one's own. PyTorch is imported only when they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cbmir_node.errors import MissingPackageError
from cbmir_node.training.settings import RECIPES

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
    "--recipe",
    type=click.Choice(RECIPES),
    default="default",
    show_default=True,
    help="The default model, or the network of a published retrieval system. Options that are "
    "not given are the recipe's own choice.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images.")
@click.option(
    "--size",
    type=click.IntRange(min=32),
    help="Height and width of the network's input in pixels, a multiple of 32.",
)
@click.option(
    "--width",
    type=click.FloatRange(min=0, min_open=True, max=4),
    help="Factor on channels and fully connected units; 1 is the published network.",
)
@click.option("--batch-size", type=click.IntRange(min=8), help="Images per step.")
@click.option("--seed", type=int, help="Start of all random choices.")
@click.option(
    "--init",
    type=click.Choice(["imagenet", "random"]),
    help="Where the default recipe's backbone starts from; the others start at random.",
)
@click.option(
    "--ignore-findings",
    "ignored_findings",
    multiple=True,
    metavar="LABEL",
    help="Do not learn the findings of this label, because they give away the image's source. "
    "Repeatable.",
)
@click.option(
    "--leave-out",
    "left_out",
    multiple=True,
    metavar="LABEL",
    help="Use no image of this label, to see how the network does on what it never saw. "
    "Repeatable.",
)
@click.option(
    "--final",
    is_flag=True,
    default=None,
    help="Train on the val images too, without validation, once all choices are made.",
)
@click.option(
    "--no-attention",
    "attention",
    flag_value=False,
    type=bool,
    default=None,
    help="Train attention-hash without its attention, to see what that is worth.",
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="Go on from the checkpoint in the output folder, or begin anew.",
)
def train_command(manifest: Path, output: Path, recipe: str, resume: bool, **options: Any) -> None:
    """Train a retrieval network on the images listed in MANIFEST.

    MANIFEST is a CSV file with the columns file (relative to it), label, finding (may be empty),
    patient_id and split (train, val or test). The test images are never read. A checkpoint is
    written after every epoch; run the same command again after an interruption.
    """
    with _training_packages():
        from cbmir_node.training.loop import train  # noqa: PLC0415  (optional package)
        from cbmir_node.training.recipes import recipe_named  # noqa: PLC0415  (optional package)
    given = {name: value for name, value in options.items() if value is not None}
    settings = replace(recipe_named(recipe).defaults, **given)
    checkpoint = train(manifest, output, settings, resume=resume, report=_show_epoch)
    click.echo(f"Wrote {checkpoint}. Make a model of it with: cbmir-node export {checkpoint}")


@click.command("export")
@click.argument("checkpoint", type=_FILE, required=False)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The ONNX file; replaced if it exists.",
)
@click.option("--name", help="Name of the model: letters, digits, '.', '_', '-'.")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option(
    "--training-data",
    metavar="TEXT",
    help="One sentence on what it was trained on, and the licence that follows.",
)
@click.option(
    "--imagenet",
    is_flag=True,
    help="Instead of a checkpoint: EfficientNet-Lite0 as ImageNet left it, to compare with.",
)
@click.option(
    "--size",
    type=click.IntRange(min=32),
    help="With --imagenet: height and width of the input in pixels.  [default: 224]",
)
def export_command(
    checkpoint: Path | None,
    output: Path,
    name: str | None,
    version: str,
    training_data: str | None,
    imagenet: bool,
    size: int | None,
) -> None:
    """Turn a CHECKPOINT into an ONNX file that `cbmir-node model install` accepts."""
    if imagenet == (checkpoint is not None):
        raise click.UsageError("name a CHECKPOINT or give --imagenet, one of the two")
    if size and not imagenet:
        raise click.UsageError("--size goes with --imagenet; a checkpoint has its own")
    if checkpoint and not (name and training_data):
        raise click.UsageError("a checkpoint's export needs --name and --training-data")
    with _training_packages():
        from cbmir_node.training import export  # noqa: PLC0415  (optional package)
    if checkpoint and name and training_data:
        description = export.export_onnx(
            checkpoint, output, name=name, version=version, training_data=training_data
        )
    else:
        description = export.export_imagenet(output, size=size or 224)
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
    parts = [f"epoch {report.epoch}/{report.epochs}", f"loss {report.loss:.3f}"]
    if report.validation:
        parts += [
            f"validation mAP {report.validation.mean_average_precision:.4f}",
            f"accuracy {report.validation.accuracy:.4f}",
            f"codes {report.validation.different_codes}",
        ]
    click.echo("  ".join([*parts, f"{report.seconds:.0f} s"]))
