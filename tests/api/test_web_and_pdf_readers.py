import io
import logging

import pytest
from pypdf import PdfReader, PdfWriter

from api.ingest.readers import Document
from tests.api.test_readers import only, reason

PAGE = """<!doctype html><html><head><title>A &amp; B</title><link rel=canonical href="https://e.org/a">
<style>p {}</style></head><body><header><a href=/>Site</a></header><nav>Home</nav>
<main><h1>Heading</h1><p>First <b>bold</b> and<br>broken <code>__init__</code> line.</p>
<p hidden>secret</p><p style="display: none">secret</p><span aria-hidden=true>secret</span><!-- secret -->
<script>secret()</script><h2>List</h2><ul><li>one<li>two <ul><li>inner</ul></ul>
<ol><li>first</li><li><p>second</p><p>more</p></li></ol>
<table><tr><th>Effect</th><th>Drug</th></tr><tr><td>Nausea</td><td>10|20</td></tr></table>
<pre>if x:
    y()</pre><div>Loose text<p># not a heading</p>1. not an item</div><dl><dt>Term</dt><dd>Meaning</dd></dl></main>
<footer>secret</footer></body></html>"""

MARKDOWN = """# Heading

First bold and broken `__init__` line.

## List

- one
- two
  - inner
1. first
2. second
  more

| Effect | Drug |
| --- | --- |
| Nausea | 10\\|20 |

```
if x:
    y()
```

Loose text

\\# not a heading

1\\. not an item

Term

- Meaning"""


class TestWebPages:
    def test_the_main_part_becomes_markdown_and_what_is_not_seen_is_dropped(self, put):
        path = put("a.html", PAGE)
        assert only(path) == Document(
            id=path.as_posix(), title="A & B", url="https://e.org/a", text=MARKDOWN, path=str(path)
        )

    def test_a_page_without_main_part_is_read_whole(self, put):
        assert only(put("a.htm", "<h1>T</h1>Text<nav>Home</nav><aside>Ad</aside> more")).text == "# T\n\nText more"

    def test_the_first_heading_is_the_title_of_a_page_without(self, put):
        assert only(put("a.html", "<p>Intro</p><h2>Head</h2><p>Text</p>")).title == "Head"

    @pytest.mark.parametrize(
        "data",
        [
            "<p>naïve €</p>".encode("utf-8-sig"),
            "<p>naïve €</p>".encode("utf-16"),
            "<p>naïve €</p>".encode(),
            "<p>naïve €</p>".encode("cp1252"),
            "<meta charset=iso-8859-1><p>naïve €</p>".encode("cp1252"),
            "<meta charset=utf-16><p>naïve €</p>".encode(),
            "<meta charset=nonsense><p>naïve €</p>".encode(),
            '<meta http-equiv=Content-Type content="text/html; charset=iso-8859-15"><p>naïve €</p>'.encode(
                "iso-8859-15"
            ),
        ],
    )
    def test_the_encoding_is_found_as_browsers_do(self, put, data):
        assert only(put("a.html", data)).text == "naïve €"

    def test_a_table_for_the_layout_is_no_table(self, put):
        assert only(put("a.html", f"<table><tr><td><p>Menu</p></td><td>{'x ' * 200}</td></table>")).text.startswith(
            "Menu\n\nx x"
        )

    def test_a_table_without_head_has_an_empty_one(self, put):
        text = only(put("a.html", "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>")).text
        assert text == "|  |  |\n| --- | --- |\n| a | b |\n| c |  |"

    def test_a_page_that_shows_nothing_is_reported(self, put):
        assert reason(put("a.html", "<title>App</title><div id=root></div><script>x</script>")) == "has no text"

    def test_a_page_nested_beyond_reason_is_reported(self, put):
        assert reason(put("a.html", "<div>" * 20_000 + "x")) == "is nested too deeply"


def pdf(*pages, title=None):
    """Return a PDF whose pages show the given lines."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for lines in pages:
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        kids.append(f"{len(objects) + 2} 0 R")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 << /Type /Font"
            f" /Subtype /Type1 /BaseFont /Helvetica >> >> >> /Contents {len(objects)} 0 R >>"
        )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    if title:
        objects.append(f"<< /Title ({title}) >>")
    info = f" /Info {len(objects)} 0 R" if title else ""
    body, places = "%PDF-1.4\n", []
    for n, source in enumerate(objects, 1):
        places.append(len(body))
        body += f"{n} 0 obj\n{source}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return (
        f"{body}{head}trailer << /Root 1 0 R /Size {len(objects) + 1}{info} >>\nstartxref\n{len(body)}\n%%EOF".encode()
    )


def encrypted(data, user_password):
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(user_password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


LINES = ["The heart beats too fast or too slow in this well-", "known illness. Symptoms include many things like"]


class TestPdf:
    def test_text_title_and_number_of_pages_are_read(self, put):
        path = put("a.pdf", pdf(["One."], ["Two."], title="The title"))
        assert only(path) == Document(
            id=path.as_posix(), title="The title", text="One.\n\nTwo.", metadata={"pages": 2}, path=str(path)
        )

    def test_the_file_name_is_the_title_of_a_pdf_without(self, put):
        assert only(put("My report.pdf", pdf(["One."]))).title == "My report"

    def test_printed_lines_become_paragraphs_again_over_pages_and_without_page_numbers(self, put):
        path = put("a.pdf", pdf(["Overview", *LINES, "3"], ["pain.", "Then a new one begins here."]))
        assert only(path).text.split("\n\n") == [
            "Overview",
            "The heart beats too fast or too slow in this wellknown illness. Symptoms include many things like pain.",
            "Then a new one begins here.",
        ]

    def test_a_password_is_reported_but_one_for_owners_only_does_no_harm(self, put):
        assert reason(put("a.pdf", encrypted(pdf(["One."]), "secret"))) == "is encrypted: it needs a password"
        assert only(put("b.pdf", encrypted(pdf(["One."]), ""))).text == "One."

    def test_pages_without_text_are_reported(self, put):
        assert reason(put("a.pdf", pdf([]))) == "has no text; its pages may be scanned images"

    @pytest.mark.parametrize("data", [b"no pdf", b"%PDF-1.4\n%%EOF", pdf(["One."])[:80], b"%PDF-1.4\n" + b"\0" * 500])
    def test_a_broken_file_is_reported_and_nothing_is_logged(self, put, data, caplog):
        with caplog.at_level(logging.DEBUG):
            assert reason(put("a.pdf", data)).startswith(("is not a PDF that can be read", "has no text"))
        assert not [record for record in caplog.records if record.name.startswith("pypdf")]
