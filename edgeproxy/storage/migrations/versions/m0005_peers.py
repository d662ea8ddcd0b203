"""Machines of pools, and addresses of peers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "dispatcher",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("setid", sa.Integer, nullable=False, server_default="0"),
        sa.Column("destination", sa.String(192), nullable=False),
        sa.Column("socket", sa.String(128)),
        sa.Column("state", sa.Integer, nullable=False, server_default="0"),
        sa.Column("probe_mode", sa.Integer, nullable=False, server_default="0"),
        sa.Column("weight", sa.String(64), nullable=False, server_default="1"),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attrs", sa.String(128)),
        sa.Column("description", sa.String(64)),
    )
    op.create_table(
        "load_balancer",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("group_id", sa.Integer, nullable=False, server_default="0"),
        sa.Column("dst_uri", sa.String(128), nullable=False),
        sa.Column("resources", sa.String(255), nullable=False),
        sa.Column("probe_mode", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attrs", sa.String(255)),
        sa.Column("description", sa.String(128)),
    )
    op.create_table(
        "address",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("grp", sa.Integer, nullable=False, server_default="0"),
        sa.Column("ip", sa.String(50), nullable=False),
        sa.Column("mask", sa.Integer, nullable=False, server_default="32"),
        sa.Column("port", sa.Integer, nullable=False, server_default="0"),
        sa.Column("proto", sa.String(4), nullable=False, server_default="any"),
        sa.Column("pattern", sa.String(64)),
        sa.Column("context_info", sa.String(32)),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("address", "load_balancer", "dispatcher"):
        op.drop_table(table)
