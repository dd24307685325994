"""text-dedup's SimHash in its own environment: `python text_dedup_side.py DOCUMENTS FOLDER`; prints JSON.

Its command with its defaults (64 bits of character 3-grams, 3 bits of difference), one process, a local file.
"""

import json
import resource
import sys
import time
from pathlib import Path

from datasets import load_from_disk
from text_dedup import simhash


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(documents: Path, folder: Path) -> None:
    arguments = {
        "--path": "json",
        "--data_files": str(documents),
        "--split": "train",
        "--cache_dir": str(folder / "cache"),
        "--output": str(folder / "kept"),
        "--column": "text",
        "--batch_size": "10000",
        "--num_proc": "1",
    }
    import_cpu_s, started = cpu_s(), time.monotonic()
    simhash.main([word for pair in arguments.items() for word in pair], standalone_mode=False)
    figures = {"cpu_s": cpu_s() - import_cpu_s, "wall_s": time.monotonic() - started, "import_cpu_s": import_cpu_s}
    print(json.dumps({**figures, "n_kept": len(load_from_disk(str(folder / "kept")))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
