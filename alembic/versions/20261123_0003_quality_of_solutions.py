"""quality of solutions.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-23 09:30:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')
#: Columns that every row has: type, and the value of rows that are there already.
FILLED = {
    'psfs': {'bitflag': (sa.BigInteger(), '0')},
    'world_coordinates': {'bitflag': (sa.BigInteger(), '0')},
    'zero_points': {
        'bitflag': (sa.BigInteger(), '0'),
        'spatial_mag': (JSON, '[]'),
        'width_pix': (sa.Integer(), '2'),
        'height_pix': (sa.Integer(), '2'),
    },
    'catalog_releases': {'is_relative': (sa.Boolean(), sa.false())},
}
EMPTY = {'psfs': ('brighter_fatter', 'brighter_fatter_err')}


def upgrade() -> None:
    for table, columns in FILLED.items():
        with op.batch_alter_table(table) as batch_op:
            for name, (kind, value) in columns.items():
                batch_op.add_column(sa.Column(name, kind, nullable=False, server_default=value))
        with op.batch_alter_table(table) as batch_op:
            for name, (kind, _) in columns.items():
                batch_op.alter_column(name, existing_type=kind, server_default=None)
    for table, names in EMPTY.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    for table, names in EMPTY.items():
        with op.batch_alter_table(table) as batch_op:
            for name in names:
                batch_op.drop_column(name)
    for table, columns in FILLED.items():
        with op.batch_alter_table(table) as batch_op:
            for name in columns:
                batch_op.drop_column(name)
