import gzip
import json
import zlib

import pyarrow.parquet as pq
import pytest

from flows.demo import corpus


def test_docstrings_are_read_from_the_source_without_importing_it(tmp_path):
    long = "Say what it does. " * 20
    (tmp_path / "inner.py").write_text(
        f'raise SystemExit("imported")\n\nclass Mill:\n    """{long}"""\n\n    def grind(self):\n        """{long}"""\n'
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mill.py").write_text(f'"""{long}"""\n')
    assert [document.name for document in corpus.docstrings(tmp_path, "pkg")] == [
        "pkg.inner.Mill",
        "pkg.inner.Mill.grind",
    ]


def test_short_docstrings_are_no_documents(tmp_path):
    (tmp_path / "a.py").write_text('"""Short."""\n')
    assert list(corpus.docstrings(tmp_path, "a")) == []


def test_the_python_subject_has_every_format_and_two_broken_objects(tmp_path):
    files = corpus.write_subject("python", tmp_path)
    kinds = {"".join(path.suffixes) for path in files}
    assert kinds == {".jsonl.gz", ".txt", ".html"}
    with pytest.raises(EOFError):
        gzip.decompress((tmp_path / "stdlib-c-again.jsonl.gz").read_bytes())
    with pytest.raises(UnicodeDecodeError):
        (tmp_path / "string-methods-windows.txt").read_text(encoding="utf-8")
    # What is readable of the broken upload is in the whole one too: natural duplicates.
    whole = set(gzip.decompress((tmp_path / "stdlib-c.jsonl.gz").read_bytes()).splitlines())
    part = zlib.decompressobj(wbits=31).decompress((tmp_path / "stdlib-c-again.jsonl.gz").read_bytes())
    lines = part.splitlines()[:-1]
    assert len(lines) > 100 and whole.issuperset(lines)


def test_all_subjects_together_are_enough_text(tmp_path):
    n_documents = n_bytes = 0
    for subject in ("python", "science", "cloud"):
        for path in corpus.write_subject(subject, tmp_path / subject):
            if path.name.endswith(".jsonl.gz") and "again" not in path.name:
                lines = gzip.decompress(path.read_bytes()).splitlines()
                texts = [json.loads(line)["text"] for line in lines]
            elif path.suffix == ".parquet":
                texts = pq.read_table(path)["text"].to_pylist()
            else:
                texts = [path.read_text(errors="replace")]
            n_documents += len(texts)
            n_bytes += sum(len(text.encode()) for text in texts)
    assert n_documents >= 2_500 and n_bytes >= 4_000_000


def test_questions_are_about_different_documents_of_the_subject():
    asked = corpus.questions("cloud", 40)
    assert len(set(asked)) == 40
    assert all(len(question) > 30 for question in asked)


def test_unknown_subject_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'cooking', expected one of python, science, cloud"):
        corpus.write_subject("cooking", tmp_path)
