"""objects keep the sums that their mean place is made of.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-24 00:20:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Objects without them are grouped from all their measurements, and have them from then on.
    kind = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), 'postgresql')
    op.add_column('objects', sa.Column('place_sums', kind, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table('objects') as batch_op:
        batch_op.drop_column('place_sums')
