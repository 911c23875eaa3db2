"""what changed: depth, cuts, verdicts, reference sets.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-23 17:45:00.000000+00:00
"""

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
