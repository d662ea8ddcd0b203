"""What single keys may have."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "edgeproxy_limits",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("limit_name", sa.String(64), nullable=False),
        sa.Column("limit_key", sa.String(255), nullable=False),
        sa.Column("most", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("limit_name", "limit_key", name="limit_key_idx"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("edgeproxy_limits")
