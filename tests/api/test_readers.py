import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.ingest.readers import BadDocument, Document, find, read


def only(path, root=None):
    (item,) = read(path, root=root)
    return item


def reason(path):
    bad = only(path)
    assert isinstance(bad, BadDocument)
    return bad.reason


class TestMarkdown:
    def test_front_matter_gives_id_title_url_and_metadata(self, put):
        path = put(
            "a.md", "---\nid: x-1\ntitle: A  Title\nurl: https://e.org/a\ntags: [a, b]\n---\n\n# Head\n\nText.\n"
        )
        assert only(path) == Document(
            id="x-1",
            title="A Title",
            url="https://e.org/a",
            text="# Head\n\nText.",
            metadata={"tags": ["a", "b"]},
            path=str(path),
        )

    def test_without_front_matter_the_path_is_the_id_and_the_first_heading_the_title(self, put, tmp_path):
        path = put("deep/er/a.markdown", "\nIntro.\n\n## The *first* heading\n")
        item = only(path, tmp_path)
        assert (item.id, item.title, item.metadata) == ("deep/er/a.markdown", "The first heading", {})
        assert only(path).id == path.as_posix()

    def test_without_heading_the_file_name_is_the_title(self, put):
        assert only(put("Some notes.txt", "Just text.")).title == "Some notes"

    def test_what_yaml_makes_of_values_can_be_stored_as_json(self, put):
        source = (
            "a: 2024-05-06\nb: 2024-05-06 07:08:09\nc: !!set {x, y}\nd: .nan\n1: {null: yes}\ne: !!binary aGk=\nf: 1.5"
        )
        metadata = only(put("a.md", f"---\n{source}\n---\nText.")).metadata
        assert metadata == json.loads(json.dumps(metadata, allow_nan=False))
        assert metadata["a"] == "2024-05-06"
        assert metadata["b"] == "2024-05-06T07:08:09"
        assert sorted(metadata["c"]) == ["x", "y"]
        assert metadata["1"] == {"None": True}

    @pytest.mark.parametrize("name", ["2024-05-06", "42", "1.5"])
    def test_an_id_that_yaml_takes_for_a_number_or_a_date_is_its_text(self, put, name):
        assert only(put("a.md", f"---\nid: {name}\n---\nText.")).id == name

    def test_broken_front_matter_is_reported_with_its_line(self, put):
        path = put("a.md", "---\ntitle: a\nb: c: d\n---\nText.")
        assert only(path) == BadDocument(f"{path}:3", "has broken front matter: mapping values are not allowed here")

    @pytest.mark.parametrize("source", ["a: 2024-99-99", "a: !!python/object:os.system x", "[" * 5000])
    def test_front_matter_that_yaml_chokes_on_is_reported(self, put, source):
        assert reason(put("a.md", f"---\n{source}\n---\nText.")).startswith("has broken front matter: ")

    @pytest.mark.timeout(20)
    def test_a_few_aliases_cannot_stand_for_gigabytes(self, put):
        rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
        rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        assert reason(put("a.md", "---\n" + "\n".join(rows) + "\n---\nText.")) == "has more than 256 KB of metadata"
        assert "deep" in reason(put("b.md", "---\na: &a [*a]\n---\nText."))

    @pytest.mark.parametrize(
        "text", ["---\nProse between rules.\n---\n\nMore.", "---\nNo end.", "Text.\n\n---\na: b\n---"]
    )
    def test_rules_are_not_taken_for_front_matter(self, put, text):
        assert only(put("a.md", text)).text == text

    def test_line_ends_byte_order_mark_and_nul_are_normalised(self, put):
        assert only(put("a.md", b"\xef\xbb\xbf# A\r\n\r\nb\0c\rd\n\n")).text == "# A\n\nbc\nd"

    @pytest.mark.parametrize("suffix", ["md", "txt", "html", "pdf", "jsonl"])
    @pytest.mark.parametrize("content", ["", " \n"])
    def test_an_empty_file_is_reported(self, put, suffix, content):
        if suffix != "pdf" or not content:
            assert reason(put(f"a.{suffix}", content)) == "is empty"

    @pytest.mark.parametrize("suffix", ["md", "txt"])
    def test_another_encoding_is_reported_with_the_place(self, put, suffix):
        assert reason(put(f"a.{suffix}", "naïve".encode("latin-1"))) == "is not UTF-8: byte 0xef at offset 2"

    def test_front_matter_without_text_is_reported(self, put):
        assert reason(put("a.md", "---\nid: x\n---\n\n")) == "has no text"


