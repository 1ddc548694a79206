"""models that workers inspect

Revision ID: 0013
Revises: 0012
"""

from alembic import op
import sqlalchemy as sa


revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'models',
        sa.Column('id', sa.String(length=32), nullable=False),
        sa.Column('owner', sa.String(length=100), nullable=False),
        sa.Column('name', sa.String(length=100), nullable=False),
        sa.Column('description', sa.JSON(), nullable=False),
        sa.Column('job_id', sa.String(length=32), nullable=True),
        sa.Column('card', sa.JSON(), nullable=True),
        sa.Column('error', sa.Text(), nullable=True),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_models_job_id_jobs'), ondelete='SET NULL'),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_models')),
    )
    op.create_index(op.f('ix_models_owner_name'), 'models', ['owner', 'name'])
    op.create_index(op.f('ix_models_job_id'), 'models', ['job_id'])


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE analysis = ''")  # they inspect models
    op.drop_table('models')
