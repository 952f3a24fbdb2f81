"""Every setting of the node, its type, its default and its meaning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

_LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|::1)$")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _only_loopback(host: str) -> str:
    if not _LOOPBACK.match(host):
        raise ValueError(
            "must be a loopback address: without access rules the node serves this machine only"
        )
    return host


def _listed(texts: object) -> object:
    """Return the parts of a text with commas; anything else as it is."""
    if not isinstance(texts, str):
        return texts
    return tuple(part.strip() for part in texts.split(",") if part.strip())


LoopbackHost = Annotated[str, AfterValidator(_only_loopback)]


def _valid_ae_title(title: str) -> str:
    if not re.fullmatch(
        r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?", title
    ):
        raise ValueError("must be 1-16 printable characters without backslash (PS3.5 VR AE)")
    return title


AETitle = Annotated[str, AfterValidator(_valid_ae_title)]


class DicomSettings(_Section):
    """The DICOM wire."""

    host: LoopbackHost = Field(
        "127.0.0.1", description="address to listen on; only loopback for now"
    )
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    ae_title: AETitle = Field("CBMIR", description="title that stores and answers ordinary queries")
    similarity_ae_title: AETitle = Field(
        "CBMIR_SIM", description="title whose STUDY level C-FIND answers with similar studies"
    )
    max_associations: int = Field(100, ge=1, description="associations served at the same time")
    max_pdu_bytes: int = Field(
        131072, ge=4096, le=16777216, description="largest PDU offered and accepted"
    )
    association_timeout_s: float = Field(
        30, gt=0, description="wait for an association request or a release"
    )
    idle_timeout_s: float = Field(60, gt=0, description="wait for the next message")
    pdu_timeout_s: float = Field(30, gt=0, description="wait for the rest of a PDU once begun")
    max_find_results: int = Field(
        10000, ge=1, description="matches returned by one ordinary C-FIND"
    )
    rank_in: Literal["", "StudyDescription", "StudyID", "SeriesDescription"] = Field(
        "",
        description="text key that carries rank and similarity for viewers without private tags",
    )

    @model_validator(mode="after")
    def _distinct_ae_titles(self) -> DicomSettings:
        if self.ae_title == self.similarity_ae_title:
            raise ValueError("similarity_ae_title must differ from ae_title")
        return self


class PeerSettings(_Section):
    """Another DICOM node that this one calls; its key in `Settings.peers` is its AE title."""

    host: str = Field(min_length=1, description="host name or address")
    port: int = Field(ge=1, le=65535, description="TCP port")


Right = Literal["read", "store", "administer"]


class _Caller(_Section):
    rights: tuple[Right, ...] = Field(
        ("read",),
        description="read: search, view, send to a peer; store: add images; administer: the rest",
    )


class UserSettings(_Caller):
    """A person who logs in; the key in `HttpSettings.users` is the name."""

    password_hash: str = Field(
        pattern=r"^scrypt(\$\d+){3}(\$[A-Za-z0-9+/]+=*){2}$",
        description="what `cbmir-node access user` prints",
    )


class TokenSettings(_Caller):
    """A program that sends ``Authorization: Bearer``; the key in `HttpSettings.tokens` names it."""

    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="what `cbmir-node access token` prints"
    )


class HttpSettings(_Section):
    """The HTTP port: the page, DICOMweb, health and metrics."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to listen on; other than loopback only with users or tokens",
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one")
    names: tuple[str, ...] = Field(
        (), description="host names under which clients reach it; localhost and addresses always"
    )
    certificate: Path | None = Field(None, description="TLS certificate chain, PEM")
    private_key: Path | None = Field(None, description="TLS private key, PEM")
    users: dict[str, UserSettings] = Field(
        default_factory=dict, description="people who log in, by name: {password_hash, rights}"
    )
    tokens: dict[str, TokenSettings] = Field(
        default_factory=dict, description="programs, by name: {sha256, rights}"
    )
    session_hours: float = Field(8, gt=0, description="how long an unused login lasts")
    allowed_origins: tuple[str, ...] = Field(
        (), description="origins of browser viewers that may use DICOMweb here, as https://viewer"
    )
    max_request_mib: int = Field(4096, ge=1, description="largest body of a request, MiB")
    max_example_mib: int = Field(
        256, ge=1, description="largest file dropped as an example that is not stored, MiB"
    )
    request_timeout_s: float = Field(
        30, gt=0, description="longest silence of a client within a request"
    )
    max_connections: int = Field(500, ge=1, description="connections open at the same time")
    viewers: dict[str, str] = Field(
        default_factory=dict,
        description="links to viewers by name: URL with {StudyInstanceUID} in it",
    )

    @property
    def only_this_machine(self) -> bool:
        """Tell whether no other machine can reach the port."""
        return _LOOPBACK.match(self.host) is not None

    @property
    def needs_credentials(self) -> bool:
        """Tell whether callers have to say who they are."""
        return bool(self.users or self.tokens)

    @model_validator(mode="after")
    def _strangers_need_credentials(self) -> HttpSettings:
        if not (self.only_this_machine or self.needs_credentials):
            raise ValueError(
                f"host: {self.host} is not loopback; configure http.users or http.tokens first"
                " (`cbmir-node access`), as anybody who reaches the port could see every patient"
            )
        return self

    @model_validator(mode="after")
    def _certificate_with_key(self) -> HttpSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together")
        return self

    @field_validator("names", "allowed_origins", mode="before")
    @classmethod
    def _from_text(cls, texts: object) -> object:
        """Take ``node,node.example`` too: an environment variable holds no list."""
        return _listed(texts)

    @field_validator("names")
    @classmethod
    def _only_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(f"{name}: must be a host name, without scheme and port")
        return names

    @field_validator("allowed_origins")
    @classmethod
    def _only_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9._-]+(:\d+)?", origin):
                raise ValueError(
                    f"{origin}: must be scheme, host and port in lower case, as https://viewer"
                )
        return origins

    @field_validator("viewers")
    @classmethod
    def _links_name_the_study(cls, viewers: dict[str, str]) -> dict[str, str]:
        for name, url in viewers.items():
            if not re.match(r"https?://", url) or "{StudyInstanceUID}" not in url:
                raise ValueError(f"{name}: must be an http(s) URL with {{StudyInstanceUID}} in it")
        return viewers


