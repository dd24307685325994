"""Documents with a layout: Word, PDF, books, archives of the web, pages and XML."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

import pytest
from docx import Document
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from beam_jobs.formats import Extracted
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.documents import document
from tests.extraction import SENTENCE, documents, letters, page, texts
from tests.fuzz.samples import docx, epub, pdf, warc, zipped

ONE, TWO = document(1, n_sentences=3), document(2, n_sentences=3)
SMALL = PrepareRules(formats=Formats(max_page_bytes=1_000, max_file_bytes=20_000, max_pages=2))


def response(body: bytes, status: str = "200 OK", kind: str = "response", **headers: str) -> bytes:
    """A record with the HTTP headers when it is a response, else with a plain text."""
    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=False)
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    http = {"http_headers": StatusAndHeaders(status, named, protocol="HTTP/1.1")}
    told = http if kind == "response" else {"warc_content_type": "text/plain"}
    writer.write_record(writer.create_warc_record("http://example.com/", kind, payload=io.BytesIO(body), **told))
    return sink.getvalue()


def replaced(archive: bytes, changes: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return zipped({name: opened.read(name) for name in opened.namelist()} | changes)


def test_a_word_document_in_its_order() -> None:
    opened, sink = Document(), io.BytesIO()
    opened.add_heading("A title")
    opened.add_paragraph("Before the table.")
    grid = opened.add_table(rows=2, cols=2)
    for number, cell in enumerate(cell for row in grid.rows for cell in row.cells):
        cell.text = f"cell {number}"
    grid.rows[1].cells[1].add_table(1, 1).cell(0, 0).text = "inner"
    opened.add_paragraph("After it.")
    opened.save(sink)
    for key in ("a.docx", "a.zip", "a"):
        (found,) = documents(key, sink.getvalue())
        assert found == Extracted(
            "object", "A title\n\nBefore the table.\n\ncell 0\tcell 1\ncell 2\tcell 3 inner\n\nAfter it.\n\n"
        )


@pytest.mark.parametrize("span", [10**6, 10**18])
def test_a_cell_that_says_it_spans_millions_of_columns(span: int) -> None:
    with zipfile.ZipFile(io.BytesIO(docx(["text"]))) as opened:
        body = opened.read("word/document.xml")
    assert b"<w:tc><w:tcPr>" in body
    wide = body.replace(b"<w:tc><w:tcPr>", b'<w:tc><w:tcPr><w:gridSpan w:val="%d"/>' % span)
    (found,) = documents("a.docx", replaced(docx(["text"]), {"word/document.xml": wide}))
    assert "cell 0\tcell 1\ncell 2" in found.text


def test_a_word_document_that_unpacks_to_too_much() -> None:
    assert letters(documents("a.docx", docx([ONE]), SMALL)) == [("object", "too_large")]
    packed = replaced(docx([ONE]), {"word/media/image.png": bytes(5_000_000)})
    assert letters(documents("a.docx", packed)) == [("object", "zip_bomb")]


@pytest.mark.parametrize("body", [b"", b"<a>", b"no xml", b"<a/>"])
def test_a_broken_word_document(body: bytes) -> None:
    ((position, reason),) = letters(documents("a.docx", replaced(docx([ONE]), {"word/document.xml": body})))
    assert (position, reason in ("bad_docx", "no_text", "unreadable")) == ("object", True)


def test_a_pdf_page_by_page() -> None:
    (found,) = documents("a.pdf", pdf([ONE, TWO]))
    assert found.position == "object"
    assert " ".join(found.text.split()).replace(" ", "") == (ONE + TWO).replace(" ", "")


@pytest.mark.parametrize("key", ["a.txt", "a", "a.jsonl", "a.html"])
def test_a_pdf_by_another_name(key: str) -> None:
    assert texts(documents(key, pdf([ONE]))) == texts(documents("a.pdf", pdf([ONE])))


def test_a_long_pdf_is_split() -> None:
    found = documents("a.pdf", pdf([ONE, TWO]), PrepareRules(max_characters=200, min_characters=1))
    assert [each.position for each in found] == [f"part:{n}" for n in range(1, len(found) + 1)]
    assert len(found) > 2


def test_a_word_cut_at_the_end_of_a_line_is_put_together() -> None:
    drawn = b"BT /F1 11 Tf 40 780 Td 13 TL (an encyclo-) Tj T* (paedia of trades) Tj T* (and more) Tj ET"
    original = pdf(["x"])
    start, end = original.index(b"stream\n") + 7, original.index(b"\nendstream")
    (found,) = documents("a.pdf", original[:start] + zlib.compress(drawn) + original[end:])
    assert found.text.split() == ["an", "encyclopaedia", "of", "trades", "and", "more"]


def test_a_pdf_of_pictures() -> None:
    assert letters(documents("a.pdf", pdf(["", ""]))) == [("object", "no_text")]


def test_a_pdf_with_too_many_pages() -> None:
    assert letters(documents("a.pdf", pdf(["x"] * 3), SMALL)) == [("object", "too_large")]


def test_a_page_with_too_much_on_it() -> None:
    found = documents("a.pdf", pdf([document(1, 30), "short"]), SMALL)
    assert texts(found) == ["short\n"]
    assert letters(found) == [("page:1", "too_large")]


@pytest.mark.parametrize("content", [b"%PDF-1.7\n", b"%PDF-1.7\ngarbage" * 100, pdf([ONE])[:200]])
def test_a_broken_pdf(content: bytes) -> None:
    assert letters(documents("a.pdf", content)) == [("object", "bad_pdf")]


def test_a_locked_pdf() -> None:
    """Encrypted by a key that nobody has (PDF 1.7, 7.6.3: the dictionary of the standard handler)."""
    locked = b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >> "
    content = pdf([ONE]).replace(b"trailer << ", b"trailer << /ID [<41><41>] " + locked)
    assert letters(documents("a.pdf", content)) == [("object", "encrypted")]


def test_a_book_in_reading_order() -> None:
    assert documents("a.epub", epub(["first &amp; foremost", "second<br/>line", "third"])) == [
        Extracted("chapter:1", "Chapter 0\n\nfirst & foremost"),
        Extracted("chapter:2", "Chapter 1\n\nsecond\n\nline"),
        Extracted("chapter:3", "Chapter 2\n\nthird"),
    ]


def test_a_book_with_a_chapter_missing_and_one_too_large() -> None:
    book = replaced(epub(["one", "two", "three"]), {"OPS/ch 1.xhtml": b"<html>" + b"<p>x</p>" * 1_000 + b"</html>"})
    with zipfile.ZipFile(io.BytesIO(book)) as opened:
        kept = {name: opened.read(name) for name in opened.namelist() if name != "OPS/ch 2.xhtml"}
    found = documents("a.epub", zipped(kept), SMALL)
    assert len(texts(found)) == 1
    assert letters(found) == [("chapter:2", "too_large"), ("chapter:3", "bad_epub")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("META-INF/container.xml", b"", "bad_epub"),
        ("META-INF/container.xml", b"<a/>", "bad_epub"),
        ("OPS/book.opf", b"<a/>", "no_text"),
        ("META-INF/encryption.xml", b"<a/>", "encrypted"),
    ],
)
def test_a_broken_book(name: str, content: bytes, reason: str) -> None:
    assert letters(documents("a.epub", replaced(epub(["one"]), {name: content}))) == [("object", reason)]


def test_entities_in_a_book_and_in_a_word_document_open_nothing() -> None:
    evil = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    book = replaced(epub(["one"]), {"OPS/ch 0.xhtml": evil + b"<html><body>before &x; after</body></html>"})
    assert "root:" not in "".join(texts(documents("a.epub", book)))
    with zipfile.ZipFile(io.BytesIO(docx(["text"]))) as opened:
        body = opened.read("word/document.xml").split(b"?>", 1)[1].replace(b"text", b"text &x;")
    assert "root:" not in "".join(
        texts(documents("a.docx", replaced(docx(["text"]), {"word/document.xml": evil + body})))
    )


def test_an_archive_of_the_web() -> None:
    for packed in (False, True):
        found = documents("a.warc", warc([ONE, TWO, "x"], packed=packed))
        assert [each.position for each in found] == ["record:1", "record:2", "record:3"]
        assert ONE in found[0].text
        assert TWO in found[1].text  # its body is gzip


def test_what_a_response_says_of_itself() -> None:
    plain = response(b"a plain text", Content_Type="text/plain")
    latin = response((SENTENCE * 3).encode("latin-1"), Content_Type='text/plain; charset="iso-8859-1"')
    gone = response(b"not here", status="404 Not Found", Content_Type="text/plain")
    picture = response(b"\x89PNG", Content_Type="image/png")
    request = response(b"GET /", kind="metadata")
    converted = response(b"already text", kind="conversion")
    found = documents("a.warc", plain + request + latin + gone + picture + converted)
    assert texts(found) == ["a plain text", SENTENCE * 3, "already text"]
    assert letters(found) == [("record:4", "http_status"), ("record:5", "unsupported_format")]


def test_a_response_that_unpacks_to_too_much() -> None:
    bomb = response(gzip.compress(b"x" * 100_000), Content_Type="text/plain", Content_Encoding="gzip")
    found = documents("a.warc", bomb + response(b"fine", Content_Type="text/plain"), SMALL)
    assert texts(found) == ["fine"]
    assert letters(found) == [("record:1", "too_large")]


def test_a_cut_off_archive_of_the_web_keeps_what_came_before() -> None:
    content = warc([ONE, TWO], packed=True)
    found = documents("a.warc.gz", content[:-300])
    assert ONE in found[0].text
    assert [reason for _, reason in letters(found)] == ["truncated_gzip"]


def test_what_follows_a_record_of_wrong_length_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    content = response(b"a plain text", Content_Type="text/plain")
    found = documents("a.warc", content.replace(b"Content-Length: 57", b"Content-Length: 47") + content)
    assert len(found) == 2
    assert capsys.readouterr() == ("", "")


def test_a_response_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    content = response(b"a plain text", Content_Type="text/plain")
    found = documents("a.warc", content + content.replace(b"WARC-Target-URI", b"X-Target-URI"))
    assert texts(found) == ["a plain text"]
    assert letters(found) == [("record:2", "bad_warc")]
    spaced = documents("a.warc", content.replace(b"http://example.com/", b"http://example.com/of J Doe"))
    assert texts(spaced) == ["a plain text"]
    assert not caplog.records


def test_a_header_without_end() -> None:
    found = documents("a.warc", b"WARC/1.0\r\nX: " + b"y" * 5_000_000)
    assert letters(found) == [("object", "bad_warc")]


@pytest.mark.parametrize("key", ["a.html", "a.txt", "a.md", "a", "a.json"])
def test_a_page_by_its_content(key: str) -> None:
    (found,) = documents(key, b"\n<!-- made by hand -->\n<!DOCTYPE html>" + page(SENTENCE * 3).encode())
    assert found.text.startswith("Der Müller")


def test_markdown_that_begins_with_a_tag_is_markdown() -> None:
    content = '<p align="center">\n\n# Title\n\nmore'
    assert texts(documents("a.md", content.encode())) == [content]


def test_a_page_of_very_many_elements_gives_all_its_text() -> None:
    items = "".join(f"<p class=comment>remark {n}</p><script>x()</script>" for n in range(4_000))
    found = documents("a.html", f"<html><body><nav>home</nav>{items}".encode(), PrepareRules(max_characters=10**6))
    assert texts(found) == ["home\n\n" + "\n\n".join(f"remark {n}" for n in range(4_000))]


def test_a_page_whose_encoding_was_seen_wrongly_from_its_beginning() -> None:
    body = ("Les élèves français étudient à l’école. " * 2_000).encode("cp1252") + b"\x90"
    assert [reason for _, reason in letters(documents("a.html", b"<html><body><p>" + body))] == ["bad_encoding"]


def test_xml_with_a_record_element() -> None:
    content = (
        '<?xml version="1.0" encoding="iso-8859-1"?><feed xmlns="urn:x"><title>F</title>'
        '<page id="1"><text>caf\xe9 <b>au</b> lait</text></page><page id="2"><body>x</body></page></feed>'
    ).encode("latin-1")
    found = documents("a.xml", content, PrepareRules(formats=Formats(xml_record="page")))
    assert found[0] == Extracted("row:1", "café au lait", "1")
    assert letters(found) == [("row:2", "no_text_field")]


def test_an_xml_record_that_is_too_large() -> None:
    rules = PrepareRules(max_record_bytes=1_000, formats=Formats(xml_record="p"))
    content = b"<?xml version='1.0'?><r><p><text>one</text></p><p><text>" + b"x" * 50_000 + b"</text></p></r>"
    found = documents("a.xml", content, rules)
    assert texts(found) == ["one"]
    assert letters(found) == [("row:2", "record_too_large")]


def test_xml_whole() -> None:
    content = b"<?xml version='1.0'?><a><t>Title</t><p>This is <b>bold</b>, &amp; more.</p><p>End</p></a>"
    assert documents("a.xml", content) == [Extracted("object", "Title\nThis is bold, & more.\nEnd\n")]
    found = documents("a.txt", content.replace(b"</a>", b"<open>"))
    assert letters(found) == [("object", "bad_xml")]


def _nested_entities(n: int) -> str:
    return "".join(f'<!ENTITY e{i} "{(f"&e{i - 1};" if i else "lol") * 10}">' for i in range(n))


@pytest.mark.parametrize("key", ["a.xml", "a.txt"])
def test_a_billion_laughs(key: str) -> None:
    content = f"<?xml version='1.0'?><!DOCTYPE r [{_nested_entities(9)}]><r>&e8;</r>".encode()
    found = documents(key, content)
    assert letters(found)[-1:] == [("object", "bad_xml")]
    assert sum(map(len, texts(found))) < 20_000_000


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "http://127.0.0.1:9/x"])
def test_external_entities_are_not_opened(uri: str) -> None:
    content = f"<?xml version='1.0'?><!DOCTYPE r [<!ENTITY x SYSTEM '{uri}'>]><r>before &x; after</r>".encode()
    (found,) = documents("a.xml", content)
    assert "root:" not in found.text + found.detail


def test_a_pickle_is_unsupported_under_every_name() -> None:
    for key in ("a.pkl", "a.txt", "a.jsonl", "a.csv", "a", "a.xml"):
        assert letters(documents(key, b"\x80\x04\x95\x10\x00\x00\x00.")) == [("object", "unsupported_format")]
