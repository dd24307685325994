"""From an exported model in the bucket to answers over HTTP: the real BentoML, the real store, the stock client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from bentos.package import package, restore
from bentos.serve import link_stores, replica_home, serve_command, serve_environment
from checks.window import read_log
from lake.bucket import Bucket, BucketAddress
from lake.recipe import Monitoring, Recipe
from lake.records import Bento
from lake.settings import Settings, load_settings
from tests.ports import free_ports
from tests.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.tiny_export import ONNX_PREFIX, exported_model, write_tiny_export

pytestmark = pytest.mark.integration

READY_WITHIN_S = 120.0
HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
RECIPE = Recipe(name="tiny", monitoring=Monitoring(log_share=1.0))
LABELS = {"version": "v1", "export_id": "export", "datasets": "dataset-1.dataset-2", "parent": "none"}


@dataclass
class Served:
    """A running replica."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def installation(nanio_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("serving") / "home",
        bucket="serving-test",
        s3_endpoint_url=nanio_url,
        s3_access_key_id=ACCESS_KEY_ID,
        s3_secret_access_key=SECRET_ACCESS_KEY,
        s3_region=REGION,
    )


@pytest.fixture(scope="module")
def bucket(installation: Settings) -> Bucket:
    made = Bucket(BucketAddress.of(installation))
    made.ensure(create=True)
    return made


@pytest.fixture(scope="module")
def bento(installation: Settings, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Bento:
    """Packaged twice, as after a crash between the build and the commit, with a half-written model in the way."""
    folder = write_tiny_export(tmp_path_factory.mktemp("export"))
    bucket.upload_folder(folder, ONNX_PREFIX)
    home = installation.home / "bentoml"
    (home / "models" / "tiny" / "v1").mkdir(parents=True)
    (home / "models" / "tiny" / "v1" / "model.onnx.data").write_bytes(b"half")
    for attempt in ("first", "second"):
        workdir = installation.home / "work" / attempt
        made = package(
            exported_model(folder), RECIPE, LABELS, bucket.address, home, workdir, "bento-1", "models/tiny/v1/bento/"
        )
    return made


@pytest.fixture(scope="module")
def served(installation: Settings, bento: Bento) -> Iterator[Served]:
    with serving(installation, bento) as running:
        yield running


@contextmanager
def serving(settings: Settings, bento: Bento, **environment: str) -> Iterator[Served]:
    """Serve a bento from the folder of its home, where nothing of the repository is; it has ended afterwards."""
    home, port = replica_home(settings, bento.model, bento.version), free_ports(1)[0]
    link_stores(settings.home / "bentoml", home)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PYTHONPATH"))}
    log = settings.home / f"replica-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            serve_command(bento.tag, port),
            env={**own, **serve_environment(settings, home), **environment},
            cwd=settings.home,
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        yield Served(url, process, log)
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for left in family:
            if left.is_running():
                left.kill()


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the replica did not become ready:\n{log.read_text()[-3000:]}")


def test_the_bento_carries_its_lineage_and_leaves_no_weights_behind(
    bento: Bento, bucket: Bucket, installation: Settings
) -> None:
    assert (bento.tag, bento.model_tag, bento.export_id) == ("tiny:v1", "tiny:v1", "export")
    assert LABELS.items() <= bento.labels.items()
    stored = (installation.home / "bentoml" / "bentos" / "tiny" / "v1" / "bento.yaml").read_text()
    assert "datasets: dataset-1.dataset-2" in stored
    (archive,) = bucket.list("models/tiny/v1/bento/")
    assert archive.key == bento.archive_key
    assert archive.size_bytes < 300_000
    assert {path.name for path in (installation.home / "work" / "second").iterdir()} == {"order.json"}


def test_nothing_in_the_store_is_pickled(bento: Bento, installation: Settings) -> None:
    names = {path.name for path in (installation.home / "bentoml").rglob("*") if path.is_file()}

    assert "model.onnx.data" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]


