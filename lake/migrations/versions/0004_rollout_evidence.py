"""what rollouts have counted and tested, who may act on them, and alarms"""

from alembic import op
import sqlalchemy as sa

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column('rollouts', 'baseline')
    op.add_column('rollouts', sa.Column('kind', sa.String(length=16), server_default='release', nullable=False))
    op.add_column('rollouts', sa.Column('evidence', sa.JSON(), nullable=True))
    op.add_column('rollouts', sa.Column('revision', sa.Integer(), server_default='0', nullable=False))
    op.add_column('rollouts', sa.Column('approved_step', sa.Integer(), server_default='-1', nullable=False))
    op.add_column('rollouts', sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('rollouts', sa.Column('retain_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column('rollouts', sa.Column('cool_until', sa.DateTime(timezone=True), nullable=True))
    _rewrite_plans()
    op.create_table('rollout_looks',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('rollout_id', sa.String(length=64), nullable=False),
    sa.Column('record', sa.JSON(), nullable=False),
    sa.ForeignKeyConstraint(['rollout_id'], ['rollouts.rollout_id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('ix_rollout_looks_rollout', 'rollout_looks', ['rollout_id'], unique=False)
    op.create_table('rollout_observations',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('rollout_id', sa.String(length=64), nullable=False),
    sa.Column('step_index', sa.Integer(), nullable=False),
    sa.Column('metric', sa.String(length=64), nullable=False),
    sa.Column('record', sa.JSON(), nullable=False),
    sa.ForeignKeyConstraint(['rollout_id'], ['rollouts.rollout_id'], ),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_rollout_observations_rollout', 'rollout_observations', ['rollout_id'], unique=False)
    op.create_table('leases',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('holder', sa.String(length=128), nullable=True),
    sa.Column('token', sa.BigInteger(), nullable=False),
    sa.Column('beat', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('alarms',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('subject', sa.String(length=128), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('raised_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('cleared_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('ix_alarms_subject', 'alarms', ['subject'], unique=False)


def _rewrite_plans() -> None:
    """Plans had two limits where they have checks now, and allowed a split that leaves the champion nothing."""
    rollouts = sa.table('rollouts', sa.column('rollout_id', sa.String()), sa.column('plan', sa.JSON()))
    connection = op.get_bind()
    for rollout_id, plan in connection.execute(sa.select(rollouts.c.rollout_id, rollouts.c.plan)).all():
        errors, latency = plan.pop('max_error_rate_increase', 0.02), plan.pop('max_latency_ratio', 2.0)
        plan['checks'] = [
            {'metric': 'error_rate', 'margin': errors},
            {'metric': 'latency_p50', 'margin': max(1.0, latency)},
        ]
        for step in plan.get('steps', []):
            if step['stage'] != 'shadow':
                step['share'] = min(step['share'], 0.99)
        connection.execute(rollouts.update().where(rollouts.c.rollout_id == rollout_id).values(plan=plan))
