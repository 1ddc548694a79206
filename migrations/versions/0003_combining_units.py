"""units that combine what a job's other units kept

Revision ID: 0003
Revises: 0002
"""

from alembic import op
import sqlalchemy as sa


revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('jobs') as batch_op:
        batch_op.add_column(sa.Column('combines', sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table('units') as batch_op:
        batch_op.add_column(sa.Column('role', sa.String(length=100), server_default=sa.text("'work'"), nullable=False))
        batch_op.add_column(sa.Column('kept', sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM units WHERE role <> 'work'")
    with op.batch_alter_table('units') as batch_op:
        batch_op.drop_column('kept')
        batch_op.drop_column('role')
    with op.batch_alter_table('jobs') as batch_op:
        batch_op.drop_column('combines')
