"""blobs

The bytes of pictures move to a table of their own, where rows name them by their SHA-256.

Revision ID: 0015
Revises: 0014
"""

from alembic import op
import sqlalchemy as sa


revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'blobs',
        sa.Column('sha256', sa.String(length=64), nullable=False),
        sa.Column('size', sa.BigInteger(), nullable=False),
        sa.Column('put_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('content', sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint('sha256', name=op.f('pk_blobs')),
    )
    op.create_index(op.f('ix_blobs_put_at'), 'blobs', ['put_at'])
    # The server copies row by row; nothing passes through this process.
    op.execute(
        'INSERT INTO blobs (sha256, size, put_at, content) SELECT sha256, length(content), used_at, content FROM images'
    )
    op.execute('ALTER TABLE images DROP COLUMN content')


def downgrade() -> None:
    empty = sa.text("''") if op.get_bind().dialect.name == 'postgresql' else sa.text("x''")
    op.add_column('images', sa.Column('content', sa.LargeBinary(), server_default=empty, nullable=False))
    op.execute('UPDATE images SET content = (SELECT content FROM blobs WHERE blobs.sha256 = images.sha256)')
    op.drop_table('blobs')
