"""Groups of callers, and rules for numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "dr_groups",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("domain", sa.String(128)),
        sa.Column("groupid", sa.Integer, nullable=False, server_default="0"),
        sa.Column("description", sa.String(128)),
    )
    op.create_table(
        "dialplan",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("dpid", sa.Integer, nullable=False),
        sa.Column("pr", sa.Integer, nullable=False, server_default="0"),
        sa.Column("match_op", sa.Integer, nullable=False),
        sa.Column("match_exp", sa.String(64), nullable=False),
        sa.Column("match_flags", sa.Integer, nullable=False, server_default="0"),
        sa.Column("subst_exp", sa.String(64)),
        sa.Column("repl_exp", sa.String(32)),
        sa.Column("timerec", sa.String(255)),
        sa.Column("disabled", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attrs", sa.String(255)),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("dialplan")
    op.drop_table("dr_groups")
