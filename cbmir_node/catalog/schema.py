"""The tables.

::

    patients ──< studies ──< series ──< instances ──< work      one row per instance and model
                    │           │           │          models
                    │           │           ├──< vectors        one row per frame and vector space
                    │           │           │    removed_vectors   log of deleted vector rows
                    │           │           ├──< thumbnails     one row per embedded frame
                    │           │           └──< forwards       to be sent on, one row per peer
                    │           └──< request_attributes         items of a sequence
                    └──< procedure_codes                        likewise
    resting_destinations   peers that nothing can be sent on to at the moment
    deleted_objects    SOP Instance UIDs that were deleted or rejected on purpose
    unused_files       files of the archive that are to be removed
    pulled_studies     how far `pull` has got with another PACS

Text columns hold DICOM values as text, several values joined by a backslash, and are never NULL:
an empty value and an absent one match alike (PS3.4 C.2.2.2). ``vectors.id`` only ever grows, so
an index catches up by reading the rows above the last one it has seen.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from cbmir_node.catalog.keys import NAME_GROUPS, SEQUENCES, Level, SequenceKey, keys_of

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives a growing row number only to INTEGER PRIMARY KEY
RowNumber = BigInteger().with_variant(Integer, "sqlite")


# Bytes decide order and equality, as in SQLite: answers are the same on both databases, and an
# index serves a wildcard at the end of a value
DicomText = Text().with_variant(Text(collation="C"), "postgresql")


def _attributes(level: Level) -> list[Column[str]]:
    columns = []
    for key in keys_of(level):
        columns += [key.column, *key.forms]
    return [Column(name, DicomText, nullable=False, server_default="") for name in columns]


def _name_indexes(table: str, column: str) -> list[Index]:
    return [Index(f"ix_{table}_{column}_{group}", f"{column}_{group}") for group in NAME_GROUPS]


def _items(sequence: SequenceKey) -> Table:
    """Return the table of a sequence's items."""
    owner = TABLE_OF_LEVEL[sequence.level].name
    return Table(
        sequence.table,
        metadata,
        Column("id", RowNumber, primary_key=True),
        _foreign("owner", owner),
        *(
            Column(key.column, DicomText, nullable=False, server_default="")
            for key in sequence.items
        ),
    )


def _foreign(name: str, table: str) -> Column[int]:
    return Column(
        name, RowNumber, ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False, index=True
    )


patients = Table(
    "patients",
    metadata,
    Column("id", RowNumber, primary_key=True),
    # PatientID + issuer; without PatientID each study is a patient, or all such would be one
    Column("identity", Text, nullable=False, unique=True),
    *_attributes("PATIENT"),
    Index("ix_patients_patient_id", "patient_id"),
    *_name_indexes("patients", "patient_name"),
)

