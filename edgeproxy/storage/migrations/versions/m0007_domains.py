"""Domains whose users register here."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "domain",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("domain", sa.String(64), nullable=False, server_default=""),
        sa.Column("attrs", sa.String(255)),
        sa.Column("accept_subdomain", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_modified", sa.DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
        sa.UniqueConstraint("domain", name="domain_idx"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("domain")
