"""Tables of carrier routing: rules, gateways, carriers, partitions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "dr_gateways",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gwid", sa.String(64), nullable=False),
        sa.Column("type", sa.Integer, nullable=False, server_default="0"),
        sa.Column("address", sa.String(128), nullable=False),
        sa.Column("strip", sa.Integer, nullable=False, server_default="0"),
        sa.Column("pri_prefix", sa.String(16)),
        sa.Column("attrs", sa.String(255)),
        sa.Column("probe_mode", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.Integer, nullable=False, server_default="0"),
        sa.Column("socket", sa.String(128)),
        sa.Column("description", sa.String(128)),
        sa.UniqueConstraint("gwid", name="dr_gw_idx"),
    )
    op.create_table(
        "dr_carriers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("carrierid", sa.String(64), nullable=False),
        sa.Column("gwlist", sa.String(255), nullable=False),
        sa.Column("flags", sa.Integer, nullable=False, server_default="0"),
        sa.Column("sort_alg", sa.String(1), nullable=False, server_default="N"),
        sa.Column("state", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attrs", sa.String(255)),
        sa.Column("description", sa.String(128)),
        sa.UniqueConstraint("carrierid", name="dr_carrier_idx"),
    )
    op.create_table(
        "dr_rules",
        sa.Column("ruleid", sa.Integer, primary_key=True),
        sa.Column("groupid", sa.String(255), nullable=False),
        sa.Column("prefix", sa.String(64), nullable=False),
        sa.Column("timerec", sa.String(255)),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("routeid", sa.String(255)),
        sa.Column("gwlist", sa.String(255)),
        sa.Column("sort_alg", sa.String(1), nullable=False, server_default="N"),
        sa.Column("sort_profile", sa.Integer),
        sa.Column("attrs", sa.String(255)),
        sa.Column("description", sa.String(128)),
    )
    op.create_table(
        "dr_partitions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("partition_name", sa.String(255), nullable=False),
        sa.Column("db_url", sa.String(255), nullable=False),
        sa.Column("drd_table", sa.String(255)),
        sa.Column("drr_table", sa.String(255)),
        sa.Column("drg_table", sa.String(255)),
        sa.Column("drc_table", sa.String(255)),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("dr_partitions", "dr_rules", "dr_carriers", "dr_gateways"):
        op.drop_table(table)
