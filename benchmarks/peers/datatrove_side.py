"""datatrove's MinHash in its own environment: `python datatrove_side.py DOCUMENTS FOLDER`; prints JSON.

Its four stages with their defaults (14 buckets of 8 hashes over 5-grams, its English tokenizer), each by its local
executor with one task and one worker, as in its own example.
"""

import json
import resource
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(documents: Path, folder: Path) -> None:
    config, read = MinhashConfig(), JsonlReader(str(documents.parent), glob_pattern=documents.name)
    stages = (
        [read, MinhashDedupSignature(str(folder / "signatures"), config=config)],
        [MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)],
        [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config)],
        [read, MinhashDedupFilter(str(folder / "remove")), JsonlWriter(str(folder / "kept"), compression=None)],
    )
    tasks = (1, config.num_buckets, 1, 1)
    import_cpu_s, started = cpu_s(), time.monotonic()
    for number, (stage, n_tasks) in enumerate(zip(stages, tasks, strict=True)):
        LocalPipelineExecutor(
            stage, tasks=n_tasks, workers=1, logging_dir=str(folder / f"logs-{number}"), randomize_start_duration=0
        ).run()
    figures = {"cpu_s": cpu_s() - import_cpu_s, "wall_s": time.monotonic() - started, "import_cpu_s": import_cpu_s}
    n_kept = sum(len(path.read_bytes().splitlines()) for path in (folder / "kept").rglob("*.jsonl"))
    print(json.dumps({**figures, "n_kept": n_kept}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
