"""keys; pictures and jobs of their owners

Revision ID: 0006
Revises: 0005
"""

import hashlib

from alembic import op
import sqlalchemy as sa


revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'api_keys',
        sa.Column('id', sa.String(length=32), nullable=False),
        sa.Column('sha256', sa.String(length=64), nullable=False),
        sa.Column('owner', sa.String(length=100), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
        sa.UniqueConstraint('sha256', name=op.f('uq_api_keys_sha256')),
    )
    op.create_table(
        'image_owners',
        sa.Column('image_id', sa.String(length=32), nullable=False),
        sa.Column('owner', sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_image_owners_image_id_images'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('image_id', 'owner', name=op.f('pk_image_owners')),
    )
    op.execute("INSERT INTO image_owners (image_id, owner) SELECT id, '' FROM images")
    _tell_idempotency_keys_apart_by_owner()
    for columns in _LISTS:
        op.drop_index(op.f(f'ix_jobs_{"_".join(columns)}'), 'jobs')
        op.create_index(op.f(f'ix_jobs_owner_{"_".join(columns)}'), 'jobs', ['owner', *columns])
    op.create_index(op.f('ix_jobs_state'), 'jobs', ['state'])


def _tell_idempotency_keys_apart_by_owner() -> None:
    """A key was stored as it was sent; now as the SHA-256 of its owner and it, which SQLite's SQL cannot compute."""
    connection = op.get_bind()
    jobs = sa.table('jobs', sa.column('id'), sa.column('owner'), sa.column('idempotency_key'))
    keys = connection.execute(sa.select(jobs).where(jobs.c.idempotency_key.is_not(None))).all()
    digests = [
        {'job': job, 'digest': hashlib.sha256(f'{owner}\0{key}'.encode()).hexdigest()} for job, owner, key in keys
    ]
    if digests:
        connection.execute(
            sa.update(jobs).where(jobs.c.id == sa.bindparam('job')).values(idempotency_key=sa.bindparam('digest')),
            digests,
        )


def downgrade() -> None:
    op.drop_index(op.f('ix_jobs_state'), 'jobs')
    for columns in _LISTS:
        op.drop_index(op.f(f'ix_jobs_owner_{"_".join(columns)}'), 'jobs')
        op.create_index(op.f(f'ix_jobs_{"_".join(columns)}'), 'jobs', columns)
    op.drop_table('image_owners')
    op.drop_table('api_keys')


_LISTS = (
    ['created_at', 'id'],
    ['state', 'created_at', 'id'],
    ['analysis', 'created_at', 'id'],
)
