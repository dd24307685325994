from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path

from bentos.package import REQUIREMENTS
from bentos.source import PACKAGES, ROOT, copy_source, source_closure

SERVED = source_closure("bentos.service", "bentos.build_bento")


def test_the_closure_holds_what_is_served_and_nothing_of_the_rest() -> None:
    names = {path.as_posix() for path in SERVED}

    assert {
        "bentos/__init__.py",
        "bentos/service.py",
        "bentos/engine.py",
        "lake/__init__.py",
        "lake/redact/__init__.py",
    } <= names
    assert not names & {"bentos/gateway.py", "bentos/controller.py", "bentos/package.py", "lake/recipe.py"}
    assert not any(name.startswith("lake/ledger") for name in names)


def test_a_module_that_is_imported_inside_a_function_belongs_to_it() -> None:
    assert Path("bentos/replica.py") in SERVED  # imported by the service's constructor alone


def test_the_copied_source_runs_without_the_repository(tmp_path: Path) -> None:
    """`-S` leaves out the editable install; site-packages come back as a plain folder."""
    copy_source(SERVED, tmp_path)
    modules = [".".join(path.with_suffix("").parts) for path in SERVED if path.name != "__init__.py"]
    told = f"import {', '.join(modules)}, lake; print(lake.__file__)"

    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += [{sysconfig.get_path('purelib')!r}]; {told}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"},
    )

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_the_requirements_are_what_the_source_imports() -> None:
    roots = set()
    for path in SERVED:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.split(".")[0])
    foreign = roots - set(sys.stdlib_module_names) - set(PACKAGES)
    distributions = packages_distributions()
    # onnx is for building alone; botocore comes with boto3.
    needed = {name.lower().replace("_", "-") for root in foreign - {"onnx", "botocore"} for name in distributions[root]}

    assert needed == set(REQUIREMENTS)