studies = Table(
    "studies",
    metadata,
    Column("id", RowNumber, primary_key=True),
    _foreign("patient", "patients"),
    *_attributes("STUDY"),
    Column("age_years", Float),
    Column("received_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("study_instance_uid"),
    Index("ix_studies_study_date", "study_date"),
    Index("ix_studies_accession_number", "accession_number"),
    *_name_indexes("studies", "referring_physician_name"),
)

series = Table(
    "series",
    metadata,
    Column("id", RowNumber, primary_key=True),
    _foreign("study", "studies"),
    *_attributes("SERIES"),
    UniqueConstraint("study", "series_instance_uid"),
    Index("ix_series_series_instance_uid", "series_instance_uid"),
    Index("ix_series_modality_body_part_examined", "modality", "body_part_examined"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", RowNumber, primary_key=True),
    _foreign("series", "series"),
    *_attributes("IMAGE"),
    Column("transfer_syntax_uid", Text, nullable=False),
    # empty when the pixels are not kept here (any more)
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("has_pixels", Boolean, nullable=False),
    # False for localizers, derived images and secondary captures: they do not stand for a study
    Column("representative", Boolean, nullable=False),
    # the first of a series in this order are embedded; NULL without pixels
    Column("sampling_order", BigInteger),
    Column("source", Text, nullable=False),
    Column("received_at", Float, nullable=False),
    UniqueConstraint("sop_instance_uid"),
    # whether all pixels of a series are here
    Index(
        *("ix_instances_not_kept", "series"),
        sqlite_where=text("path = ''"),
        postgresql_where=text("path = ''"),
    ),
    Index("ix_instances_series_sampling_order", "series", "sampling_order"),
    # what eviction walks, oldest first, and what it adds up
    Index(
        *("ix_instances_kept", "received_at", "size_bytes"),
        sqlite_where=text("path != ''"),
        postgresql_where=text("path != ''"),
    ),
    # a replaced instance must not get the number that a worker still holds a claim on
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    # JSON object: vector space to dimension
    Column("spaces", Text, nullable=False),
    # length of the hash code, 0 without one
    Column("code_bits", Integer, nullable=False, server_default="0"),
    # JSON list of class names; NULL until the file of a model installed before is read again
    Column("labels", Text),
    # "active" serves queries, "next" is being embedded and then takes over, "installed" rests
    Column("state", Text, nullable=False),
    Column("installed_at", Float, nullable=False),
    CheckConstraint("state IN ('active', 'next', 'installed')", name="state"),
)

work = Table(
    "work",
    metadata,
    Column("instance", ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("model", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("requested_at", Float, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Float),
    Column("finished_at", Float),
    # "skipped": the series has enough embedded images without it
    CheckConstraint(
        "state IN ('pending', 'embedded', 'no_pixels', 'failed', 'skipped')", name="state"
    ),
    Index("ix_work_model_state_instance", "model", "state", "instance"),
)

vectors = Table(
    "vectors",
    metadata,
    Column("id", RowNumber, primary_key=True),
    _foreign("instance", "instances"),
    Column("model", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("space", Text, nullable=False),
    Column("frame_number", Integer, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("code", LargeBinary),
    Column("label", Text),
    Column("probability", Float),
    UniqueConstraint("instance", "model", "space", "frame_number"),
    Index("ix_vectors_model_space_id", "model", "space", "id"),
    # answers what filters and class restrictions ask without reading the vectors, and in an order
    # in which the rows of instances, series and studies lie
    Index(
        "ix_vectors_prediction",
        *("model", "space", "instance", "frame_number", "label", "probability"),
    ),
    sqlite_autoincrement=True,
)

# of what is embedded, with whatever model
thumbnails = Table(
    "thumbnails",
    metadata,
    Column("instance", ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("frame_number", Integer, primary_key=True),
    # a JPEG file
    Column("picture", LargeBinary, nullable=False),
)

removed_vectors = Table(
    "removed_vectors",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("model", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("space", Text, nullable=False),
    Column("vector_id", RowNumber, nullable=False),
    Index("ix_removed_vectors_model_space_id", "model", "space", "id"),
    sqlite_autoincrement=True,
)

deleted_objects = Table(
    "deleted_objects",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, server_default="", index=True),
    # "deleted" objects may come again when somebody sends them, "rejected" ones may not
    Column("cause", Text, nullable=False),
    # who asked for it, or the title of the rejection note
    Column("detail", Text, nullable=False, server_default=""),
    Column("deleted_at", Float, nullable=False),
    # what is still to be removed; empty once it is, or when nothing was there
    Column("instance", ForeignKey("instances.id", ondelete="SET NULL"), index=True),
    CheckConstraint("cause IN ('deleted', 'rejected')", name="cause"),
)

# written in the transaction that takes the file's name from its row, deleted after the file; also
# before a file is written that only a later transaction names
unused_files = Table(
    "unused_files",
    metadata,
    Column("path", Text, primary_key=True),
    # not to be removed before
    Column("since", Float, nullable=False, index=True),
)

forwards = Table(
    "forwards",
    metadata,
    Column("id", RowNumber, primary_key=True),
    _foreign("instance", "instances"),
    # AE title of the peer
    Column("destination", Text, nullable=False),
    # "pending" is tried (again) when due; "refused" and "given_up" are not
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("requested_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Float),
    Column("finished_at", Float),
    CheckConstraint("state IN ('pending', 'sent', 'refused', 'given_up')", name="state"),
    UniqueConstraint("instance", "destination"),
    Index("ix_forwards_state_destination_due_at", "state", "destination", "due_at"),
    sqlite_autoincrement=True,
)

# peers that nothing can be sent to at the moment: all that waits for them is left alone until then
resting_destinations = Table(
    "resting_destinations",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Float, nullable=False),
)

pulled_studies = Table(
    "pulled_studies",
    metadata,
    Column("id", RowNumber, primary_key=True),
    # AE title or URL of the other PACS
    Column("source", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    # what the other PACS counted when the study was fetched
    Column("instances", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("updated_at", Float, nullable=False),
    CheckConstraint("state IN ('fetched', 'failed')", name="state"),
    UniqueConstraint("source", "study_instance_uid"),
)

TABLE_OF_LEVEL: dict[Level, Table] = {
    "PATIENT": patients,
    "STUDY": studies,
    "SERIES": series,
    "IMAGE": instances,
}
SEQUENCE_ITEMS: dict[str, Table] = {sequence.keyword: _items(sequence) for sequence in SEQUENCES}
"""The table of each sequence that is matched, by its keyword."""
