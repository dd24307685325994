"""wake-ups, heartbeats, attempts at stages; what became of an object; back-off of drops"""

from alembic import op
import sqlalchemy as sa

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('objects', sa.Column('gone_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('objects', sa.Column('n_unread', sa.Integer(), server_default='0', nullable=False))
    op.add_column('objects', sa.Column('message', sa.Text(), nullable=True))
    op.create_index('ix_objects_drop', 'objects', ['drop_id'], unique=False)
    op.add_column('drops', sa.Column('not_before', sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE drops SET state = 'poison' WHERE state = 'failed'")
    op.create_table('wakeups',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('bucket', sa.String(length=255), nullable=False),
    sa.Column('key', sa.String(length=1024), nullable=False),
    sa.Column('source', sa.String(length=16), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_table('heartbeats',
    sa.Column('owner', sa.String(length=128), nullable=False),
    sa.Column('beat', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('owner')
    )
    op.create_table('stage_attempts',
    sa.Column('stage_id', sa.String(length=32), nullable=False),
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('model', sa.String(length=64), nullable=False),
    sa.Column('subject', sa.String(length=64), nullable=True),
    sa.Column('prefix', sa.String(length=1024), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('stage_id', 'number'),
    sa.UniqueConstraint('prefix')
    )
    op.create_index('ix_stage_attempts_state', 'stage_attempts', ['state'], unique=False)
