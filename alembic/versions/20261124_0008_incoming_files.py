"""what became of every file that arrived.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-24 05:00:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'incoming_files',
        sa.Column('instrument', sa.String(), nullable=False),
        sa.Column('address', sa.String(), nullable=False),
        sa.Column('size_bytes', sa.BigInteger(), nullable=True),
        sa.Column('stamp', sa.String(), nullable=False),
        sa.Column('changed_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('state', sa.String(length=10), nullable=False),
        sa.Column('reason', sa.String(), nullable=False),
        sa.Column('message', sa.String(), nullable=False),
        sa.Column('settled_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('exposure_id', sa.Uuid(), nullable=True),
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'registered', 'refused', 'ignored')",
            name=op.f('ck_incoming_files_known_state'),
        ),
        sa.ForeignKeyConstraint(
            ['exposure_id'], ['exposures.id'], name=op.f('fk_incoming_files_exposure_id')
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_incoming_files')),
        sa.UniqueConstraint('address', name=op.f('uq_incoming_files_address')),
    )
    with op.batch_alter_table('incoming_files') as batch_op:
        batch_op.create_index(
            'ix_incoming_files_instrument_state', ['instrument', 'state', 'settled_at'], unique=False
        )
        batch_op.create_index(batch_op.f('ix_incoming_files_exposure_id'), ['exposure_id'], unique=False)


def downgrade() -> None:
    op.drop_table('incoming_files')
