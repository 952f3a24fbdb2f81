"""Which models have a hash code and classes, and an index for restrictions by class."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INDEX = "ix_vectors_prediction"
_COLUMNS = ["model", "space", "instance", "frame_number", "label", "probability"]


def upgrade() -> None:
    op.add_column(
        "models", sa.Column("code_bits", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("models", sa.Column("labels", sa.Text()))
    # of the models installed before, the codes they have written tell, until their files are read
    op.execute(
        "UPDATE models SET code_bits = coalesce((SELECT 8 * length(code) FROM vectors "
        "WHERE model = models.id AND code IS NOT NULL ORDER BY vectors.id LIMIT 1), 0)"
    )
    op.create_index(_INDEX, "vectors", _COLUMNS)


def downgrade() -> None:
    op.drop_index(_INDEX, "vectors")
    op.drop_column("models", "labels")
    op.drop_column("models", "code_bits")
