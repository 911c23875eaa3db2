"""measurements keep how well a shift explains them.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-24 00:30:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

COLUMNS = ('translient_sigma', 'translient_angle_rad')


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column('measurements', sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table('measurements') as batch_op:
        for name in COLUMNS:
            batch_op.drop_column(name)
