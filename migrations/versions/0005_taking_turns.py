"""owners and priorities, counts that outlive their rows, retention, what workers hold

Revision ID: 0005
Revises: 0004
"""

from alembic import op
import sqlalchemy as sa


revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004. A column that must not be null gets a default first, which then stays.
    long_ago = sa.text("'1970-01-01 00:00:00.000000'")
    for table in ('jobs', 'units'):
        op.add_column(table, sa.Column('owner', sa.String(length=100), server_default=sa.text("''"), nullable=False))
        op.add_column(table, sa.Column('priority', sa.Integer(), server_default=sa.text('1'), nullable=False))
    op.add_column('jobs', sa.Column('stored_bytes', sa.BigInteger(), server_default=sa.text('0'), nullable=False))
    for column in ('submitted_at', 'queued_at'):
        op.add_column(
            'units', sa.Column(column, sa.DateTime(timezone=True), server_default=long_ago, nullable=False)
        )
        op.execute(f'UPDATE units SET {column} = (SELECT jobs.created_at FROM jobs WHERE jobs.id = units.job_id)')
    op.add_column('images', sa.Column('used_at', sa.DateTime(timezone=True), server_default=long_ago, nullable=False))
    op.execute('UPDATE images SET used_at = created_at')
    op.execute(
        'UPDATE jobs SET stored_bytes = '
        '(SELECT COALESCE(SUM(LENGTH(artifacts."array")), 0) FROM artifacts WHERE artifacts.job_id = jobs.id)'
    )
    op.add_column('workers', sa.Column('consuming', sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column('workers', sa.Column('memory_bytes', sa.BigInteger(), server_default=sa.text('0'), nullable=False))
    op.add_column('workers', sa.Column('gpu_memory_bytes', sa.BigInteger(), nullable=True))
    op.create_table(
        'owners',
        sa.Column('name', sa.String(length=100), nullable=False),
        sa.Column('served_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('name', name=op.f('pk_owners')),
    )
    op.create_index(op.f('ix_owners_served_at'), 'owners', ['served_at'])
    op.execute("INSERT INTO owners (name, served_at) VALUES ('', '1970-01-01 00:00:00.000000')")
    op.create_table(
        'tallies',
        sa.Column('name', sa.String(length=100), nullable=False),
        sa.Column('analysis', sa.String(length=100), nullable=False),
        sa.Column('model', sa.String(length=100), nullable=False),
        sa.Column('count', sa.BigInteger(), nullable=False),
        sa.Column('total', sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint('name', 'analysis', 'model', name=op.f('pk_tallies')),
    )
    for table, columns in _INDEXES:
        op.create_index(op.f(f'ix_{table}_{"_".join(columns)}'), table, columns)
    queued = sa.text("state = 'queued'")
    op.create_index(
        'ix_units_queued',
        'units',
        ['priority', 'owner', 'submitted_at', 'job_id', 'position'],
        sqlite_where=queued,
        postgresql_where=queued,
    )


def downgrade() -> None:
    op.drop_index('ix_units_queued', 'units')
    for table, columns in _INDEXES:
        op.drop_index(op.f(f'ix_{table}_{"_".join(columns)}'), table)
    op.drop_table('tallies')
    op.drop_table('owners')
    for table, column in (
        ('workers', 'gpu_memory_bytes'),
        ('workers', 'memory_bytes'),
        ('workers', 'consuming'),
        ('images', 'used_at'),
        ('units', 'queued_at'),
        ('units', 'submitted_at'),
        ('jobs', 'stored_bytes'),
        *((table, column) for table in ('units', 'jobs') for column in ('priority', 'owner')),
    ):
        op.execute(f'ALTER TABLE {table} DROP COLUMN {column}')


_INDEXES = (
    ('jobs', ['analysis', 'created_at', 'id']),
    ('jobs', ['finished_at']),
    ('images', ['used_at']),
    ('artifacts', ['image_id']),
    ('metrics', ['image_id']),
)