class ArchiveSettings(_Section):
    """Received objects on disk."""

    path: Path | None = Field(None, description="folder of the objects; default DATA_DIR/archive")
    reserve_mib: int = Field(
        1024, ge=0, description="free disk space below which nothing more is stored, MiB"
    )
    duplicates: Literal["keep", "replace"] = Field(
        "keep", description="when a known SOP Instance UID arrives with different content"
    )
    max_object_mib: int = Field(4096, ge=1, description="largest object accepted, MiB")


class CatalogSettings(_Section):
    """The database of tags, work states and vectors."""

    url: str | None = Field(
        None,
        description="SQLAlchemy URL; default SQLite in DATA_DIR, or postgresql+psycopg://…",
    )
    group_commit: int = Field(128, ge=1, description="received objects that may share one commit")


class RetentionSettings(_Section):
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


class ForwardingRule(_Section):
    """Which received objects go on to a peer; an empty list of conditions passes any."""

    to: AETitle = Field(description="AE title, one of peers")
    calling_ae_titles: tuple[AETitle, ...] = Field((), description="who sent the object here")
    modalities: tuple[str, ...] = Field((), description="Modality of the object")


class ForwardingSettings(_Section):
    """Sending received objects on."""

    rules: tuple[ForwardingRule, ...] = Field(
        (), description="which objects go where; each that passes a rule is sent to its peer"
    )
    first_retry_s: float = Field(
        30, gt=0, description="pause after a first failure; doubled after each further one"
    )
    longest_retry_s: float = Field(3600, gt=0, description="longest pause between tries")
    give_up_days: float = Field(7, gt=0, description="how long a failing object is tried again")


class ImagingSettings(_Section):
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


class EmbeddingSettings(_Section):
    """The network."""

    provider: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto takes CUDA when it really loads, else the CPU"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="pictures per network call")
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0 means all cores")
    images_per_series: int = Field(
        64, ge=1, description="instances of a series that are embedded, evenly spread over it"
    )


class IndexSettings(_Section):
    """Vector search."""

    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="auto takes the GPU when FAISS sees one, else the CPU"
    )
    snapshot_rows: int = Field(
        5000, ge=1, description="new or deleted vectors after which a snapshot is written"
    )


class SearchSettings(_Section):
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
        return _listed(tags)


class WorkerSettings(_Section):
    """The embedding worker."""

    lease_s: float = Field(300, gt=1, description="how long a claimed instance is held by a worker")
    claim: int = Field(32, ge=1, description="instances claimed at a time")
    poll_s: float = Field(0.3, gt=0, description="wait between looks into an empty queue")


class Settings(_Section):
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
