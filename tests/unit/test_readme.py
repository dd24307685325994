"""README's tree, commands and targets against the repository; every example against its type."""

import re
from pathlib import Path

import pytest
import typer.main

from flows import cli
from lake.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.yaml")) if not path.name.startswith("experiment-")]
RECIPES = [*EXAMPLES, ROOT / "flows" / "demo" / "recipe.yaml"]


def test_the_tree_names_every_folder_with_code_and_nothing_else():
    listed = {path.rstrip("/") for path in re.findall(r"`([a-z_/]+/)`(?=[^|]*\|)", README)}
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")}
    assert packages <= listed
    missing = {path for path in listed if not list(ROOT.glob(f"{path}*")) and not list(ROOT.glob(f"*/{path}"))}
    assert missing == set()


def test_every_tidemill_command_in_the_text_exists():
    group = typer.main.get_command(cli.commands)
    used = set(re.findall(r"^tidemill ([a-z]+)", README, re.MULTILINE)) | {"doctor", "down"}
    assert used <= set(group.commands)  # type: ignore[attr-defined]
    assert set(group.commands) - {"demo"} <= used | {"demo"}  # type: ignore[attr-defined]


def test_every_make_target_in_the_text_exists():
    targets = set(re.findall(r"^([a-z.]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z.]+)", README)) <= targets | {"test"}


def test_every_picture_is_there_and_small():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size < 300_000, path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_parses(path):
    assert parse_recipe(path.read_text(), str(path)).name


def test_installing_names_no_index_and_no_address():
    for name in ("requirements.lock", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), name
