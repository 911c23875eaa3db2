"""differences know their zero point, by the flux ratio that was subtracted with.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-23 21:25:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

#: References without an exposure that are older than `whole_id` are of the one with one image more.
WHOLE = """
UPDATE "references" SET whole_id = (
    SELECT whole.id FROM "references" AS whole
    WHERE whole.left_out_exposure_id IS NULL AND whole.provenance_id = "references".provenance_id
    AND whole.region = "references".region AND whole."filter" = "references"."filter"
    AND (SELECT count(*) FROM image_parents AS p WHERE p.coadd_id = whole.image_id) = 1 +
        (SELECT count(*) FROM image_parents AS p JOIN image_parents AS q ON q.parent_id = p.parent_id
         WHERE p.coadd_id = "references".image_id AND q.coadd_id = whole.image_id)
    AND (SELECT count(*) FROM image_parents AS p WHERE p.coadd_id = whole.image_id) = 1 +
        (SELECT count(*) FROM image_parents AS p WHERE p.coadd_id = "references".image_id)
    ORDER BY whole.id DESC LIMIT 1
) WHERE left_out_exposure_id IS NOT NULL AND whole_id IS NULL
"""


def upgrade() -> None:
    kind = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), 'postgresql')
    op.add_column('images', sa.Column('zp_change_mag', kind, nullable=True))
    op.add_column('images', sa.Column('zp_err', sa.Double(), nullable=True))
    op.execute(WHOLE)


def downgrade() -> None:
    with op.batch_alter_table('images') as batch_op:
        for name in ('zp_err', 'zp_change_mag'):
            batch_op.drop_column(name)
