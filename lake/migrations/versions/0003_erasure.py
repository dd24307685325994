"""erasures, what they have erased for good, and which datasets and versions they have touched"""

from alembic import op
import sqlalchemy as sa

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('erasures',
    sa.Column('erasure_id', sa.String(length=32), nullable=False),
    sa.Column('model', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('subjects', sa.JSON(), nullable=False),
    sa.Column('n_subjects', sa.Integer(), nullable=False),
    sa.Column('requested_by', sa.String(length=128), nullable=False),
    sa.Column('requested_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('rebuild', sa.String(length=8), nullable=False),
    sa.Column('found', sa.JSON(), nullable=False),
    sa.Column('owner', sa.String(length=128), nullable=True),
    sa.Column('held_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('erasure_id')
    )
    op.create_index('ix_erasures_model_state', 'erasures', ['model', 'state'], unique=False)
    op.create_table('tombstones',
    sa.Column('model', sa.String(length=64), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('value', sa.String(length=64), nullable=False),
    sa.Column('erasure_id', sa.String(length=32), nullable=False),
    sa.ForeignKeyConstraint(['erasure_id'], ['erasures.erasure_id'], ),
    sa.PrimaryKeyConstraint('model', 'kind', 'value')
    )
    op.create_table('replacements',
    sa.Column('dataset_id', sa.String(length=32), nullable=False),
    sa.Column('model', sa.String(length=64), nullable=False),
    sa.Column('replaced_by', sa.String(length=32), nullable=False),
    sa.Column('erasure_ids', sa.JSON(), nullable=False),
    sa.Column('n_documents', sa.Integer(), nullable=False),
    sa.Column('n_left', sa.Integer(), nullable=False),
    sa.Column('replaced_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('dataset_id'),
    sa.UniqueConstraint('replaced_by')
    )
    op.create_index('ix_replacements_model', 'replacements', ['model'], unique=False)
    op.create_table('taints',
    sa.Column('erasure_id', sa.String(length=32), nullable=False),
    sa.Column('model', sa.String(length=64), nullable=False),
    sa.Column('version', sa.String(length=16), nullable=False),
    sa.Column('rebuild', sa.String(length=8), nullable=False),
    sa.Column('purged_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['erasure_id'], ['erasures.erasure_id'], ),
    sa.PrimaryKeyConstraint('erasure_id', 'model', 'version')
    )
