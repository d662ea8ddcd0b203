"""Rules of fraud profiles."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def _threshold(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def upgrade() -> None:
    """Make the table."""
    figures = ("cpm", "call_duration", "total_calls", "concurrent_calls", "sequential_calls")
    op.create_table(
        "fraud_detection",
        sa.Column("ruleid", sa.Integer, primary_key=True),
        sa.Column("profileid", sa.Integer, nullable=False),
        sa.Column("prefix", sa.String(64), nullable=False),
        sa.Column("start_hour", sa.String(5), nullable=False, server_default="00:00"),
        sa.Column("end_hour", sa.String(5), nullable=False, server_default="23:59"),
        sa.Column("daysoftheweek", sa.String(64), nullable=False, server_default="Mon-Sun"),
        *(_threshold(f"{figure}_{level}") for figure in figures for level in ("warning", "critical")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("fraud_detection")
