"""Make a bento of an exported model: self-contained source, the model in BentoML's store, an archive in the bucket.

The archive holds the bento without its model: the model's files are in the bucket already, below `onnx_prefix`, and
what packaging changes in them is a function of those files. `restore` makes both again in an empty store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version as installed_version
from pathlib import Path

from bentos.build_order import BuildOrder
from bentos.serving_config import FILE_NAME, ServingConfig, read_facts
from bentos.signature import signature_labels
from bentos.source import copy_source, source_closure
from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.recipe import Recipe
from lake.records import Bento, ExportedModel

# Distributions that the bento's source imports.
REQUIREMENTS = (
    "bentoml",
    "boto3",
    "jinja2",
    "numpy",
    "onnxruntime-gpu",
    "prometheus-client",
    "pyarrow",
    "pydantic",
    "pydantic-settings",
    "starlette",
    "tokenizers",
)
# A label of bentos whose replicas may serve as variants: by the variables of `serving_config`.
VARIANTS = "variants"
_SERVED_MODULES = ("bentos.service", "bentos.build_bento")
_TOLD_LINES = 5


def package(
    exported: ExportedModel,
    recipe: Recipe,
    labels: dict[str, str],
    address: BucketAddress,
    bentoml_home: Path,
    workdir: Path,
    bento_id: str,
    prefix: str,
    name: str | None = None,
) -> Bento:
    """Build `<model>:<version>` into `bentoml_home`, replacing what an attempt that died has left there.

    Its archive goes to `prefix` in the bucket. `name` stands for the version in the tag, for a second bento of one
    version: in another precision.

    Raises TidemillError with the last lines of the build's output when it fails, StorageError when the bucket does.
    """
    bucket = Bucket(address)
    onnx = _fetched(bucket, exported.onnx_prefix, workdir)
    labels = {
        **labels,
        **signature_labels(recipe.task, read_facts(onnx).context_length),
        "model": exported.model,
        "variant": exported.variant,
        "bento_id": bento_id,
        VARIANTS: "yes",
    }
    order = BuildOrder(
        model=exported.model,
        version=name or exported.version,
        labels=labels,
        onnx=str(onnx),
        scratch=str(workdir),
        source=str(workdir / "source"),
        packages=tuple(f"{name}=={installed_version(name)}" for name in REQUIREMENTS),
    )
    _write_source(workdir / "source", exported, recipe, Path(order.onnx), order.version)
    _remove_from_store(bentoml_home, order, ("models", "bentos"))
    _build(order, bentoml_home, workdir)
    archive = workdir / f"{order.model}-{order.version}.tar.gz"
    _pack(_store_path(bentoml_home, "bentos", order), archive)
    key = f"{prefix}{archive.name}"
    bucket.upload(archive, key)
    _clear(workdir, archive)
    return Bento(
        bento_id=bento_id,
        tag=order.tag,
        model_tag=order.tag,
        model=exported.model,
        version=exported.version,
        export_id=exported.export_id,
        labels=labels,
        archive_key=key,
    )


def restore(bento: Bento, onnx_prefix: str, address: BucketAddress, bentoml_home: Path, workdir: Path) -> None:
    """See to it that the store in `bentoml_home` has a packaged bento and its model; from the bucket if it has not."""
    bucket = Bucket(address)
    order = BuildOrder(
        model=bento.model,
        version=bento.tag.partition(":")[2],
        labels=bento.labels,
        onnx=str(workdir / "onnx"),
        scratch=str(workdir),
        source=None,
        packages=(),
    )
    if not (_store_path(bentoml_home, "models", order) / "model.yaml").exists():
        _fetched(bucket, onnx_prefix, workdir)
        _remove_from_store(bentoml_home, order, ("models",))
        _build(order, bentoml_home, workdir)
    target = _store_path(bentoml_home, "bentos", order)
    if not (target / "bento.yaml").exists():
        archive = workdir / "bento.tar.gz"
        bucket.download(bento.archive_key, archive)
        _remove_from_store(bentoml_home, order, ("bentos",))
        unpacked = workdir / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, target)
        _clear(workdir, archive)


def _fetched(bucket: Bucket, prefix: str, workdir: Path) -> Path:
    folder = workdir / "onnx"
    shutil.rmtree(folder, ignore_errors=True)
    bucket.download_folder(prefix, folder)
    if not (folder / "model.onnx").exists():
        raise TidemillError(
            f"s3://{bucket.name}/{prefix}",
            expected="an exported model",
            got="no model.onnx",
            remedy="run the flow again; the export stage writes it",
        )
    return folder


def _write_source(folder: Path, exported: ExportedModel, recipe: Recipe, onnx: Path, version: str) -> None:
    facts = read_facts(onnx)
    if (facts.model, facts.version) != (exported.model, exported.version):
        raise TidemillError(
            f"{exported.onnx_prefix}tidemill.json",
            expected=f"{exported.model} {exported.version}",
            got=f"{facts.model} {facts.version}",
            remedy="delete that folder of the bucket and run the flow again",
        )
    shutil.rmtree(folder, ignore_errors=True)
    copy_source(source_closure(*_SERVED_MODULES), folder)
    config = ServingConfig(
        model=exported.model,
        version=version,
        log_share=recipe.monitoring.log_share,
        created=int((onnx / "tidemill.json").stat().st_mtime),
    )
    (folder / FILE_NAME).write_text(config.model_dump_json(indent=1))


def _build(order: BuildOrder, bentoml_home: Path, workdir: Path) -> None:
    """Run `build_bento` with a BentoML home of its own choosing."""
    path = workdir / "order.json"
    path.write_text(order.model_dump_json(indent=1))
    temporary = workdir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BENTOML_CONFIG")}
    environment = {
        **inherited,
        "BENTOML_HOME": str(bentoml_home),
        "BENTOML_DO_NOT_TRACK": "True",
        # The store's own disk: BentoML assembles models and bentos in temporary folders first.
        "TMPDIR": str(temporary),
    }
    bentoml_home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "bentos.build_bento", str(path)],
        cwd=order.source or Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = [("models", "model.yaml")] + ([("bentos", "bento.yaml")] if order.source else [])
    missing = [kind for kind, file in wanted if not (_store_path(bentoml_home, kind, order) / file).exists()]
    if done.returncode != 0 or missing:
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        raise TidemillError(
            f"building the bento {order.tag} in {bentoml_home}",
            expected="exit status 0, and model and bento in the store",
            got=f"{done.returncode}: {' / '.join(lines[-_TOLD_LINES:]) or 'no output'}",
            remedy="check free disk and memory, then run the flow again",
        )


def _store_path(bentoml_home: Path, kind: str, order: BuildOrder) -> Path:
    return bentoml_home / kind / order.model / order.version


def _remove_from_store(bentoml_home: Path, order: BuildOrder, kinds: tuple[str, ...]) -> None:
    """By path, since BentoML's own `delete` refuses an item that is only half there."""
    for kind in kinds:
        shutil.rmtree(_store_path(bentoml_home, kind, order), ignore_errors=True)


def _pack(folder: Path, archive: Path) -> None:
    """A gzipped tar of a bento, without bytecode and, should there be any, without models."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        if "__pycache__" in parts or parts[:1] == ("models",):
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name, filter=kept)


def _clear(workdir: Path, archive: Path) -> None:
    """Leave no second copy of the weights behind."""
    archive.unlink(missing_ok=True)
    for name in ("onnx", "fitted", "source", "tmp"):
        shutil.rmtree(workdir / name, ignore_errors=True)
