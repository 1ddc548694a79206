"""stages by the names that analyses give them, in the place of roles

Revision ID: 0012
Revises: 0011
"""

from alembic import op
import sqlalchemy as sa


revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None

_LAST_STAGES = {'correspondence': 'pairs', 'invariance': 'means', 'occlusion': 'maps'}
_OPEN = "('queued', 'running')"


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004.
    _plan_again("role = 'combine'")
    for analysis, stage in _LAST_STAGES.items():
        for table in ('units', 'stages'):
            of_analysis = f"job_id IN (SELECT id FROM jobs WHERE analysis = '{analysis}')"
            op.execute(f"UPDATE {table} SET role = '{stage}' WHERE role = 'combine' AND {of_analysis}")
    op.execute('ALTER TABLE units RENAME COLUMN role TO stage')
    op.execute('ALTER TABLE stages RENAME COLUMN role TO name')
    op.execute('ALTER TABLE jobs DROP COLUMN combines')


def _plan_again(later: str) -> None:
    """Where units of later stages have not ended: they go, the last that succeeded before them runs again, plans anew.

    later: which units and stages are meant.
    """
    connection = op.get_bind()
    waiting = f'SELECT DISTINCT job_id, model FROM units WHERE {later} AND state IN {_OPEN}'
    for job_id, model in connection.execute(sa.text(waiting)).all():
        of_job = {'job': job_id, 'model': model}
        last = connection.execute(
            sa.text(
                "SELECT id, steps_total FROM units WHERE job_id = :job AND model = :model AND role = 'work' "
                "AND state = 'succeeded' ORDER BY position DESC LIMIT 1"
            ),
            of_job,
        ).one()
        _forget_results(connection, f'id = :last OR (job_id = :job AND model = :model AND {later})', last.id, of_job)
        for table in ('units', 'stages'):
            connection.execute(sa.text(f'DELETE FROM {table} WHERE job_id = :job AND model = :model AND {later}'), of_job)
        connection.execute(
            sa.text(
                "UPDATE units SET state = 'queued', steps_done = 0, finished_at = NULL, attempts = 0, "
                'worker_id = NULL, leased_until = NULL WHERE id = :id'
            ),
            {'id': last.id},
        )
        connection.execute(
            sa.text(
                'UPDATE stages SET still_open = still_open + 1, steps_done = steps_done - :steps '
                "WHERE job_id = :job AND model = :model AND role = 'work'"
            ),
            {**of_job, 'steps': last.steps_total},
        )


def _forget_results(connection: sa.Connection, units: str, last: str, of_job: dict[str, str]) -> None:
    """Delete what these units gave and kept, which counts no longer among their job's bytes."""
    values = {**of_job, 'last': last}
    given = f'unit_id IN (SELECT id FROM units WHERE {units})'
    its_bytes = 'SUM(LENGTH(CAST(meta AS TEXT)) + COALESCE(LENGTH("array"), 0))'
    connection.execute(
        sa.text(
            'UPDATE jobs SET results_version = results_version + 1, stored_bytes = stored_bytes - '
            f'(SELECT COALESCE({its_bytes}, 0) FROM artifacts WHERE NOT preview AND {given}) WHERE id = :job'
        ),
        values,
    )
    for table in ('kept_arrays', 'artifacts', 'metrics'):
        connection.execute(sa.text(f'DELETE FROM {table} WHERE {given}'), values)


def downgrade() -> None:
    op.add_column('jobs', sa.Column('combines', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute('ALTER TABLE stages RENAME COLUMN name TO role')
    op.execute('ALTER TABLE units RENAME COLUMN stage TO role')
    _forget_given()
    _combine_again()
    _plan_again("role IN ('curves', 'maps')")  # one unit made all maps, and ran their curves
    names = ', '.join(f"'{stage}'" for stage in _LAST_STAGES.values())
    for table in ('units', 'stages'):
        op.execute(f"UPDATE {table} SET role = 'combine' WHERE role IN ({names})")
    for table in ('units', 'stages'):
        op.execute(f"DELETE FROM {table} WHERE role = 'curves'")  # what they kept is gone


def _forget_given() -> None:
    """What units gave before their end: the version before would show it, and count it among their jobs' bytes."""
    unended = "unit_id IN (SELECT id FROM units WHERE state <> 'succeeded')"
    op.execute(f'DELETE FROM artifacts WHERE NOT preview AND {unended}')
    op.execute(f'DELETE FROM metrics WHERE {unended}')


def _combine_again() -> None:
    """Jobs of analyses that combine do so again: always, but for occlusion where pictures are split."""
    split = "SELECT job_id FROM kept_arrays JOIN units ON units.id = kept_arrays.unit_id"
    op.execute(f"UPDATE jobs SET combines = {_true()} WHERE analysis IN ('correspondence', 'invariance') OR id IN ({split})")


def _true() -> str:
    return 'true' if op.get_context().dialect.name == 'postgresql' else '1'
