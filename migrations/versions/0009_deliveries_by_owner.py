"""deliveries by owner

Revision ID: 0009
Revises: 0008
"""

from alembic import op
import sqlalchemy as sa


revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('deliveries', sa.Column('owner', sa.String(length=100), server_default=sa.text("''"), nullable=False))
    op.execute('UPDATE deliveries SET owner = (SELECT jobs.owner FROM jobs WHERE jobs.id = deliveries.job_id)')
    op.drop_index(op.f('ix_deliveries_state_due_at'), 'deliveries')
    op.create_index(op.f('ix_deliveries_state_owner_due_at'), 'deliveries', ['state', 'owner', 'due_at'])


def downgrade() -> None:
    op.drop_index(op.f('ix_deliveries_state_owner_due_at'), 'deliveries')
    op.create_index(op.f('ix_deliveries_state_due_at'), 'deliveries', ['state', 'due_at'])
    op.execute('ALTER TABLE deliveries DROP COLUMN owner')
