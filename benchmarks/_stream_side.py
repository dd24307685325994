"""`python -m benchmarks._stream_side FORMAT BYTES`: reads that much that is made on the way, prints what memory it took."""

from __future__ import annotations

import gc
import json
import sys

from beam_jobs.formats import extract
from lake.recipe import PrepareRules
from tests.documents import document
from tests.memory import peak_bytes, repeated, reset_peak

RULES = PrepareRules(max_object_bytes=100_000_000_000)


def main(format_: str, n_bytes: int) -> None:
    """Prints `{"added_bytes": …, "n_documents": …}`, the growth of this process over what it had after a small object."""
    texts = [document(number, n_sentences=12) for number in range(100)]
    if format_ == "jsonl":
        before, chunk = b"", "".join(json.dumps({"text": text}) + "\n" for text in texts)
    else:
        before, chunk = b"n,text\n", "".join(f'1,"{text}"\n' for text in texts)
    for asked in (len(chunk), n_bytes):
        gc.collect()
        start, n_documents = reset_peak(), 0
        for found in extract(f"a.{format_}", repeated(before, chunk.encode(), b"", asked), RULES):
            if found.reason is not None:
                raise RuntimeError(f"expected documents only, got {found.reason}: {found.detail}")
            n_documents += 1
    print(json.dumps({"added_bytes": peak_bytes() - start, "n_documents": n_documents}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
