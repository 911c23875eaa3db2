"""which outcome of a section's step is the newest.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-24 05:30:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

INDEX = 'ix_step_outcomes_newest'


def upgrade() -> None:
    with op.batch_alter_table('step_outcomes') as batch_op:
        batch_op.add_column(sa.Column('is_newest', sa.Boolean(), nullable=False, server_default=sa.true()))
    op.execute(
        """
        UPDATE step_outcomes SET is_newest = false WHERE EXISTS (
            SELECT 1 FROM step_outcomes AS other
            WHERE other.exposure_id = step_outcomes.exposure_id
            AND other.section_id = step_outcomes.section_id
            AND other.step = step_outcomes.step
            AND (other.updated_at > step_outcomes.updated_at
                 OR (other.updated_at = step_outcomes.updated_at AND other.id > step_outcomes.id))
        )
        """
    )
    with op.batch_alter_table('step_outcomes') as batch_op:
        batch_op.alter_column('is_newest', server_default=None)
    op.create_index(INDEX, 'step_outcomes', ['provenance_id', 'is_newest', 'exposure_id'])


def downgrade() -> None:
    op.drop_index(INDEX, 'step_outcomes')
    with op.batch_alter_table('step_outcomes') as batch_op:
        batch_op.drop_column('is_newest')
