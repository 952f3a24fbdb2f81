"""``cbmir-node query``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Unpack

import click

from cbmir_node.catalog.query.hierarchy import rows_by_number
from cbmir_node.cli.options import as_json, print_json, print_table, settings_options
from cbmir_node.cli.ranges import AgeRange, ages, dates
from cbmir_node.cli.retrieval import RetrievalWishes, described, retrieval_options
from cbmir_node.config import Settings
from cbmir_node.errors import CatalogError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.node import open_search
from cbmir_node.presentation.examples import TemporaryExamples
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.search.query import (
    Example,
    SimilarityAnswer,
    SimilarityLevel,
    SimilarityQuery,
)
from cbmir_node.stores import Stores, open_stores

_SHOWN: dict[SimilarityLevel, tuple[str, ...]] = {
    "STUDY": (
        "StudyInstanceUID",
        "PatientID",
        "PatientSex",
        "StudyDate",
        "ModalitiesInStudy",
        "StudyDescription",
    ),
    "SERIES": (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientID",
        "StudyDate",
        "Modality",
        "BodyPartExamined",
    ),
    "IMAGE": ("StudyInstanceUID", "SOPInstanceUID", "PatientID", "Modality", "BodyPartExamined"),
}


@click.command(short_help="Find similar studies, series or images.")
@click.option("--study", multiple=True, metavar="UID", help="A study as example; repeatable.")
@click.option("--series", multiple=True, metavar="UID", help="A series as example; repeatable.")
@click.option("--instance", multiple=True, metavar="UID", help="An image as example; repeatable.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A DICOM, PNG or JPEG file as example; it is not stored. Repeatable.",
)
@click.option(
    "--not-study",
    multiple=True,
    metavar="UID",
    help="A study that the answers should not be like; repeatable.",
)
@click.option("--not-series", multiple=True, metavar="UID", help="Likewise a series; repeatable.")
@click.option("--not-instance", multiple=True, metavar="UID", help="Likewise an image; repeatable.")
@click.option("-k", type=click.IntRange(1), help="Number of answers.  [default: search.results]")
@click.option(
    "--level",
    type=click.Choice(["study", "series", "image"]),
    default="study",
    show_default=True,
    help="What is ranked.",
)
@retrieval_options
@click.option("--modality", help="Only this Modality.")
@click.option("--body-part", help="Only this Body Part Examined; wildcards * and ?.")
@click.option("--sex", type=click.Choice(["F", "M", "O"]), help="Only this Patient's Sex.")
@click.option(
    "--age",
    metavar="FROM-TO",
    callback=ages,
    help="Only ages in this range of years, as 40-60 or 40-.",
)
@click.option(
    "--study-date",
    metavar="FROM-TO",
    callback=dates,
    help="Only dates in this range, as 20200101-.",
)
@click.option("--same-patient", is_flag=True, help="Do not leave out the example's own patient.")
@as_json
@settings_options
def query(
    settings: Settings,
    study: tuple[str, ...],
    series: tuple[str, ...],
    instance: tuple[str, ...],
    files: tuple[Path, ...],
    not_study: tuple[str, ...],
    not_series: tuple[str, ...],
    not_instance: tuple[str, ...],
    k: int | None,
    level: str,
    modality: str | None,
    body_part: str | None,
    sex: str | None,
    age: AgeRange,
    study_date: str | None,
    same_patient: bool,
    as_json: bool,
    **wishes: Unpack[RetrievalWishes],
) -> None:
    """Find what looks like the examples, best first, from a running or a stopped node.

    With several examples a candidate's similarity is the mean over them; negative examples
    (--not-study and the like) turn the ranking away from them. docs/retrieval.md has the formula.
    """
    if not (study or series or instance or files):
        raise click.UsageError(
            "name an example: --study, --series, --instance or --file (see --help)"
        )
    minimum_age, maximum_age = age
    filters = {
        # code strings are upper case (PS3.5 6.2)
        "Modality": modality and modality.upper(),
        "BodyPartExamined": body_part and body_part.upper(),
        "PatientSex": sex,
        "StudyDate": study_date,
    }
    stores = open_stores(settings, create=False)
    try:
        examples = [
            *_stored_examples(study, series, instance),
            *_file_examples(stores, files),
        ]
        answer = open_search(stores, writable=False).answer(
            SimilarityQuery(
                examples=examples,
                negative_examples=_stored_examples(not_study, not_series, not_instance),
                level=level.upper(),  # type: ignore[arg-type]  # click checked the choice
                k=k,
                **wishes,
                filters={key: value for key, value in filters.items() if value},
                minimum_age=minimum_age,
                maximum_age=maximum_age,
                exclude_same_patient=False if same_patient else None,
            )
        )
        _show(stores, answer, as_json=as_json)
    finally:
        stores.close()


def _stored_examples(
    study: tuple[str, ...], series: tuple[str, ...], instance: tuple[str, ...]
) -> list[Example]:
    return [
        *(Example("STUDY", uid) for uid in study),
        *(Example("SERIES", uid) for uid in series),
        *(Example("IMAGE", uid) for uid in instance),
    ]


def _file_examples(stores: Stores, files: tuple[Path, ...]) -> list[Example]:
    """Embed files; the node may have them, or others of their study and patient."""
    if not files:
        return []
    with (
        tempfile.TemporaryDirectory() as folder,
        DecoderPool(stores.settings.imaging, 1) as decoders,
    ):
        network = ActiveNetwork(stores)
        examples = TemporaryExamples(Path(folder) / "examples", stores, decoders, network)
        return [examples.add(path, str(path)).example for path in files]


def _show(stores: Stores, answer: SimilarityAnswer, *, as_json: bool) -> None:
    level, choices = answer.level, answer.choices
    shown = _SHOWN[level]
    found = rows_by_number(stores.catalog, level, [match.row for match in answer.matches], shown)
    results = []
    for match in answer.matches:
        if match.row not in found:
            raise CatalogError("the catalogue changed during the query; ask again")
        results.append(
            {
                "rank": match.rank,
                "similarity": round(match.similarity, 6),
                "similarity_to_examples": round(match.similarity_to_examples, 6),
                **found[match.row].values,
                "matched_sop_instance_uid": match.matched_sop_instance_uid,
                "matched_frame_number": match.matched_frame_number,
                "label": match.label,
                "probability": match.probability,
            }
        )
    if as_json:
        print_json(
            {
                "level": answer.level.lower(),
                "model": answer.model,
                "method": choices.method,
                "rerank": choices.rerank,
                "space": choices.space,
                "by_class": choices.by_class,
                "predicted_class": choices.predicted_class,
                "same_tags": choices.same_tags,
                "results": results,
            }
        )
        return
    print_table(
        ["#", "similarity", "class", *shown],
        [
            [
                result["rank"],
                f"{result['similarity']:.4f}",
                result["label"] or "",
                *(result[key] for key in shown),
            ]
            for result in results
        ],
    )
    if not results:
        click.echo("nothing similar: no other study is embedded yet, or the filters leave none")
    click.echo(f"by {answer.model}, {described(choices)}")