class TestIds:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ('"a\\nb"', "has an id with control characters"),
            ("x" * 513, "has an id of 513 characters; 512 are allowed"),
            ("[a]", "has an id that is not text"),
            ("yes", "has an id that is not text"),
            ('" "', "has no id"),
        ],
    )
    def test_an_id_that_cannot_be_used_is_reported(self, put, source, expected):
        assert reason(put("a.md", f"---\nid: {source}\n---\nText.")) == expected

    def test_a_file_name_with_control_characters_is_no_id(self, put, tmp_path):
        put("a\nb.md", "Text.")
        assert reason(tmp_path / "a\nb.md") == "has an id with control characters"

    @pytest.mark.parametrize(
        "address", ["javascript:alert(1)", "doi:10.1/x", "https://e.org/a b", "file:///etc/passwd"]
    )
    def test_a_url_that_is_no_web_address_stays_in_the_metadata(self, put, address):
        item = only(put("a.md", f"---\nurl: {address}\n---\nText."))
        assert (item.url, item.metadata) == (None, {"url": address})


class TestJsonLines:
    def test_each_line_is_a_document(self, put):
        path = put(
            "c.jsonl",
            '{"_id": 7, "title": "T", "text": "One.", "metadata": {"url": "https://e.org", "a": 1}, "b": [null]}\n'
            '\n{"id": "x", "text": "# H\\n\\nTwo.", "url": "http://e.org/x"}',
        )
        assert list(read(path)) == [
            Document(
                id="7", title="T", text="One.", url="https://e.org", metadata={"a": 1, "b": [None]}, path=f"{path}:1"
            ),
            Document(id="x", title="H", text="# H\n\nTwo.", url="http://e.org/x", path=f"{path}:3"),
        ]

    @pytest.mark.parametrize("name", ["c.jsonl.gz", "C.NDJSON.GZ"])
    def test_compressed_lines_are_read_too(self, put, name):
        assert only(put(name, gzip.compress(b'{"_id": "1", "text": "One."}\n'))).title == "1"

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"{", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
            (b"[1]", "is not a JSON object"),
            (b'{"text": "a"}', "has no id"),
            (b'{"_id": "a"}', "has no text"),
            (b'{"_id": "a", "text": 5}', "has a text or a title that is not text"),
            (b'{"_id": "a", "text": "b", "n": NaN}', "is not JSON: NaN is no number"),
            (b'{"_id": "a", "text": "b", "n": 99999999999999999999}', "has a number in its metadata that is too large"),
            (b'{"_id": "a", "text": "\xff"}', "is not UTF-8: byte 0xff at offset 22"),
            (b"[" * 100_000, "is not JSON that can be read: nested too deeply, or a number too large"),
        ],
    )
    def test_a_bad_line_is_reported_with_its_number_and_the_rest_goes_on(self, put, line, expected):
        good = b'{"_id": "ok", "text": "fine"}'
        path = put("c.jsonl", b"\n".join([good, line, good]))
        items = list(read(path))
        assert items[1] == BadDocument(f"{path}:2", expected)
        assert [item.path for item in items if isinstance(item, Document)] == [f"{path}:1", f"{path}:3"]

    def test_lone_surrogates_and_nul_are_cleaned_everywhere(self, put):
        item = only(
            put("c.jsonl", r'{"_id": "a\u0000", "title": "\ud83d", "text": "\ud83d\ude42\u0000", "m\ud83d": "\ud83d"}')
        )
        assert (item.id, item.title, item.text, item.metadata) == ("a", "\ufffd", "🙂", {"m\ufffd": "\ufffd"})

    def test_a_line_with_only_a_title_has_it_for_text(self, put):
        assert only(put("c.jsonl", '{"_id": "a", "title": "T", "text": ""}')).text == "# T"

    def test_a_broken_archive_gives_what_is_before_the_break(self, put):
        whole = gzip.compress(
            "".join(f'{{"_id": "{n}", "text": "{os.urandom(500).hex()}"}}\n' for n in range(500)).encode()
        )
        path = put("c.jsonl.gz", whole[: len(whole) // 2])
        *good, bad = read(path)
        assert good
        assert bad == BadDocument(f"{path}:{len(good) + 1}", "is broken from here on: not gzip, or cut off")
        assert reason(put("d.jsonl.gz", b"plain text")) == "is broken from here on: not gzip, or cut off"

    def test_a_line_above_the_limit_is_passed_over(self, put, monkeypatch):
        monkeypatch.setattr("api.ingest.jsonlines.MAX_LINE_BYTES", 100)
        good = '{"_id": "ok", "text": "fine"}'
        path = put("c.jsonl", "\n".join([good, "x" * 1000, good, "x" * 100, good]))
        assert [type(item) for item in read(path)] == [Document, BadDocument, Document, BadDocument, Document]


class TestFind:
    def test_readable_files_are_found_in_order_and_hidden_and_other_ones_passed_over(self, put, tmp_path):
        for name in ["b.md", "a/z.HTML", "a/c.jsonl.gz", ".hidden.md", ".git/x.md", "a/image.png", "c.json", "a.txt"]:
            put(name, "x")
        found = list(find([tmp_path]))
        assert [str(path.relative_to(tmp_path)) for path, _ in found] == ["a/c.jsonl.gz", "a/z.HTML", "a.txt", "b.md"]
        assert {root for _, root in found} == {tmp_path}

    def test_what_is_named_itself_is_always_yielded_and_only_once(self, put, tmp_path):
        image, text, missing = put("i.png", "x"), put("t.txt", "x"), tmp_path / "missing.md"
        paths = [image, text, missing, tmp_path]
        assert list(find(paths)) == [(image, Path()), (text, Path()), (missing, Path())]

    def test_a_named_file_of_unknown_kind_a_missing_one_and_a_folder_are_reported(self, put, tmp_path):
        assert reason(put("i.png", "x")).startswith("is of an unsupported kind; supported are .md, ")
        assert reason(tmp_path / "missing.md") == "does not exist"
        assert "folder" in reason(tmp_path)

    def test_what_is_not_a_regular_file_is_never_opened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.md")
        assert list(find([tmp_path])) == []
        assert reason(tmp_path / "pipe.md") == "is not a regular file"

    def test_folders_that_lead_in_a_circle_end(self, put, tmp_path):
        put("a/x.md", "x")
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        assert len(list(find([tmp_path]))) == 1

    def test_a_file_that_cannot_be_read_is_reported(self, put, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        path = put("a.md", "x")
        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert reason(path) == "cannot be read: Permission denied"

    def test_a_file_above_the_limit_is_reported_unless_it_is_a_stream(self, put, monkeypatch):
        monkeypatch.setattr("api.ingest.readers.MAX_FILE_BYTES", 10)
        assert reason(put("a.md", "x" * 11)) == "is larger than 0 MB"
        assert only(put("a.jsonl", '{"_id": "a", "text": "long enough"}')).id == "a"


def test_large_parsers_are_only_imported_for_their_files():
    code = "import sys, api.ingest.readers; print([name for name in ('pypdf', 'bs4') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_file_named_by_itself_has_its_path_for_id(put, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [put("a/notes.txt", "One."), put("b/notes.txt", "Two.")]
    found = [only(path, root=root) for path, root in find(paths)]
    assert [document.id for document in found] == ["a/notes.txt", "b/notes.txt"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", "<title>T</title><main><table><tr><th></th><th></th></tr></table></main>"),
        ("b.html", "<![foo[ x ]]>"),
        ("c.md", "---\na: !!timestamp foo\n---\ntext"),
        ("d.md", "---\na: !!bool foo\n---\ntext"),
        ("e.md", "---\na: !!int ''\n---\ntext"),
    ],
)
def test_whatever_a_parser_raises_is_told_of_the_file(put, name, content):
    assert isinstance(only(put(name, content)), BadDocument)
