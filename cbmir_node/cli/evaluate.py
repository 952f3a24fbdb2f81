"""``cbmir-node evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from cbmir_node.cli.embed import model_in_use
from cbmir_node.cli.options import on_terminal, print_table, settings_options
from cbmir_node.config import Settings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import MissingPackageError
from cbmir_node.evaluation.archive import read_archive
from cbmir_node.evaluation.embedding import OutputCache
from cbmir_node.evaluation.manifest import read_manifest
from cbmir_node.evaluation.measurement import (
    Choices,
    Measured,
    evaluate_archive,
    evaluate_manifest,
)
from cbmir_node.evaluation.output import Thumbnails, archive_thumbnails, picture_thumbnails
from cbmir_node.evaluation.tables import left_out_text, summary
from cbmir_node.stores import open_stores

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Measure how well models retrieve.")
@click.argument("manifest", type=_FILE, required=False)
@click.option(
    "--archive",
    is_flag=True,
    help="Measure the model in use on the node's own images: Modality and BodyPartExamined are "
    "the class, the vectors are those of the catalogue.",
)
@click.option(
    "--model",
    "model_files",
    type=_FILE,
    multiple=True,
    help="An ONNX file to measure, with every way to rank that its outputs allow. Repeatable.  "
    "[default: the model in use, or the shipped one]",
)
@click.option(
    "--baseline",
    "baseline_files",
    type=_FILE,
    multiple=True,
    help="An ONNX file to compare with, as it is and with a linear discriminant fitted on the "
    "train and val images. Repeatable.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of evaluation.json, evaluation.md and report.html, and of what the next run need "
    "not compute again; made if absent.",
)
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    default="test",
    show_default=True,
    help="Whose images ask. Choose between models on val; test is for reporting.",
)
@click.option(
    "--ignore-findings",
    multiple=True,
    metavar="LABEL",
    help="Do not judge the findings of this label, because they give away the image's source. "
    "Repeatable.",
)
@click.option(
    "--reference",
    metavar="NAME",
    help="Model or system that differences are taken to.  [default: the first baseline, or the "
    "pixels]",
)
@click.option("--windows", is_flag=True, help="Also show the queries in other display windows.")
@click.option(
    "--saliency/--no-saliency",
    default=True,
    show_default=True,
    help="Delete what a model's saliency map points at and ask again.",
)
@settings_options
def evaluate(
    settings: Settings,
    manifest: Path | None,
    archive: bool,
    model_files: tuple[Path, ...],
    baseline_files: tuple[Path, ...],
    output: Path,
    split: str,
    ignore_findings: tuple[str, ...],
    reference: str | None,
    windows: bool,
    saliency: bool,
) -> None:
    """Measure how well models retrieve, on labelled images that they were not trained on.

    MANIFEST is a CSV file with the columns file (relative to it), label and patient_id, and where
    present finding, split (train, val or test; without it all are test) and study. Every test image
    asks all test images of other patients (protocol U), and the train and val images (protocol P).
    With --archive a node's own images ask each other.

    A summary is printed. The report is one HTML file with plots and pictures, which are those of
    patients with --archive. docs/evaluation.md explains the figures.
    """
    if archive == (manifest is not None):
        raise click.UsageError("name either a MANIFEST or --archive")
    if archive and (model_files or baseline_files or ignore_findings):
        raise click.UsageError(
            "--archive measures the model in use by the archive's tags: it takes no --model, "
            "--baseline or --ignore-findings"
        )
    _check_packages()
    choices = Choices(
        split=split,
        ignored_findings=ignore_findings,
        reference=reference,
        trusted_probability=settings.search.trusted_probability,
        saliency=saliency,
        windows=windows,
    )
    output.mkdir(parents=True, exist_ok=True)
    if manifest is None:
        _evaluate_archive(settings, choices, output)
    else:
        files = model_files or (model_in_use(settings),)
        _evaluate_manifest(settings, manifest, files, baseline_files, choices, output)


def _evaluate_manifest(
    settings: Settings,
    manifest_file: Path,
    model_files: Sequence[Path],
    baseline_files: Sequence[Path],
    choices: Choices,
    output: Path,
) -> None:
    manifest = read_manifest(manifest_file)
    models, baselines = (
        [EmbeddingModel.load(file, settings.embedding) for file in files]
        for files in (model_files, baseline_files)
    )
    cache = OutputCache(output / "cache", manifest.digest)
    measured = evaluate_manifest(manifest, models, baselines, cache, choices, _stage)
    _finish(measured, output, picture_thumbnails(manifest))


def _evaluate_archive(settings: Settings, choices: Choices, output: Path) -> None:
    stores = open_stores(settings, create=False)
    try:
        model = stores.registry.active()
        network = EmbeddingModel.load(stores.active_model_file(), settings.embedding)
        images = read_archive(stores.catalog, stores.archive, model)
    finally:
        stores.close()
    measured = evaluate_archive(images, model, network.description.labels, choices, _stage)
    with archive_thumbnails(images, settings.imaging) as thumbnails:
        _finish(measured, output, thumbnails)


def _finish(measured: Measured, output: Path, thumbnails: Thumbnails) -> None:
    """Write the files and print the summary."""
    from cbmir_node.evaluation.output import write_files  # noqa: PLC0415  (optional package)

    report = write_files(measured, output, thumbnails)
    print_table(*summary(measured.evaluation))
    if text := left_out_text(measured.evaluation):
        click.echo(text)
    click.echo(f"Wrote {report}, evaluation.json and evaluation.md beside it.")


def _check_packages() -> None:
    """Tell before the work what is absent, not after it."""
    try:
        import jinja2  # noqa: F401, PLC0415  (optional package)
        import matplotlib  # noqa: F401, PLC0415  (optional package)
        import sklearn  # noqa: F401, PLC0415  (optional package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs the package {error.name}: pip install 'cbmir-node[evaluate]'"
        ) from error


@contextmanager
def _stage(label: str, length: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=length, label=label, **on_terminal()) as bar:
        yield bar.update
