"""jobs of several models; kept arrays in rows of their own

Revision ID: 0004
Revises: 0003
"""

from alembic import op
import sqlalchemy as sa


revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE alone: copying a table, as SQLite's batch mode does, would cascade to the rows below it.
    for table in ('units', 'artifacts', 'metrics'):
        op.add_column(table, sa.Column('model', sa.String(length=100), server_default=sa.text("''"), nullable=False))
        op.execute(f'UPDATE {table} SET model = (SELECT jobs.model FROM jobs WHERE jobs.id = {table}.job_id)')
    op.create_table(
        'kept_arrays',
        sa.Column('unit_id', sa.String(length=32), nullable=False),
        sa.Column('name', sa.String(length=300), nullable=False),
        sa.Column('array', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['unit_id'], ['units.id'], name=op.f('fk_kept_arrays_unit_id_units'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('unit_id', 'name', name=op.f('pk_kept_arrays')),
    )
    _run_again_what_kept_arrays()
    op.execute('ALTER TABLE units DROP COLUMN kept')


def _run_again_what_kept_arrays() -> None:
    """Units of jobs that have not ended keep their arrays anew: in the new place."""
    kept = "SELECT id FROM units WHERE kept IS NOT NULL"
    op.execute(f"DELETE FROM artifacts WHERE unit_id IN ({kept})")
    op.execute(f"DELETE FROM metrics WHERE unit_id IN ({kept})")
    op.execute(
        "UPDATE units SET state = 'queued', steps_done = 0, finished_at = NULL, attempts = 0, worker_id = NULL, "
        "leased_until = NULL WHERE kept IS NOT NULL"
    )
    op.execute("DELETE FROM units WHERE role = 'combine' AND state IN ('queued', 'running')")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE id IN (SELECT job_id FROM units WHERE role = 'compare')")
    op.drop_table('kept_arrays')
    op.add_column('units', sa.Column('kept', sa.LargeBinary(), nullable=True))
    for table in ('units', 'artifacts', 'metrics'):
        op.execute(f'ALTER TABLE {table} DROP COLUMN model')
