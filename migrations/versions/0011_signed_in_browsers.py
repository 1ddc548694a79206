"""signed-in browsers

Browsers that were signed in before have the key itself as their cookie; it is not taken any more, and they sign in anew.

Revision ID: 0011
Revises: 0010
"""

from alembic import op
import sqlalchemy as sa


revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'sign_ins',
        sa.Column('sha256', sa.String(length=64), nullable=False),
        sa.Column('key_id', sa.String(length=32), nullable=False),
        sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(['key_id'], ['api_keys.id'], name=op.f('fk_sign_ins_key_id_api_keys'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('sha256', name=op.f('pk_sign_ins')),
    )
    op.create_index(op.f('ix_sign_ins_key_id'), 'sign_ins', ['key_id'])
    op.create_index(op.f('ix_sign_ins_expires_at'), 'sign_ins', ['expires_at'])


def downgrade() -> None:
    op.drop_table('sign_ins')
