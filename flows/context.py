"""What every flow needs at hand: settings, bucket, ledger, and the recipes in the bucket."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lake.bucket import Bucket, BucketAddress
from lake.errors import RecipeError
from lake.layout import RECIPES, recipe_key
from lake.ledger import Ledger
from lake.recipe import Recipe, parse_recipe
from lake.settings import Settings, load_settings


@dataclass(frozen=True)
class Context:
    """One installation, opened. Cheap to build; connections are made at first use."""

    settings: Settings

    @classmethod
    def from_environment(cls) -> Context:
        return cls(load_settings())

    @cached_property
    def address(self) -> BucketAddress:
        return BucketAddress.of(self.settings)

    @cached_property
    def bucket(self) -> Bucket:
        return Bucket(self.address)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings)

    @property
    def model_cache(self) -> Path:
        """Converted base models."""
        return self.settings.home / "base-models"

    @property
    def bentoml_home(self) -> Path:
        return self.settings.home / "bentoml"

    def workdir(self, identity: str) -> Path:
        """Local scratch of one stage, kept until it is committed so that a killed training can resume."""
        folder = self.settings.home / "work" / identity
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_workdir(self, identity: str) -> None:
        """The stage is committed: its scratch has served."""
        shutil.rmtree(self.settings.home / "work" / identity, ignore_errors=True)

    def progress_file(self, model: str, version: str) -> Path:
        return self.settings.home / "work" / f"progress-{model}-{version}.json"

    def recipe(self, model: str) -> Recipe:
        """The model's recipe. Raises RecipeError, also when it bears another name than its file."""
        key = recipe_key(model)
        recipe = parse_recipe(self.bucket.get(key).decode("utf-8", "replace"), f"s3://{self.bucket.name}/{key}")
        if recipe.name != model:
            raise RecipeError(
                f"s3://{self.bucket.name}/{key}, field name",
                expected=f"{model!r}, as the file is called",
                got=repr(recipe.name),
                remedy="rename the file or the model",
            )
        return recipe

    def models(self) -> list[str]:
        """Names of all recipes in the bucket, valid or not."""
        keys = (ref.key for ref in self.bucket.list(RECIPES))
        return [key.removeprefix(RECIPES).removesuffix(".yaml") for key in keys if key.endswith(".yaml")]
