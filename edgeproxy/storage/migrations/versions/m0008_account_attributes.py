"""Attributes of accounts, and further users that they may be."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usr_preferences",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", sa.String(64), nullable=False, server_default=""),
        sa.Column("username", sa.String(64), nullable=False, server_default="0"),
        sa.Column("domain", sa.String(64), nullable=False, server_default=""),
        sa.Column("attribute", sa.String(32), nullable=False, server_default=""),
        sa.Column("type", sa.Integer, nullable=False, server_default="0"),
        sa.Column("value", sa.String(128), nullable=False, server_default=""),
        sa.Column("last_modified", sa.DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
    )
    op.create_index("ua_idx", "usr_preferences", ["username", "domain", "attribute"])
    op.create_table(
        "uri",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", sa.String(64), nullable=False, server_default=""),
        sa.Column("domain", sa.String(64), nullable=False, server_default=""),
        sa.Column("uri_user", sa.String(64), nullable=False, server_default=""),
        sa.Column("last_modified", sa.DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
        sa.UniqueConstraint("username", "domain", "uri_user", name="account_uri_idx"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("uri", "usr_preferences"):
        op.drop_table(table)
