"""experiments, as they were asked for, beside the rollouts whose machinery they use"""

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("experiment", sa.JSON(), nullable=True))
