"""The collection on the page: files added, documents read, found with every score, and deleted."""

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import screenshot
from tests.e2e.test_page import answer, ask, opened

ZOLPERIDOL = b"# Zolperidol\n\nZolperidol is a medicine that was made up. It turns the ears of rabbits blue.\n"
DROP = """(zone, [name, content]) => {
    const files = new DataTransfer();
    files.items.add(new File([content], name, {type: "text/markdown"}));
    zone.dispatchEvent(new DragEvent("dragover", {dataTransfer: files, bubbles: true, cancelable: true}));
    zone.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
}"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def empty(start_server, new_database):
    """Lend a server with an empty collection."""
    return start_server(database_url=new_database(), sample="false")


def add(page, *files):
    chosen = [{"name": name, "mimeType": "text/plain", "buffer": content} for name, content in files]
    page.locator("input[type=file]").set_input_files(chosen)


def test_files_are_added_read_found_cited_and_deleted(browsing, empty):
    page = opened(browsing, empty, "/#/collection")
    expect(page.get_by_role("heading", name="0 documents")).to_be_visible()
    lines = b"".join(b'{"_id": "n%d", "text": "Note %d on the weather of the moon."}\n' % (n, n) for n in range(60))
    add(page, ("zolperidol.md", ZOLPERIDOL), ("notes.jsonl", lines), ("bad.txt", b"\xff\xfe\x00"))
    expect(page.get_by_role("progressbar")).to_be_visible()
    screenshot(page, "uploading")
    uploads = page.get_by_role("region", name="Upload")
    expect(uploads).to_contain_text("61 added, 1 failed", timeout=30_000)
    expect(uploads).to_contain_text("bad.txt is not UTF-8")
    expect(page.get_by_role("heading", name="61 documents")).to_be_visible()
    screenshot(page, "uploaded")

    page.get_by_label("Search the collection").fill("blue rabbits")
    page.get_by_role("button", name="Search").click()
    best = page.locator(".found tbody tr").first
    expect(best).to_contain_text("Zolperidol")
    expect(page.locator(".found th")).to_have_text(["Passage", "Meaning", "Words", "Fused"])
    best.get_by_role("link", name="Zolperidol").click()
    expect(page.get_by_role("region", name="Passage")).to_contain_text("ears of rabbits")
    page.go_back()
    expect(best).to_contain_text("Zolperidol")
    expect(uploads).to_contain_text("61 added, 1 failed")

    page.get_by_role("button", name="New").click()
    page.get_by_label("Message").fill("a question that is thought over")
    page.go_back()
    page.go_forward()
    expect(page.get_by_label("Message")).to_have_value("a question that is thought over")
    ask(page, "What does zolperidol do to the ears of rabbits?")
    expect(answer(page)).to_contain_text("blue")
    page.get_by_role("link", name="Collection").click()
    page.get_by_role("button", name="Delete Zolperidol").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="60 documents")).to_be_visible()
    page.get_by_label("Search the collection").fill("zolperidol")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Ordered by")).to_be_visible()
    expect(page.locator(".found")).not_to_contain_text("Zolperidol")
    page.get_by_role("link", name="Collection").click()
    expect(page.locator(".found")).to_have_count(0)
    page.get_by_label("Search the collection").fill("weather")
    expect(page.get_by_role("button", name="Search")).to_be_enabled()


def test_a_file_is_dropped_on_the_page_and_added_once(browsing, empty):
    page = opened(browsing, empty, "/#/collection")
    uploads = page.get_by_role("region", name="Upload")
    for told in ("1 added", "1 unchanged"):
        page.locator(".drop").evaluate(DROP, ["dropped.md", "# Dropped\n\nA note that was dropped."])
        expect(uploads.get_by_role("listitem").first).to_contain_text(told)
    expect(page.get_by_role("link", name="Dropped")).to_have_count(1)


def test_an_upload_that_is_refused_says_why(browsing, empty):
    page = opened(browsing, empty, "/#/collection")
    page.route("**/documents", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    add(page, ("lost.md", b"# Lost"))
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    browsing.complaints[:] = [said for said in browsing.complaints if "ERR_FAILED" not in said]


def test_a_document_of_everybody_is_not_deleted_by_a_key(browsing, start_server, sample_database, server):
    locked = start_server(database_url=sample_database, api_keys="deleting:a-key-for-deleting")
    page = opened(browsing, locked, "/#/collection")
    page.get_by_role("textbox", name="Key").fill("a-key-for-deleting")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Delete Aripiprazole").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text("everybody's")
    expect(page.get_by_role("link", name="Aripiprazole")).to_be_visible()
    browsing.complaints[:] = [said for said in browsing.complaints if not any(n in said for n in ("401", "403"))]
