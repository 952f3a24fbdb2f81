"""A small picture of every embedded frame."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_RowNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "thumbnails",
        sa.Column("instance", _RowNumber, nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            *(["instance"], ["instances.id"]),
            name=op.f("fk_thumbnails_instance"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("instance", "frame_number", name=op.f("pk_thumbnails")),
    )


def downgrade() -> None:
    op.drop_table("thumbnails")
