"""Other names of users."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "dbaliases",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("alias_username", sa.String(64), nullable=False, server_default=""),
        sa.Column("alias_domain", sa.String(64), nullable=False, server_default=""),
        sa.Column("username", sa.String(64), nullable=False, server_default=""),
        sa.Column("domain", sa.String(64), nullable=False, server_default=""),
        sa.UniqueConstraint("alias_username", "alias_domain", name="alias_idx"),
    )
    op.create_index("target_idx", "dbaliases", ["username", "domain"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("dbaliases")
