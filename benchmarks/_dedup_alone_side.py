"""Our deduplication alone, as the peers' sides run theirs: `python -m benchmarks._dedup_alone_side DOCUMENTS FOLDER`.

Reads the JSONL file, writes what is kept as another, prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks._dedup_sides import kept
from lake.recipe import PrepareRules


def main(documents: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    kept(["one text", "another"], PrepareRules())  # imports what else there is to import
    import_cpu_s, started = time.process_time(), time.monotonic()
    with documents.open() as file:
        records = [json.loads(line) for line in file]
    places = kept([record["text"] for record in records], PrepareRules())
    with (folder / "kept.jsonl").open("w") as file:
        file.writelines(json.dumps(records[place]) + "\n" for place in places)
    cpu_s, wall_s = time.process_time() - import_cpu_s, time.monotonic() - started
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "import_cpu_s": import_cpu_s, "n_kept": len(places)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
