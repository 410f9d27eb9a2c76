"""Nobody is kept out: what axe finds, and a keyboard alone."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import screenshot
from tests.e2e.test_page import QUESTION, answer, ask, opened

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = {"serious", "critical"}
pytestmark = pytest.mark.timeout(120)


def found_by_axe(page):
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(each["id"], [node["target"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS]


def show_conversation(page):
    ask(page, QUESTION)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="Times").click()
    expect(page.get_by_role("figure", name="Times")).to_contain_text("tokens/s")


def show_passage(page):
    ask(page, QUESTION)
    page.get_by_role("button", name="Source 1").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("nausea")
    expect(page.locator("mark").first).to_be_visible()


def show_collection(page):
    page.goto(page.url.split("#")[0] + "#/collection")
    page.get_by_label("Search the collection").fill("restless legs")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Ordered by")).to_be_visible()


def show_document(page):
    page.goto(page.url.split("#")[0] + "#/document/aripiprazole?chunk=2")
    expect(page.get_by_role("region", name="Passage")).to_be_in_viewport()


def show_question_before_deleting(page):
    show_collection(page)
    page.get_by_role("button", name="Delete Aripiprazole").click()
    expect(page.get_by_role("alertdialog")).to_be_visible()


def show_failure(page):
    page.goto(page.url.split("#")[0] + "#/session/there-is-none")
    expect(page.get_by_role("alert")).to_contain_text("no session")
    page.context.complaints[:] = [said for said in page.context.complaints if "404" not in said]


VIEWS = {
    "welcome": lambda page: expect(page.get_by_role("button", name="Send")).to_be_visible(),
    "conversation": show_conversation,
    "passage": show_passage,
    "collection": show_collection,
    "document": show_document,
    "deleting": show_question_before_deleting,
    "failure": show_failure,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing_serious(browsing, server, view, scheme, width):
    page = opened(browsing, server)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 740})
    VIEWS[view](page)
    screenshot(page, f"{view}-{scheme}-{width}")
    assert found_by_axe(page) == [], json.dumps(found_by_axe(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def unused(start_server, new_database, llm):
    """Lend a server that has the sample collection and no conversations of other tests."""
    return start_server(database_url=new_database(), llm_model="openai/fake", llm_api_base=llm.url)


def tab_to(page, role, name):
    """Go on with the tabulator until what has this name has the focus."""
    wanted = page.get_by_role(role, name=name, exact=True).first
    expect(wanted).to_be_attached()
    for _ in range(300):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"no way to {role} {name} by keyboard")


def test_a_keyboard_is_enough_for_questions_and_answers(browsing, unused):
    page = opened(browsing, unused)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    keys = page.keyboard
    expect(page.get_by_label("Message")).to_be_focused()
    keys.type("llm:slow by keyboard")
    keys.press("Shift+Enter")
    keys.type("in two lines")
    keys.press("Enter")
    expect(answer(page)).to_contain_text("w2")
    keys.press("Escape")
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    expect(page.get_by_label("Message")).to_be_focused()
    keys.type(QUESTION)
    keys.press("Enter")
    expect(answer(page)).to_contain_text("far end")
    expect(page.get_by_label("Message")).to_be_focused()

    tab_to(page, "button", "Source 1")
    keys.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("nausea")
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Source 1").first).to_be_focused()
    tab_to(page, "button", "Copy answer")
    keys.press("Enter")
    expect(page.get_by_text("Copied").first).to_be_visible()
    tab_to(page, "button", "Times")
    keys.press("Enter")
    expect(page.get_by_role("figure", name="Times")).to_be_visible()


def test_a_keyboard_is_enough_for_conversations(browsing, unused):
    page = opened(browsing, unused)
    keys = page.keyboard
    ask(page, QUESTION)
    expect(answer(page)).to_contain_text("far end")
    tab_to(page, "button", "Rename")
    keys.press("Enter")
    expect(page.get_by_label("Title")).to_be_focused()
    keys.press("ControlOrMeta+A")
    keys.type("named by keyboard")
    keys.press("Enter")
    expect(page.get_by_role("link", name="named by keyboard")).to_be_visible()
    tab_to(page, "button", "New")
    keys.press("Enter")
    expect(page.locator("article")).to_have_count(0)
    tab_to(page, "link", "named by keyboard")
    keys.press("Enter")
    expect(page.locator("article")).to_have_count(1)
    tab_to(page, "button", "Delete")
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_role("link", name="named by keyboard")).to_have_count(0)


def test_a_keyboard_is_enough_for_the_collection(browsing, unused):
    page = opened(browsing, unused)
    tab_to(page, "button", "Skip the conversations")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    keys = page.keyboard
    tab_to(page, "link", "Collection")
    keys.press("Enter")
    tab_to(page, "searchbox", "Search the collection")
    keys.type("lithium")
    keys.press("Enter")
    expect(page.get_by_text("Ordered by")).to_be_visible()
    tab_to(page, "link", "Lithium")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Lithium", level=1)).to_be_visible()


def test_screen_readers_hear_stages_and_the_whole_answer_but_no_tokens(browsing, llm_server):
    page = opened(browsing, llm_server)
    page.evaluate(
        """() => {
            window.heard = [];
            const region = document.querySelector("main > [aria-live=polite]");
            const note = () => window.heard.push(region.textContent);
            new MutationObserver(note).observe(region, {childList: true, characterData: true, subtree: true});
        }"""
    )
    ask(page, "llm:slow heard")
    expect(answer(page)).to_contain_text("w199", timeout=20_000)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    heard = [said for said in page.evaluate("window.heard") if said]
    assert heard[-2] == "Generating..."
    assert heard[-1].split() == answer(page).inner_text().split()
    assert len(heard) <= 6
