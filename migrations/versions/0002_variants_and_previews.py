"""variants of results, and results as they stand while a unit runs

Revision ID: 0002
Revises: 0001
"""

from alembic import op
import sqlalchemy as sa


revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

_OLD = 'uq_artifacts_unit_id_name_image_id'
_NEW = 'uq_artifacts_unit_id_name_image_id_variant_preview'


def upgrade() -> None:
    with op.batch_alter_table('artifacts') as batch_op:
        batch_op.add_column(sa.Column('variant', sa.String(length=300), server_default=sa.text("''"), nullable=False))
        batch_op.add_column(sa.Column('preview', sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.drop_constraint(_OLD, type_='unique')
        batch_op.create_unique_constraint(_NEW, ['unit_id', 'name', 'image_id', 'variant', 'preview'])
    with op.batch_alter_table('metrics') as batch_op:
        batch_op.add_column(sa.Column('variant', sa.String(length=300), server_default=sa.text("''"), nullable=False))


def downgrade() -> None:
    op.execute("DELETE FROM artifacts WHERE preview OR variant <> ''")
    op.execute("DELETE FROM metrics WHERE variant <> ''")
    with op.batch_alter_table('metrics') as batch_op:
        batch_op.drop_column('variant')
    with op.batch_alter_table('artifacts') as batch_op:
        batch_op.drop_constraint(_NEW, type_='unique')
        batch_op.create_unique_constraint(_OLD, ['unit_id', 'name', 'image_id'])
        batch_op.drop_column('preview')
        batch_op.drop_column('variant')
