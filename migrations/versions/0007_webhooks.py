"""webhooks and their deliveries

Revision ID: 0007
Revises: 0006
"""

from alembic import op
import sqlalchemy as sa


revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('jobs', sa.Column('webhook', sa.Text(), nullable=True))
    op.add_column('owners', sa.Column('webhook_secret', sa.String(length=100), nullable=True))
    op.create_table(
        'deliveries',
        sa.Column('id', sa.String(length=32), nullable=False),
        sa.Column('job_id', sa.String(length=32), nullable=False),
        sa.Column('state', sa.String(length=100), nullable=False),
        sa.Column('attempts', sa.Integer(), nullable=False),
        sa.Column('status', sa.Integer(), nullable=True),
        sa.Column('error', sa.Text(), nullable=True),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('delivered_at', sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'given_up')", name=op.f('ck_deliveries_state')),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_deliveries_job_id_jobs'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_deliveries')),
        sa.UniqueConstraint('job_id', name=op.f('uq_deliveries_job_id')),
    )
    op.create_index(op.f('ix_deliveries_state_due_at'), 'deliveries', ['state', 'due_at'])


def downgrade() -> None:
    op.drop_table('deliveries')
    op.execute('ALTER TABLE owners DROP COLUMN webhook_secret')
    op.execute('ALTER TABLE jobs DROP COLUMN webhook')
