"""Profiles of quality."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    columns = [
        sa.Column(f"{level}_{what}_{figure}", sa.Float, nullable=False, server_default="-1" if what == "threshold" else penalty)
        for figure in ("asr", "ccr", "pdd", "ast", "acd")
        for what in ("threshold", "penalty")
        for level, penalty in (("warn", "0.5"), ("crit", "0.05"))
    ]
    op.create_table(
        "qr_profiles", sa.Column("id", sa.Integer, primary_key=True), sa.Column("profile_name", sa.String(64), nullable=False), *columns
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("qr_profiles")
