"""Subscribers, and where they are."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "subscriber",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", sa.String(64), nullable=False, server_default=""),
        sa.Column("domain", sa.String(64), nullable=False, server_default=""),
        sa.Column("password", sa.String(64), nullable=False, server_default=""),
        sa.Column("ha1", sa.String(64), nullable=False, server_default=""),
        sa.Column("ha1_sha256", sa.String(64), nullable=False, server_default=""),
        sa.Column("ha1_sha512t256", sa.String(64), nullable=False, server_default=""),
        sa.UniqueConstraint("username", "domain", name="account_idx"),
    )
    op.create_table(
        "location",
        sa.Column("contact_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("username", sa.String(64), nullable=False, server_default=""),
        sa.Column("domain", sa.String(64)),
        sa.Column("contact", sa.Text, nullable=False),
        sa.Column("received", sa.String(255)),
        sa.Column("path", sa.String(255)),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("q", sa.Float, nullable=False, server_default="1.0"),
        sa.Column("callid", sa.String(255), nullable=False, server_default="Default-Call-ID"),
        sa.Column("cseq", sa.BigInteger, nullable=False, server_default="13"),
        sa.Column("last_modified", sa.DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
        sa.Column("flags", sa.Integer, nullable=False, server_default="0"),
        sa.Column("cflags", sa.String(255)),
        sa.Column("user_agent", sa.String(255), nullable=False, server_default=""),
        sa.Column("socket", sa.String(64)),
        sa.Column("methods", sa.Integer),
        sa.Column("sip_instance", sa.String(255)),
        sa.Column("kv_store", sa.Text),
        sa.Column("attr", sa.String(255)),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("location", "subscriber"):
        op.drop_table(table)
