"""Every setting of the node, its type, its default and its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, field_validator, model_validator

from cbmir_node.config.dicom_port import AETitle, DicomSettings, PeerSettings
from cbmir_node.config.http_port import HttpSettings
from cbmir_node.config.section import Section, listed


class ArchiveSettings(Section):
    """Received objects on disk."""

    path: Path | None = Field(None, description="folder of the objects; default DATA_DIR/archive")
    reserve_mib: int = Field(
        1024, ge=0, description="free disk space below which nothing more is stored, MiB"
    )
    duplicates: Literal["keep", "replace"] = Field(
        "keep", description="when a known SOP Instance UID arrives with different content"
    )
    max_object_mib: int = Field(4096, ge=1, description="largest object accepted, MiB")


class CatalogSettings(Section):
    """The database of tags, work states and vectors."""

    url: str | None = Field(
        None,
        description="SQLAlchemy URL; default SQLite in DATA_DIR, or postgresql+psycopg://…",
    )
    group_commit: int = Field(128, ge=1, description="received objects that may share one commit")


class RetentionSettings(Section):
    """How long pixels stay; tags and vectors stay whatever becomes of the pixels."""

    retain: Literal["all", "days", "none"] = Field(
        "all",
        description="pixels kept: all of them, for a number of days, or none once embedded",
    )
    days: float = Field(90, gt=0, description="with retain = days, how long after reception")
    quota_gib: float = Field(
        0, ge=0, description="size of the archive above which the oldest pixels go, GiB; 0 for none"
    )
    retrieve_from: AETitle | None = Field(
        None, description="AE title, one of peers, that has what is not kept here"
    )
    honour_rejection_notes: bool = Field(
        True, description="delete what an IOCM rejection note names, and refuse it from then on"
    )

    @model_validator(mode="after")
    def _somebody_has_the_pixels(self) -> RetentionSettings:
        if self.retain == "none" and self.retrieve_from is None:
            raise ValueError("retain = none needs retrieve_from, the PACS that keeps the pixels")
        return self


class ForwardingRule(Section):
    """Which received objects go on to a peer; an empty list of conditions passes any."""

    to: AETitle = Field(description="AE title, one of peers")
    calling_ae_titles: tuple[AETitle, ...] = Field((), description="who sent the object here")
    modalities: tuple[str, ...] = Field((), description="Modality of the object")


class ForwardingSettings(Section):
    """Sending received objects on."""

    rules: tuple[ForwardingRule, ...] = Field(
        (), description="which objects go where; each that passes a rule is sent to its peer"
    )
    first_retry_s: float = Field(
        30, gt=0, description="pause after a first failure; doubled after each further one"
    )
    longest_retry_s: float = Field(3600, gt=0, description="longest pause between tries")
    give_up_days: float = Field(7, gt=0, description="how long a failing object is tried again")


class ImagingSettings(Section):
    """From DICOM pixels to pictures."""

    frames_per_instance: int = Field(
        16, ge=1, le=1024, description="frames embedded of a multi-frame object, evenly spread"
    )
    decode_timeout_s: float = Field(
        60,
        gt=0,
        description="time limit to decode one object; of one frame when decompressing to send",
    )
    decode_memory_mib: int = Field(
        4096, ge=512, description="memory limit of the decoder process, MiB"
    )


class EmbeddingSettings(Section):
    """The network."""

    provider: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto takes CUDA when it really loads, else the CPU"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="pictures per network call")
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0 means all cores")
    images_per_series: int = Field(
        64, ge=1, description="instances of a series that are embedded, evenly spread over it"
    )


class IndexSettings(Section):
    """Vector search."""

    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="auto takes the GPU when FAISS sees one, else the CPU"
    )
    snapshot_rows: int = Field(
        5000, ge=1, description="new or deleted vectors after which a snapshot is written"
    )


class SearchSettings(Section):
    """Similarity queries."""

    results: int = Field(20, ge=1, le=1000, description="answers when the query names no number")
    max_results: int = Field(200, ge=1, le=10000, description="answers at most")
    method: Literal["cosine", "euclidean", "hamming"] = Field(
        "cosine", description="default distance; hamming compares hash codes"
    )
    rerank: bool = Field(
        False, description="with hamming, order the nearest codes by the cosine of their embeddings"
    )
    space: str = Field(
        "embedding",
        pattern=r"^embedding(\..+)?$",
        description="vectors compared: embedding, or embedding.LAYER where the model has it",
    )
    by_class: bool = Field(
        False, description="leave out candidates that the model takes for another class"
    )
    trusted_probability: float = Field(
        0.99, ge=0, le=1, description="class probability from which on by_class trusts a prediction"
    )
    same_tags: tuple[Literal["Modality", "BodyPartExamined", "PatientSex", "PatientAge"], ...] = (
        Field((), description="tags that candidates share with the example; empty ones pass")
    )
    same_age_years: float = Field(
        10, ge=0, description="difference in age that same_tags takes for the same, years"
    )
    exclude_same_patient: bool = Field(
        True, description="leave out other studies of the query's patient"
    )

    @field_validator("same_tags", mode="before")
    @classmethod
    def _from_text(cls, tags: object) -> object:
        """Take ``Modality,PatientSex`` too: an environment variable holds no list."""
        return listed(tags)


class WorkerSettings(Section):
    """The embedding worker."""

    lease_s: float = Field(300, gt=1, description="how long a claimed instance is held by a worker")
    claim: int = Field(32, ge=1, description="instances claimed at a time")
    poll_s: float = Field(0.3, gt=0, description="wait between looks into an empty queue")


class Settings(Section):
    """The whole settings tree."""

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("cbmir-node")),
        description="folder of everything the node keeps",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe messages shown"
    )
    peers: dict[AETitle, PeerSettings] = Field(
        default_factory=dict, description="DICOM nodes to call, by AE title: {host, port}"
    )
    dicom: DicomSettings = DicomSettings()
    http: HttpSettings = HttpSettings()
    archive: ArchiveSettings = ArchiveSettings()
    retention: RetentionSettings = RetentionSettings()
    forwarding: ForwardingSettings = ForwardingSettings()
    catalog: CatalogSettings = CatalogSettings()
    imaging: ImagingSettings = ImagingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    index: IndexSettings = IndexSettings()
    search: SearchSettings = SearchSettings()
    worker: WorkerSettings = WorkerSettings()

    @model_validator(mode="after")
    def _named_peers_are_known(self) -> Settings:
        named = {"retention.retrieve_from": self.retention.retrieve_from}
        for number, rule in enumerate(self.forwarding.rules, start=1):
            named[f"forwarding.rules[{number}].to"] = rule.to
        for key, ae_title in named.items():
            if ae_title is not None and ae_title not in self.peers:
                raise ValueError(f"{key}: there is no [peers.{ae_title}] with its host and port")
        return self

    @model_validator(mode="after")
    def _corrected_objects_go_on(self) -> Settings:
        if self.forwarding.rules and self.archive.duplicates != "replace":
            raise ValueError(
                'forwarding.rules need archive.duplicates = "replace": a corrected object that is'
                " not kept here would be acknowledged, and yet not sent on"
            )
        return self

    @property
    def archive_path(self) -> Path:
        """Folder of the received objects."""
        return self.archive.path or self.data_dir / "archive"

    @property
    def catalog_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return self.catalog.url or f"sqlite:///{self.data_dir / 'catalog.sqlite'}"

    @property
    def index_path(self) -> Path:
        """Folder of the index snapshots."""
        return self.data_dir / "index"

    @property
    def models_path(self) -> Path:
        """Folder of the installed ONNX files, each named by its SHA-256."""
        return self.data_dir / "models"

    @property
    def examples_path(self) -> Path:
        """Folder of the files that were dropped as examples; emptied when the node starts."""
        return self.data_dir / "examples"
