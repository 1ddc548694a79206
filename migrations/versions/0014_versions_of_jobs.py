"""the version of a job, and of the results of a unit

Revision ID: 0014
Revises: 0013
"""

from alembic import op
import sqlalchemy as sa


revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004.
    op.add_column('jobs', sa.Column('version', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('units', sa.Column('results_version', sa.Integer(), server_default=sa.text('0'), nullable=False))
    # What there is comes after 0, also where there were no versions yet.
    op.execute('UPDATE jobs SET results_version = 1 WHERE results_version = 0')
    op.execute('UPDATE jobs SET version = results_version')
    op.execute("UPDATE units SET results_version = 1 WHERE state <> 'queued'")


def downgrade() -> None:
    op.execute('ALTER TABLE units DROP COLUMN results_version')
    op.execute('ALTER TABLE jobs DROP COLUMN version')
