"""What gateways and carriers may have of calls: columns that OpenSIPS does not know and does not mind."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
_TABLES = ("dr_gateways", "dr_carriers")
_COLUMNS = ("max_calls", "calls_per_second")


def upgrade() -> None:
    """Add the columns."""
    for table in _TABLES:
        for name in _COLUMNS:
            op.add_column(table, sa.Column(name, sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them."""
    for table in _TABLES:
        for name in _COLUMNS:
            op.drop_column(table, name)
