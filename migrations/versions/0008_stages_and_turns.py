"""units counted by stage, turns of priorities and owners, pictures that parameters name, one result of a name

Revision ID: 0008
Revises: 0007
"""

from alembic import op
import sqlalchemy as sa


revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004.
    op.create_table(
        'stages',
        sa.Column('job_id', sa.String(length=32), nullable=False),
        sa.Column('role', sa.String(length=100), nullable=False),
        sa.Column('model', sa.String(length=100), nullable=False),
        sa.Column('position', sa.Integer(), nullable=False),
        sa.Column('units', sa.Integer(), nullable=False),
        sa.Column('still_open', sa.Integer(), nullable=False),
        sa.Column('failed', sa.Integer(), nullable=False),
        sa.Column('steps_total', sa.BigInteger(), nullable=False),
        sa.Column('steps_done', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_stages_job_id_jobs'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('job_id', 'role', 'model', name=op.f('pk_stages')),
    )
    _count_units()
    op.create_table(
        'turns',
        sa.Column('priority', sa.Integer(), autoincrement=False, nullable=False),
        sa.Column('owner', sa.String(length=100), nullable=False),
        sa.Column('number', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('priority', 'owner', name=op.f('pk_turns')),
    )
    op.drop_index(op.f('ix_owners_served_at'), 'owners')
    op.execute('ALTER TABLE owners DROP COLUMN served_at')
    op.create_table(
        'named_images',
        sa.Column('job_id', sa.String(length=32), nullable=False),
        sa.Column('image_id', sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(['image_id'], ['images.id'], name=op.f('fk_named_images_image_id_images')),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_named_images_job_id_jobs'), ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('job_id', 'image_id', name=op.f('pk_named_images')),
    )
    op.create_index(op.f('ix_named_images_image_id'), 'named_images', ['image_id'])
    _name_images()
    op.add_column('units', sa.Column('outages', sa.Integer(), server_default=sa.text('0'), nullable=False))
    running = sa.text("state = 'running'")
    op.create_index('ix_units_running', 'units', ['job_id'], sqlite_where=running, postgresql_where=running)
    _tell_results_apart()
    of_no_image = sa.text('image_id IS NULL')
    op.create_index(
        'uq_artifacts_of_no_image',
        'artifacts',
        ['unit_id', 'name', 'variant', 'preview'],
        unique=True,
        sqlite_where=of_no_image,
        postgresql_where=of_no_image,
    )


def _count_units() -> None:
    """A stage for each role and model of a job, in the order of their units."""
    op.execute(
        """
        INSERT INTO stages (job_id, role, model, position, units, still_open, failed, steps_total, steps_done)
        SELECT job_id, role, model,
            ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY MIN(position)) - 1,
            COUNT(*),
            SUM(CASE WHEN state IN ('queued', 'running') THEN 1 ELSE 0 END),
            SUM(CASE WHEN state = 'failed' THEN 1 ELSE 0 END),
            SUM(steps_total),
            SUM(CASE WHEN state IN ('queued', 'running') THEN 0 ELSE steps_done END)
        FROM units GROUP BY job_id, role, model
        """
    )


def _name_images() -> None:
    """The pictures that a job's units need and that are none of its own."""
    in_list = {'postgresql': 'json_array_elements_text(units.images)', 'sqlite': 'json_each(units.images)'}
    op.execute(
        f"""
        INSERT INTO named_images (job_id, image_id)
        SELECT DISTINCT units.job_id, images.id
        FROM units
        CROSS JOIN {in_list[op.get_context().dialect.name]} AS needed
        JOIN images ON images.id = needed.value
        WHERE NOT EXISTS (
            SELECT 1 FROM job_images WHERE job_images.job_id = units.job_id AND job_images.image_id = images.id
        )
        """
    )


def _tell_results_apart() -> None:
    """Results of no picture that bore one name get the variant that they lacked."""
    op.execute(
        """
        UPDATE artifacts SET variant = variant || ' (' || position || ')'
        WHERE image_id IS NULL AND EXISTS (
            SELECT 1 FROM artifacts AS first
            WHERE first.unit_id = artifacts.unit_id AND first.name = artifacts.name
                AND first.variant = artifacts.variant AND first.preview = artifacts.preview
                AND first.image_id IS NULL AND first.position < artifacts.position
        )
        """
    )


def downgrade() -> None:
    op.drop_index('uq_artifacts_of_no_image', 'artifacts')
    op.drop_index('ix_units_running', 'units')
    op.execute('ALTER TABLE units DROP COLUMN outages')
    op.drop_table('named_images')
    long_ago = sa.text("'1970-01-01 00:00:00.000000'")
    op.add_column(
        'owners', sa.Column('served_at', sa.DateTime(timezone=True), server_default=long_ago, nullable=False)
    )
    op.create_index(op.f('ix_owners_served_at'), 'owners', ['served_at'])
    op.drop_table('turns')
    op.drop_table('stages')
