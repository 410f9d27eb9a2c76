"""Answers that a page might trip over, streamed: they are shown as text, and reach, run and move nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.awkward import KINDS, Awkward
from tests.e2e.test_page import answer, opened

TRIPWIRES = Path(__file__).parent / "tripwires.js"
A_CONVERSATION = 24
CONVERSATIONS = {
    f"{kind}-{start}": answers[start : start + A_CONVERSATION]
    for kind, answers in KINDS.items()
    for start in range(0, len(answers), A_CONVERSATION)
}
UNOPENED = (
    "javascript:alert(1)",
    "javascript&#58;alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "vbscript:x",
    "//beacon.example/x",
    "/sessions",
    "#/session/other",
    "mailto:a@a.example",
    "https:beacon.example",
)
WAITED_MS = 30_000
WHOLE = f"""async () => {{
    const deadline = performance.now() + {WAITED_MS};
    while (!document.querySelector(".composer button[type=submit]")) {{
        if (performance.now() > deadline) return ["no end of the answer"];
        await new Promise(requestAnimationFrame);
    }}
    if (globalThis.tripped !== undefined || Object.keys(Object.prototype).length) found.push("a script ran");
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page is too wide");
    return found.splice(0);
}}"""
WIDE = """() => {
    const text = [...document.querySelectorAll("article .text")].at(-1);
    return text.scrollWidth > text.clientWidth;
}"""
DRAWN = """() => [...document.querySelectorAll("article .text")].map(
    (text) => text.innerHTML.replaceAll(/ id="base-ui-[^"]*"/g, "")
)"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def echoing(start_server, sample_database, server, llm):
    """Lend a server whose LLM says what it is told; stages that do not matter here are left out for speed."""
    stages = "retrieval,generation"
    return start_server(database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url, stages=stages)


class Watched:
    """A page of a phone's width on which each answer is looked over: ``wrongs`` is what they did that none may do."""

    def __init__(self, context, server):
        self.wrongs = []
        self._complaints = context.complaints
        self._events: list[str] = []
        context.add_init_script(path=TRIPWIRES)
        self._home = server.url
        self._moves = 0
        context.on("request", self._requested)
        self.page = opened(context, server)
        self.page.set_viewport_size({"width": 360, "height": 740})
        self.page.on("dialog", self._dismiss)
        self.page.on("popup", lambda popup: self._events.append(f"popup {popup.url}"))
        self.page.on("framenavigated", self._moved)

    def _requested(self, request):
        if not request.url.startswith(self._home):
            self._events.append(f"request {request.url}")

    def _moved(self, frame):
        """Note a navigation, but for a conversation's first: with its first answer it gets an address."""
        self._moves += 1
        if self._moves > 1 or not frame.url.startswith(f"{self._home}/#/session/"):
            self._events.append(f"navigation {frame.url}")

    def _dismiss(self, dialog):
        self._events.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def ask(self, n, awkward):
        """Have an answer said by the LLM, wait for its end and look it over."""
        self.page.get_by_label("Message").fill(f"Say llm:echo{n}")
        self.page.keyboard.press("Enter")
        self._look_over(awkward, self.page.evaluate(WHOLE) + self._events + self._complaints)

    def _look_over(self, awkward, found):
        if awkward.shows not in answer(self.page).text_content():
            found.append(f"not shown: {awkward.shows}")
        if not awkward.wide and self.page.evaluate(WIDE):
            found.append("wider than a phone")
        if awkward.has and not answer(self.page).locator(awkward.has).count():
            found.append(f"not made: {awkward.has}")
        self._events.clear()
        self._complaints.clear()
        if found:
            self.wrongs.append((awkward.text[:80], found, answer(self.page).inner_html()[:300]))

    def drawn(self):
        """Return each answer's elements, without the numbers that citations are given as they are made."""
        return self.page.evaluate(DRAWN)


@pytest.mark.parametrize("answers", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_an_awkward_answer_is_shown_and_does_nothing(browsing, echoing, llm, answers):
    watched = Watched(browsing, echoing)
    llm.texts = [awkward.text for awkward in answers]
    for n, awkward in enumerate(answers):
        watched.ask(n, awkward)
    streamed = watched.drawn()
    watched.page.reload()
    expect(watched.page.locator("article .text")).to_have_count(len(answers))
    stored = watched.drawn()
    assert not watched.wrongs, "\n".join(map(repr, watched.wrongs))
    assert streamed == stored
    assert watched.page.evaluate(WHOLE) == []


def said(watched, llm, text):
    """Have the LLM say a text, and return its links."""
    llm.texts = [text]
    watched.ask(0, Awkward(text))
    return answer(watched.page).locator("button.link")


def test_a_link_shows_where_it_leads_and_is_followed_only_when_told_to(browsing, echoing, llm):
    watched = Watched(browsing, echoing)
    page, address = watched.page, f"{echoing.url}/?from=a-link"
    link = said(watched, llm, f"[our own](https://a.example/) and [press]({address})").last
    here = page.url
    link.click()
    dialog = page.get_by_role("dialog", name="Leave this page?")
    expect(dialog.locator(".address")).to_have_text(address)
    dialog.get_by_role("button", name="Stay").click()
    expect(dialog).to_have_count(0)
    assert (page.url, len(browsing.pages)) == (here, 1)
    link.click()
    with page.expect_popup() as opening:
        dialog.get_by_role("link", name="Open").click()
    assert opening.value.url == address
    assert opening.value.evaluate("[window.opener, document.referrer]") == [None, ""]
    assert (page.url, watched.wrongs) == (here, [])


def test_a_link_that_leads_to_no_page_of_the_web_cannot_be_opened(browsing, echoing, llm):
    watched = Watched(browsing, echoing)
    page = watched.page
    links = said(watched, llm, " ".join(f"[press]({address})" for address in UNOPENED))
    expect(links).to_have_count(len(UNOPENED))
    here = page.url
    for link in links.all():
        link.click()
        dialog = page.get_by_role("dialog", name="Leave this page?")
        expect(dialog).to_contain_text("cannot be opened from here")
        expect(dialog.get_by_role("link")).to_have_count(0)
        dialog.get_by_role("button", name="Stay").click()
    assert (page.url, page.evaluate(WHOLE), watched.wrongs) == (here, [], [])
