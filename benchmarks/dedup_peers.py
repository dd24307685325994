"""Documents a second beside datatrove's MinHash and text-dedup's SimHash: the same documents, one machine, one run.

They deduplicate and do nothing else: read a JSONL file, drop, write. So does what is compared with them; our whole
job, which cleans, redacts, tells languages and writes tables besides, is told next to it. One process each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks._documentation import documents
from benchmarks._environment import environment
from benchmarks._peers import Ran, ran
from benchmarks._prepare_side import ROOT, Measured, dropped, measured
from benchmarks.report import Figure, at_least, told

N_BYTES = 150_000_000
PEERS = {"datatrove": "datatrove 0.10.1 MinHash", "text_dedup": "text-dedup 0.4.0 SimHash"}


def run() -> list[Figure]:
    with TemporaryDirectory(prefix="tidemill-bench-") as name:
        file = Path(name) / "documents" / "documents.jsonl"
        file.parent.mkdir()
        with file.open("w") as opened:
            n = sum(bool(opened.write(json.dumps(each._asdict()) + "\n")) for each in documents(N_BYTES))
        print(f"{n} documents; our deduplication alone …", flush=True)
        ours = _ours(file, Path(name) / "ours")
        peers = {}
        for peer in PEERS:
            print(f"{peer} …", flush=True)
            peers[peer] = ran(peer, file, Path(name) / peer)
    with dropped(N_BYTES) as bucket:
        job = measured("job", bucket)
    return _figures(n, ours, peers, job)


def _figures(n: int, ours: Ran, peers: dict[str, Ran], job: Measured) -> list[Figure]:
    what = f"{n} documents, {N_BYTES / 1e6:.0f} MB; CPU seconds of all processes, without imports"
    figures = [
        at_least(f"documents/s over {PEERS[name]}", each.cpu_s / ours.cpu_s, 5, "×", f"deduplication alone; {what}")
        for name, each in peers.items()
    ]
    figures += [
        told(f"whole job over {PEERS[name]}", each.cpu_s / job.cpu_s, "×", "documents a CPU second; theirs drops only")
        for name, each in peers.items()
    ]
    figures += [
        told("ours, deduplication alone", n / ours.cpu_s, "1/s", _told(ours, n)),
        told("ours, whole job", n / job.cpu_s, "1/s", f"a CPU second; {n / job.wall_s:.0f}/s by wall"),
    ]
    return figures + [told(PEERS[name], n / each.cpu_s, "1/s", _told(each, n)) for name, each in peers.items()]


def _told(each: Ran, n: int) -> str:
    return f"a CPU second; {n / each.wall_s:.0f}/s by wall; keeps {each.n_kept}"


def _ours(file: Path, folder: Path) -> Ran:
    command = [sys.executable, "-m", "benchmarks._dedup_alone_side", str(file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"our deduplication: {done.stderr[-2_000:]}")
    return Ran(**json.loads(done.stdout.splitlines()[-1]))
