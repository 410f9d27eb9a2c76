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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing_serious(browsing, llm_server, scheme, width):
    page = opened(browsing, llm_server)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    assert found_by_axe(page) == []
    ask(page, QUESTION)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="Source 1").click()
    screenshot(page, f"{scheme}-{width}")
    assert found_by_axe(page) == [], json.dumps(found_by_axe(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_keyboard_is_enough(browsing, llm_server):
    page = opened(browsing, llm_server)
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("llm:slow by keyboard")
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("w2")
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("far end")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("blockquote")).to_be_visible()
