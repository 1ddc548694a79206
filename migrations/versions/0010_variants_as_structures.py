"""variants of results as their named parts; the version of a job's results; results by picture

Revision ID: 0010
Revises: 0009
"""

import json
import re
from collections.abc import Callable

from alembic import op
import sqlalchemy as sa


revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

_TABLES = ('artifacts', 'metrics')
_PARTS = {'correspondence': ('layer', 'part'), 'invariance': ('family', 'layer')}


def upgrade() -> None:
    # Plain ALTER TABLE alone, as in 0004; SQLite knows no length of text, and needs no change of it.
    for table in _TABLES:
        if op.get_context().dialect.name == 'postgresql':
            op.alter_column(table, 'variant', type_=sa.String(1000), existing_server_default=sa.text("''"))
    _rewrite(lambda text, analysis, model: _as_structure(text, analysis, compares=not model))
    op.add_column('jobs', sa.Column('results_version', sa.Integer(), server_default=sa.text('0'), nullable=False))
    for table, columns in _INDEXES:
        op.drop_index(op.f(f'ix_{table}_job_id'), table)
        op.create_index(op.f(f'ix_{table}_{"_".join(columns)}'), table, columns)


def _rewrite(rewritten: Callable[[str, str, str], str]) -> None:
    """Give every variant that is not empty its new text. rewritten: of the old text, the analysis and the model."""
    connection = op.get_bind()
    jobs = sa.table('jobs', sa.column('id'), sa.column('analysis'))
    for name in _TABLES:
        table = sa.table(name, sa.column('job_id'), sa.column('model'), sa.column('variant'))
        query = sa.select(table.c.job_id, jobs.c.analysis, table.c.model, table.c.variant).distinct()
        found = connection.execute(query.join_from(table, jobs, jobs.c.id == table.c.job_id).where(table.c.variant != ''))
        changes = [
            {'job': job, 'of': model, 'old': text, 'new': rewritten(text, analysis, model)}
            for job, analysis, model, text in found.all()
        ]
        if changes:
            connection.execute(
                sa.update(table)
                .where(
                    table.c.job_id == sa.bindparam('job'),
                    table.c.model == sa.bindparam('of'),
                    table.c.variant == sa.bindparam('old'),
                )
                .values(variant=sa.bindparam('new')),
                changes,
            )


def _as_structure(text: str, analysis: str, *, compares: bool) -> str:
    """The parts that an analysis gave its variants, by their order and, for windows, their form."""
    values = text.split(' · ')
    parts = {}
    if compares:
        parts['compared'] = values.pop(0)
    if analysis == 'occlusion':
        if values and re.fullmatch(r'\d+×\d+', values[0]):
            parts['window'] = values.pop(0)
        share = values.pop() if values and re.fullmatch(r'part \d+ of \d+', values[-1]) else ''
        parts |= {'target': ' · '.join(values), 'share': share}
    else:
        first, second = _PARTS.get(analysis, ('variant', 'part'))
        parts |= {first: values[0] if values else '', second: ' · '.join(values[1:])}
    return json.dumps({name: value for name, value in parts.items() if value}, ensure_ascii=False, separators=(',', ':'))


def downgrade() -> None:
    for table, columns in _INDEXES:
        op.drop_index(op.f(f'ix_{table}_{"_".join(columns)}'), table)
        op.create_index(op.f(f'ix_{table}_job_id'), table, ['job_id'])
    op.execute('ALTER TABLE jobs DROP COLUMN results_version')
    _rewrite(lambda text, _analysis, _model: ' · '.join(json.loads(text).values())[:300])
    for table in _TABLES:
        if op.get_context().dialect.name == 'postgresql':
            op.alter_column(table, 'variant', type_=sa.String(300), existing_server_default=sa.text("''"))


_INDEXES = (('artifacts', ['job_id', 'image_id', 'name']), ('metrics', ['job_id', 'image_id']))
