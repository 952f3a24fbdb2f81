"""Names and sequences to match, what was deleted, what is sent on, what was pulled."""

import sqlalchemy as sa
from alembic import op

from cbmir_node.catalog.query.person_names import folded_groups
from cbmir_node.catalog.reception.representation import is_representative, sampling_order

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 10_000
_RowNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DicomText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NAMES = {"patients": "patient_name", "studies": "referring_physician_name"}
_GROUPS = ("alphabetic", "ideographic", "phonetic")
_NEW_ATTRIBUTES = {
    "series": ("performed_procedure_step_start_date", "performed_procedure_step_start_time"),
    "instances": (
        *("acquisition_number", "acquisition_date_time"),
        *("acquisition_date_time_first", "acquisition_date_time_last"),
    ),
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
_NEW_TABLES = (
    *("pulled_studies", "resting_destinations", "forwards", "unused_files", "deleted_objects"),
    *_SEQUENCES,
)
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
    op.create_index(
        *("ix_instances_not_kept", "instances", ["series"]),
        sqlite_where=sa.text("path = ''"),
        postgresql_where=sa.text("path = ''"),
    )
    op.create_index(
        *("ix_instances_kept", "instances", ["received_at", "size_bytes"]),
        sqlite_where=sa.text("path != ''"),
        postgresql_where=sa.text("path != ''"),
    )
    _order_series()
    _restate(_NEW_STATES)
    _create_deletion_tables()
    _create_forwards()
    _create_pulled_studies()


def downgrade() -> None:
    for table in _NEW_TABLES:
        op.drop_table(table)
    op.execute("UPDATE work SET state = 'no_pixels' WHERE state = 'skipped'")
    _restate(_OLD_STATES)
    op.drop_index("ix_instances_kept", "instances")
    op.drop_index("ix_instances_series_sampling_order", "instances")
    op.drop_column("instances", "sampling_order")
    op.drop_index("ix_instances_not_kept", "instances")
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
        named = sa.select(table.c.id, table.c[name]).where(table.c[name] != "")
        known = connection.execute(named).all()
        for row, text in known:
            groups = {f"{name}_{group}": part for group, part in folded_groups(text).items()}
            connection.execute(sa.update(table).where(table.c.id == row).values(**groups))


def _order_series() -> None:
    """Say anew which images stand for a study, and in which order a series is embedded."""
    op.add_column("instances", sa.Column("sampling_order", sa.BigInteger()))
    op.create_index("ix_instances_series_sampling_order", "instances", ["series", "sampling_order"])
    read = ("sop_instance_uid", "sop_class_uid", "image_type", "instance_number", "has_pixels")
    names = ("id", *read, "representative", "sampling_order")
    table = sa.table("instances", *(sa.column(name) for name in names))
    connection = op.get_bind()
    change = sa.update(table).where(table.c.id == sa.bindparam("row"))
    values = {"representative": sa.bindparam("stands"), "sampling_order": sa.bindparam("place")}
    page = sa.select(table.c.id, *(table.c[name] for name in read)).order_by(table.c.id)
    last = 0
    while known := connection.execute(page.where(table.c.id > last).limit(_ROWS_AT_ONCE)).all():
        rows = []
        for row in known:
            stands = is_representative(row.image_type, row.sop_class_uid)
            place = sampling_order(row.instance_number, row.sop_instance_uid, representative=stands)
            place = place if row.has_pixels else None
            rows.append({"row": row.id, "stands": stands, "place": place})
        connection.execute(change.values(values), rows)
        last = known[-1].id


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
        sa.Column("instance", _RowNumber, nullable=True),
        sa.CheckConstraint(
            "cause IN ('deleted', 'rejected')", name=op.f("ck_deleted_objects_cause")
        ),
        sa.ForeignKeyConstraint(
            ["instance"],
            ["instances.id"],
            name=op.f("fk_deleted_objects_instance"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_deleted_objects")),
    )
    op.create_index(op.f("ix_deleted_objects_instance"), "deleted_objects", ["instance"])
    op.create_index(
        op.f("ix_deleted_objects_study_instance_uid"), "deleted_objects", ["study_instance_uid"]
    )
    op.create_table(
        "unused_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_unused_files")),
    )
    op.create_index(op.f("ix_unused_files_since"), "unused_files", ["since"])


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
    op.create_index(
        "ix_forwards_state_destination_due_at", "forwards", ["state", "destination", "due_at"]
    )
    op.create_table(
        "resting_destinations",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_resting_destinations")),
    )


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
