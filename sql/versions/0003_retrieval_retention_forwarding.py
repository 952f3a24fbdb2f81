"""Names and sequences to match, what was deleted, what is sent on, what was pulled."""

import sqlalchemy as sa
from alembic import op

from cbmir_node.catalog.person_names import folded_groups

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RowNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DicomText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NAMES = {"patients": "patient_name", "studies": "referring_physician_name"}
_GROUPS = ("alphabetic", "ideographic", "phonetic")
_NEW_ATTRIBUTES = {
    "series": ("performed_procedure_step_start_date", "performed_procedure_step_start_time"),
    "instances": ("acquisition_number", "acquisition_date_time"),
}
_SEQUENCES = {
    "procedure_codes": ("studies", ("code_value", "coding_scheme_designator", "code_meaning")),
    "request_attributes": (
        "series",
        ("requested_procedure_id", "scheduled_procedure_step_id", "accession_number"),
    ),
}
_OLD_ATTRIBUTES = {
    "patients": (
        *("patient_id", "issuer_of_patient_id", "patient_name"),
        *("patient_birth_date", "patient_sex"),
    ),
    "studies": (
        *("study_instance_uid", "study_date", "study_time", "accession_number", "study_id"),
        *("study_description", "referring_physician_name", "patient_age", "institution_name"),
    ),
    "series": (
        *("series_instance_uid", "modality", "body_part_examined", "series_number"),
        *("series_description", "series_date", "series_time", "laterality", "protocol_name"),
        *("manufacturer", "station_name"),
    ),
    "instances": (
        *("sop_instance_uid", "sop_class_uid", "instance_number", "image_type", "rows", "columns"),
        *("number_of_frames", "bits_allocated", "photometric_interpretation"),
        *("content_date", "content_time"),
    ),
}
_OLD_STATES = "state IN ('pending', 'embedded', 'no_pixels', 'failed')"
_NEW_STATES = "state IN ('pending', 'embedded', 'no_pixels', 'failed', 'skipped')"


def upgrade() -> None:
    _collate("C")
    _add_attributes()
    _fold_names()
    for table, (owner, items) in _SEQUENCES.items():
        op.create_table(
            table,
            sa.Column("id", _RowNumber, nullable=False),
            sa.Column("owner", _RowNumber, nullable=False),
            *(_attribute(item) for item in items),
            sa.ForeignKeyConstraint(
                ["owner"], [f"{owner}.id"], name=op.f(f"fk_{table}_owner"), ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        )
        op.create_index(op.f(f"ix_{table}_owner"), table, ["owner"])
    op.create_index("ix_instances_received_at", "instances", ["received_at"])
    _restate(_NEW_STATES)
    _create_deletion_tables()
    _create_forwards()
    _create_pulled_studies()


def downgrade() -> None:
    for table in ("pulled_studies", "forwards", "unused_files", "deleted_objects", *_SEQUENCES):
        op.drop_table(table)
    op.execute("UPDATE work SET state = 'no_pixels' WHERE state = 'skipped'")
    _restate(_OLD_STATES)
    op.drop_index("ix_instances_received_at", "instances")
    for table, name in _NAMES.items():
        for group in _GROUPS:
            op.drop_index(f"ix_{table}_{name}_{group}", table)
            op.drop_column(table, f"{name}_{group}")
    for table, columns in _NEW_ATTRIBUTES.items():
        for column in columns:
            op.drop_column(table, column)
    _collate("default")


def _attribute(name: str) -> sa.Column:
    return sa.Column(name, _DicomText, nullable=False, server_default="")


def _collate(collation: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in _OLD_ATTRIBUTES.items():
        changes = (f'ALTER COLUMN "{name}" TYPE text COLLATE "{collation}"' for name in columns)
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}")


def _add_attributes() -> None:
    for table, columns in _NEW_ATTRIBUTES.items():
        for column in columns:
            op.add_column(table, _attribute(column))
    for table, name in _NAMES.items():
        for group in _GROUPS:
            op.add_column(table, _attribute(f"{name}_{group}"))
            op.create_index(f"ix_{table}_{name}_{group}", table, [f"{name}_{group}"])


def _fold_names() -> None:
    connection = op.get_bind()
    for table_name, name in _NAMES.items():
        columns = [sa.column(column) for column in ("id", name, *(f"{name}_{g}" for g in _GROUPS))]
        table = sa.table(table_name, *columns)
        known = connection.execute(sa.select(table.c.id, table.c[name])).all()
        for row, text in known:
            groups = {f"{name}_{group}": part for group, part in folded_groups(text).items()}
            connection.execute(sa.update(table).where(table.c.id == row).values(**groups))


def _restate(condition: str) -> None:
    with op.batch_alter_table("work") as work:
        work.drop_constraint(op.f("ck_work_state"), type_="check")
        work.create_check_constraint(op.f("ck_work_state"), condition)


def _create_deletion_tables() -> None:
    op.create_table(
        "deleted_objects",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), server_default="", nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=False),
        sa.CheckConstraint(
            "cause IN ('deleted', 'rejected')", name=op.f("ck_deleted_objects_cause")
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_deleted_objects")),
    )
    op.create_index(
        op.f("ix_deleted_objects_study_instance_uid"), "deleted_objects", ["study_instance_uid"]
    )
    op.create_table(
        "unused_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_unused_files")),
    )


def _create_forwards() -> None:
    op.create_table(
        "forwards",
        sa.Column("id", _RowNumber, nullable=False),
        sa.Column("instance", _RowNumber, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requested_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'refused', 'given_up')", name=op.f("ck_forwards_state")
        ),
        sa.ForeignKeyConstraint(
            ["instance"], ["instances.id"], name=op.f("fk_forwards_instance"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forwards")),
        sa.UniqueConstraint(
            "instance", "destination", name=op.f("uq_forwards_instance_destination")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_forwards_instance"), "forwards", ["instance"])
    op.create_index("ix_forwards_state_due_at", "forwards", ["state", "due_at"])


def _create_pulled_studies() -> None:
    op.create_table(
        "pulled_studies",
        sa.Column("id", _RowNumber, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("instances", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.CheckConstraint("state IN ('fetched', 'failed')", name=op.f("ck_pulled_studies_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pulled_studies")),
        sa.UniqueConstraint(
            "source", "study_instance_uid", name=op.f("uq_pulled_studies_source_study_instance_uid")
        ),
    )
