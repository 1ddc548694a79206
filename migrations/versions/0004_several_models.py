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
    with op.batch_alter_table('jobs') as batch_op:
        batch_op.add_column(sa.Column('models', sa.JSON(), nullable=True))
    jobs = sa.table('jobs', sa.column('id', sa.String), sa.column('model', sa.String), sa.column('models', sa.JSON))
    connection = op.get_bind()
    for (model,) in connection.execute(sa.select(jobs.c.model).distinct()).all():
        connection.execute(sa.update(jobs).where(jobs.c.model == model).values(models=[model]))
    with op.batch_alter_table('jobs') as batch_op:
        batch_op.alter_column('models', existing_type=sa.JSON(), nullable=False)
    for table in ('units', 'artifacts', 'metrics'):
        with op.batch_alter_table(table) as batch_op:
            batch_op.add_column(sa.Column('model', sa.String(length=100), nullable=True))
        op.execute(f'UPDATE {table} SET model = (SELECT jobs.model FROM jobs WHERE jobs.id = {table}.job_id)')
        with op.batch_alter_table(table) as batch_op:
            batch_op.alter_column('model', existing_type=sa.String(length=100), nullable=False)
    op.create_table(
        'kept_arrays',
        sa.Column('unit_id', sa.String(length=32), nullable=False),
        sa.Column('name', sa.String(length=300), nullable=False),
        sa.Column('array', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['unit_id'], ['units.id'], name=op.f('fk_kept_arrays_unit_id_units'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('unit_id', 'name', name=op.f('pk_kept_arrays')),
    )
    _run_again_what_kept_arrays()
    with op.batch_alter_table('units') as batch_op:
        batch_op.drop_column('kept')


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
    with op.batch_alter_table('units') as batch_op:
        batch_op.add_column(sa.Column('kept', sa.LargeBinary(), nullable=True))
        batch_op.drop_column('model')
    op.drop_table('kept_arrays')
    for table in ('artifacts', 'metrics'):
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_column('model')
    with op.batch_alter_table('jobs') as batch_op:
        batch_op.drop_column('models')
