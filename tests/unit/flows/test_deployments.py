import importlib

import pytest
import yaml
from prefect.flows import Flow

from flows import pipeline
from flows.deployments import PREFECT_FILE
from flows.processes import workers

DEPLOYMENTS = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_entrypoint_is_a_flow(deployment):
    path, _, name = deployment["entrypoint"].partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert isinstance(getattr(module, name), Flow)
    assert deployment["description"]


def test_every_flow_is_deployed():
    deployed = {deployment["entrypoint"].partition(":")[2] for deployment in DEPLOYMENTS}
    defined = {name for name, value in vars(pipeline).items() if isinstance(value, Flow)}
    assert deployed == defined


def test_every_pool_has_a_worker():
    pools = {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    assert {f"worker-{pool}" for pool in pools} <= {process.name for process in workers()}


def test_reconciliation_sweep_and_drift_are_scheduled():
    scheduled = {deployment["name"] for deployment in DEPLOYMENTS if deployment.get("schedules")}
    assert scheduled == {"reconcile", "sweep", "watch-drift"}
