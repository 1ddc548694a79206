"""units that have given results which are hidden

Revision ID: 0016
Revises: 0015
"""

from alembic import op
import sqlalchemy as sa


revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004.
    op.add_column('units', sa.Column('has_given', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(f"UPDATE units SET has_given = {_true()} WHERE state = 'running'")  # it may have
    op.create_index(
        'ix_units_given',
        'units',
        ['job_id'],
        sqlite_where=sa.text('has_given = 1'),
        postgresql_where=sa.text('has_given'),
    )


def downgrade() -> None:
    # The version before deletes them with the change that hides them.
    hidden = f"unit_id IN (SELECT id FROM units WHERE has_given = {_true()} AND state NOT IN ('running', 'succeeded'))"
    op.execute(f'DELETE FROM artifacts WHERE NOT preview AND {hidden}')
    op.execute(f'DELETE FROM metrics WHERE {hidden}')
    op.drop_index('ix_units_given', 'units')
    op.execute('ALTER TABLE units DROP COLUMN has_given')


def _true() -> str:
    return 'true' if op.get_context().dialect.name == 'postgresql' else '1'
