"""what changed: depth, cuts, verdicts, reference sets.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-23 17:45:00.000000+00:00
"""

import sqlalchemy as sa

from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    _differences_have_a_depth()
    _objects_are_named_by_place()
    _people_have_verdicts()
    _references_are_used()


def downgrade() -> None:
    _differences_have_none()
    _objects_are_named_by_count()
    _people_have_none()
    _references_are_just_there()


# --- Reference sets: which version is used --------------------------------------------------------


def _references_are_used() -> None:
    op.create_table(
        'reference_uses',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('reference_id', sa.Uuid(), nullable=False),
        sa.Column('reason', sa.String(), nullable=True),
        sa.ForeignKeyConstraint(['reference_id'], ['references.id'], name=op.f('fk_reference_uses_reference_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_reference_uses')),
    )
    op.create_index(op.f('ix_reference_uses_reference_id'), 'reference_uses', ['reference_id'])
    # Until now the newest one was used.
    op.execute(
        'INSERT INTO reference_uses (id, created_at, reference_id) '
        'SELECT id, created_at, id FROM "references" WHERE left_out_exposure_id IS NULL'
    )
    with op.batch_alter_table('references') as batch_op:
        batch_op.add_column(sa.Column('whole_id', sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(op.f('fk_references_whole_id'), 'references', ['whole_id'], ['id'])
        batch_op.create_index(op.f('ix_references_whole_id'), ['whole_id'])


def _references_are_just_there() -> None:
    with op.batch_alter_table('references') as batch_op:
        batch_op.drop_index(op.f('ix_references_whole_id'))
        batch_op.drop_constraint(op.f('fk_references_whole_id'), type_='foreignkey')
        batch_op.drop_column('whole_id')
    op.drop_table('reference_uses')


# --- Verdicts: what people said of exposures, sections and objects --------------------------------


def _people_have_verdicts() -> None:
    op.create_table(
        'verdicts',
        sa.Column('exposure_id', sa.Uuid(), nullable=True),
        sa.Column('section_id', sa.String(), nullable=False),
        sa.Column('object_name', sa.String(), nullable=True),
        sa.Column('ra', sa.Double(), nullable=True),
        sa.Column('dec', sa.Double(), nullable=True),
        sa.Column('healpix', sa.BigInteger(), nullable=True),
        sa.Column('word', sa.String(length=8), nullable=False),
        sa.Column('reason', sa.String(), nullable=False),
        sa.Column('said_by', sa.String(), nullable=False),
        sa.Column('counts', sa.Boolean(), nullable=False),
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("word IN ('bad', 'good', 'real', 'bogus', 'undo')", name=op.f('ck_verdicts_known_word')),
        sa.CheckConstraint('(exposure_id IS NULL) <> (healpix IS NULL)', name=op.f('ck_verdicts_of_one_thing')),
        sa.ForeignKeyConstraint(['exposure_id'], ['exposures.id'], name=op.f('fk_verdicts_exposure_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_verdicts')),
    )
    for column in ('exposure_id', 'object_name', 'healpix'):
        op.create_index(op.f(f'ix_verdicts_{column}'), 'verdicts', [column])


def _people_have_none() -> None:
    op.drop_table('verdicts')


# --- Objects: names by place, and those they had before ------------------------------------------


def _objects_are_named_by_place() -> None:
    op.create_table(
        'object_aliases',
        sa.Column('object_id', sa.Uuid(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('how', sa.String(length=8), nullable=False),
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ['object_id'], ['objects.id'], name=op.f('fk_object_aliases_object_id'), ondelete='CASCADE'
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_object_aliases')),
    )
    for column in ('object_id', 'name'):
        op.create_index(op.f(f'ix_object_aliases_{column}'), 'object_aliases', [column])
    # The same name under every provenance is the same place on the sky.
    with op.batch_alter_table('objects') as batch_op:
        batch_op.drop_constraint(op.f('uq_objects_name'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_objects_name_provenance_id'), ['name', 'provenance_id'])
    op.drop_table('object_name_counters')


#: Names by count, such as obj2026aab, are given on from the first one that is longer than all there were.
COUNTERS = """
INSERT INTO object_name_counters (year, n_given)
SELECT CAST(substr(name, 4, 4) AS INTEGER), max(CASE length(name)
    WHEN 10 THEN 17576 WHEN 11 THEN 474552 WHEN 12 THEN 12355928 ELSE 321271704 END)
FROM (SELECT name FROM objects UNION SELECT name FROM object_aliases) AS given
WHERE name LIKE 'obj____%' AND length(name) BETWEEN 10 AND 13
AND substr(name, 4, 1) BETWEEN '0' AND '9' AND substr(name, 5, 1) BETWEEN '0' AND '9'
AND substr(name, 6, 1) BETWEEN '0' AND '9' AND substr(name, 7, 1) BETWEEN '0' AND '9'
GROUP BY CAST(substr(name, 4, 4) AS INTEGER)
"""


def _objects_are_named_by_count() -> None:
    op.create_table(
        'object_name_counters',
        sa.Column('year', sa.Integer(), autoincrement=False, nullable=False),
        sa.Column('n_given', sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint('year', name=op.f('pk_object_name_counters')),
    )
    op.execute(COUNTERS)
    op.execute(
        "UPDATE objects SET name = name || '.' || substr(provenance_id, 1, 8) WHERE EXISTS "
        '(SELECT 1 FROM objects AS older WHERE older.name = objects.name AND older.id < objects.id)'
    )
    with op.batch_alter_table('objects') as batch_op:
        batch_op.drop_constraint(op.f('uq_objects_name_provenance_id'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_objects_name'), ['name'])
    op.drop_table('object_aliases')


# --- Depth of differences, and what is measured of detections ----------------------------------------

MEASURED = (
    *('limiting_mag', 'masked_fraction', 'cosmic_ray_fraction', 'dipole_chi2', 'dipole_ratio'),
    *('dipole_separation_pix', 'dipole_angle_rad', 'change_fraction', 'star_distance_arcsec', 'star_mag'),
    *('galaxy_distance_arcsec', 'galaxy_mag', 'edge_distance_pix'),
)
DEPTHS = ('limit_e', 'limiting_mag', 'searched_fraction')


def _differences_have_a_depth() -> None:
    for table, names in (('source_lists', DEPTHS), ('measurements', MEASURED)):
        for name in names:
            op.add_column(table, sa.Column(name, sa.Double(), nullable=True))
    kind = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), 'postgresql')
    op.add_column('source_lists', sa.Column('depth_map', kind, nullable=True))


def _differences_have_none() -> None:
    for table, names in (('source_lists', (*DEPTHS, 'depth_map')), ('measurements', MEASURED)):
        with op.batch_alter_table(table) as batch_op:
            for name in names:
                batch_op.drop_column(name)
