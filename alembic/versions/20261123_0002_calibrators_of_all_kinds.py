"""calibrators of all kinds.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-23 06:20:29.052813+00:00
"""

import sqlalchemy as sa

from alembic import op


revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


OLD_TYPES = ('science', 'bias', 'dark', 'flat')
NEW_TYPES = (*OLD_TYPES, 'twilight_flat')
OLD_KINDS = ('bias', 'dark', 'flat', 'bad_pixels')
NEW_KINDS = (
    'crosstalk', 'linearity', 'bias', 'dark', 'flat', 'twilight_flat', 'fringe', 'illumination', 'bad_pixels'
)
#: Kinds of calibrators that images have come to name.
ADDED = ('crosstalk', 'linearity', 'fringe', 'illumination')


def known(column, values):
    return f"{column} IN {values}"


def checks(table, **conditions):
    """Name conditions as the models do: SQLite copies an altered table without them."""
    return [
        sa.CheckConstraint(condition, name=op.f(f'ck_{table}_{name}')) for name, condition in conditions.items()
    ]


def alter_types(types, kinds, old_lengths, lengths):
    """Let exposures and calibrators have these types and kinds."""
    with op.batch_alter_table(
        'calibrators', table_args=checks('calibrators', known_origin="origin IN ('built', 'supplied')")
    ) as batch_op:
        if op.get_context().dialect.name != 'sqlite':
            batch_op.drop_constraint(op.f('ck_calibrators_known_kind'), type_='check')
        batch_op.alter_column(
            'kind', existing_type=sa.String(old_lengths[1]), type_=sa.String(lengths[1]), existing_nullable=False
        )
        batch_op.create_check_constraint(op.f('ck_calibrators_known_kind'), known('kind', kinds))
    with op.batch_alter_table(
        'exposures', table_args=checks('exposures', exp_time_not_negative='exp_time >= 0')
    ) as batch_op:
        if op.get_context().dialect.name != 'sqlite':
            batch_op.drop_constraint(op.f('ck_exposures_known_type'), type_='check')
        batch_op.alter_column(
            'type', existing_type=sa.String(old_lengths[0]), type_=sa.String(lengths[0]), existing_nullable=False
        )
        batch_op.create_check_constraint(op.f('ck_exposures_known_type'), known('type', types))


def image_checks():
    return checks(
        'images',
        known_type="type IN ('science', 'coadd', 'difference')",
        coadd_has_no_exposure="(type = 'coadd') = (exposure_id IS NULL)",
        difference_has_new="(type = 'difference') = (new_image_id IS NOT NULL)",
    )


def upgrade() -> None:
    with op.batch_alter_table('calibrator_frames') as batch_op:
        batch_op.add_column(sa.Column('rejected_because', sa.String(), nullable=False, server_default=''))
    with op.batch_alter_table('calibrator_frames') as batch_op:
        batch_op.alter_column('rejected_because', existing_type=sa.String(), server_default=None)
    alter_types(NEW_TYPES, NEW_KINDS, (8, 12), (16, 16))
    for column in ('exp_time', 'project', 'telescope'):
        op.create_index(op.f(f'ix_exposures_{column}'), 'exposures', [column], unique=False)
    for column in ('source', 'bad_reason'):
        op.add_column('calibrators', sa.Column(column, sa.String(), nullable=True))
    columns = ['instrument', 'section_id', 'kind']
    op.create_index('ix_calibrators_instrument_section_id_kind', 'calibrators', columns, unique=False)
    with op.batch_alter_table('images', table_args=image_checks()) as batch_op:
        for kind in ADDED:
            batch_op.add_column(sa.Column(f'{kind}_id', sa.Uuid(), nullable=True))
            batch_op.create_index(op.f(f'ix_images_{kind}_id'), [f'{kind}_id'], unique=False)
            batch_op.create_foreign_key(op.f(f'fk_images_{kind}_id'), 'calibrators', [f'{kind}_id'], ['id'])


def refuse_what_is_new() -> None:
    """Say which rows the older schema has no place for, instead of losing them."""
    for table, column, known in (('calibrators', 'kind', OLD_KINDS), ('exposures', 'type', OLD_TYPES)):
        names = ', '.join(f"'{name}'" for name in known)
        query = sa.text(f'SELECT count(*) FROM {table} WHERE {column} NOT IN ({names})')
        if count := op.get_bind().execute(query).scalar():
            raise RuntimeError(
                f'{count} rows of {table} are of kinds that revision 0001 does not know: delete them first'
            )


def downgrade() -> None:
    if not op.get_context().as_sql:
        refuse_what_is_new()
    with op.batch_alter_table('images', table_args=image_checks()) as batch_op:
        for kind in ADDED:
            batch_op.drop_constraint(op.f(f'fk_images_{kind}_id'), type_='foreignkey')
            batch_op.drop_index(op.f(f'ix_images_{kind}_id'))
            batch_op.drop_column(f'{kind}_id')
    op.drop_index('ix_calibrators_instrument_section_id_kind', 'calibrators')
    with op.batch_alter_table(
        'calibrators',
        table_args=checks(
            'calibrators',
            known_origin="origin IN ('built', 'supplied')",
            known_kind=known('kind', NEW_KINDS),
        ),
    ) as batch_op:
        batch_op.drop_column('bad_reason')
        batch_op.drop_column('source')
    for column in ('exp_time', 'project', 'telescope'):
        op.drop_index(op.f(f'ix_exposures_{column}'), 'exposures')
    alter_types(OLD_TYPES, OLD_KINDS, (16, 16), (8, 12))
    with op.batch_alter_table('calibrator_frames') as batch_op:
        batch_op.drop_column('rejected_because')