def test_the_stock_client_chats_completes_streams_and_lists(served: Served) -> None:
    client = served.client

    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=8, temperature=0)
    answer = raw.parse()
    assert raw.headers["x-tidemill-model"] == "tiny/v1"
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (8, "length")
    stream = client.chat.completions.create(
        model="tiny:v1",
        messages=HELLO,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    told = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert told == answer.choices[0].message.content
    assert chunks[-1].usage == answer.usage
    completion = client.completions.create(model="tiny", prompt="Hello", max_tokens=5, seed=3)
    assert (
        completion.choices[0].text
        == client.completions.create(model="tiny", prompt="Hello", max_tokens=5, seed=3).choices[0].text
    )
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "tidemill"


def test_the_stock_client_raises_its_own_exceptions(served: Served) -> None:
    client = served.client

    with pytest.raises(openai.BadRequestError, match="maximum context length is 512 tokens") as refused:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5_000)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.response.headers["x-tidemill-model"] == "tiny/v1"
    with pytest.raises(openai.BadRequestError, match="one answer"):
        client.chat.completions.create(model="tiny", messages=HELLO, n=2)
    with pytest.raises(openai.NotFoundError, match="'other' is not served here"):
        client.chat.completions.create(model="other", messages=HELLO)


def test_clients_at_once_get_what_each_gets_alone(served: Served) -> None:
    def ask(number: int) -> str | None:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [
            {"role": "user", "content": f"Question {number}"}
        ]
        answer = served.client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=40, temperature=0.8, seed=number
        )
        return answer.choices[0].message.content

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))

    assert together == alone
    assert len(set(alone)) == 8


def test_health_and_metrics_are_where_bentoml_has_them(served: Served) -> None:
    before = generated_tokens(served)
    served.client.completions.create(model="tiny", prompt="Hello", max_tokens=7)

    assert httpx.get(f"{served.url}/livez").status_code == 200
    assert generated_tokens(served) - before == 7
    page = httpx.get(f"{served.url}/metrics").text
    for name in ("tidemill_batch_size_bucket", "tidemill_first_token_seconds_sum", "tidemill_waiting_requests"):
        assert name in page
    assert 'endpoint="/v1/completions"' in page  # BentoML's own series


def generated_tokens(served: Served) -> float:
    page = httpx.get(f"{served.url}/metrics").text
    found = re.search(r"^tidemill_generated_tokens_total\{[^}]*\} (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def test_a_terminated_replica_ends_its_streams_and_its_log(
    installation: Settings, bento: Bento, bucket: Bucket
) -> None:
    """The log is written every hour here: what is found in it was written at the end."""
    statuses: list[int] = []
    with serving(installation, bento, TIDEMILL_LOG_FLUSH_S="3600") as replica:
        stream = replica.client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=400, temperature=0, stream=True
        )
        first = next(iter(stream))
        stopping = threading.Thread(target=lambda: statuses.append(replica.stop()))
        stopping.start()
        chunks = [first, *stream]
        stopping.join(60)

    assert statuses == [0]
    assert chunks[-1].choices[0].finish_reason == "length"
    # No other request of these tests is that long; the replica that they share writes its log in the meantime.
    (row,) = (row for row in read_log(bucket.address, "tiny", since=None) if row.n_response_tokens == 400)
    assert (row.prompt, row.status) == ("Hello", 200)
    assert row.response == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_a_restored_bento_serves_and_can_be_made_to_fail(
    installation: Settings, bento: Bento, bucket: Bucket, tmp_path: Path
) -> None:
    """On another machine there is only the bucket. The drill's failures look like any server's."""
    elsewhere = installation.model_copy(update={"home": tmp_path / "elsewhere"})
    store, workdir = elsewhere.home / "bentoml", elsewhere.home / "work"
    workdir.mkdir(parents=True)
    restore(bento, ONNX_PREFIX, bucket.address, store, workdir)
    files = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    restore(bento, ONNX_PREFIX, bucket.address, store, workdir)  # nothing to do the second time

    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == files
    with serving(elsewhere, bento, TIDEMILL_INJECT_ERROR_RATE="1") as replica:
        with pytest.raises(openai.InternalServerError, match="injected") as raised:
            replica.client.chat.completions.create(model="tiny", messages=HELLO)
        assert raised.value.response.headers["x-tidemill-model"] == "tiny/v1"
        assert replica.client.models.list().data
        assert "FAILS 100% OF ITS REQUESTS ON PURPOSE" in replica.log.read_text()
