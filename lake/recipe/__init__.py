"""The recipe: one YAML file describes one model. A file of this package for each of its sections."""

from lake.recipe.check import CheckRules
from lake.recipe.experiment import Arm, Compared, Experiment, parse_experiment
from lake.recipe.formats import Formats
from lake.recipe.mix import Mix
from lake.recipe.monitoring import Erasure, Monitoring
from lake.recipe.parse import parse_recipe
from lake.recipe.perplexity import Perplexity
from lake.recipe.prepare import PrepareRules
from lake.recipe.privacy import Privacy
from lake.recipe.quality import Quality
from lake.recipe.recipe import Recipe
from lake.recipe.rollout import Rollout, RolloutCheck, RolloutStep
from lake.recipe.runner import Runner
from lake.recipe.section import Section, Share
from lake.recipe.training import Export, Gate, Training

__all__ = [
    "Arm",
    "CheckRules",
    "Compared",
    "Erasure",
    "Experiment",
    "Export",
    "Formats",
    "Gate",
    "Mix",
    "Monitoring",
    "Perplexity",
    "PrepareRules",
    "Privacy",
    "Quality",
    "Recipe",
    "Rollout",
    "RolloutCheck",
    "RolloutStep",
    "Runner",
    "Section",
    "Share",
    "Training",
    "parse_experiment",
    "parse_recipe",
]
