"""The page in a real browser: asking, watching, stopping, losing the network, coming back."""

import re
import time

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import screenshot

QUESTION = "What are the side effects of aripiprazole?"
WHOLE = "".join(f" w{n}" for n in range(200)).strip()
pytestmark = pytest.mark.timeout(120)


def opened(context, server, path="/"):
    page = context.new_page()
    page.goto(server.url + path)
    return page


def ask(page, question):
    page.get_by_label("Message").fill(question)
    page.get_by_role("button", name="Send").click()


def answer(page):
    return page.locator("article .text").last


def test_a_question_is_answered_before_the_readers_eyes(browsing, llm_server):
    page = opened(browsing, llm_server)
    again = []
    page.on("request", lambda request: again.append(request.url) if "/runs/" in request.url else None)
    screenshot(page, "welcome")
    expect(page.get_by_label("Message")).to_be_focused()
    asked = time.monotonic()
    ask(page, f"{QUESTION} llm:slow")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_label("Message")).to_be_disabled()
    expect(page.get_by_text("Generating...").first).to_be_visible()
    expect(answer(page)).to_contain_text("w0")
    assert time.monotonic() - asked < 1.5
    expect(answer(page)).to_contain_text("w40")
    assert "w199" not in answer(page).inner_text()
    screenshot(page, "answering")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert answer(page).inner_text().strip() == WHOLE
    expect(page.get_by_role("list", name="Sources")).to_contain_text("Aripiprazole")
    expect(page.get_by_label("Message")).to_be_focused()
    screenshot(page, "answered")
    assert again == []


def test_the_page_is_small_and_kept_by_browsers(llm_server):
    index = httpx.get(llm_server.url)
    names = re.findall(r"/assets/[^\"]+", index.text)
    loaded = [httpx.get(llm_server.url + name, headers={"Accept-Encoding": "gzip"}) for name in names]
    assert {each.headers["content-encoding"] for each in loaded} == {"gzip"}
    assert all("immutable" in each.headers["cache-control"] for each in loaded)
    assert sum(int(each.headers["content-length"]) for each in [index, *loaded]) < 300_000
    plain = httpx.get(llm_server.url + names[0], headers={"Accept-Encoding": "identity"})
    assert plain.content == loaded[0].content
    for odd in ("none.js", "..%2findex.html", "%2e%2e%2findex.html"):
        assert httpx.get(f"{llm_server.url}/assets/{odd}").status_code == 404


def test_an_answer_that_is_stopped_stays_and_the_next_question_works(browsing, llm_server, llm):
    page = opened(browsing, llm_server)
    ask(page, "llm:slow stop this")
    expect(answer(page)).to_contain_text("w2")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=500)
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    assert answer(page).inner_text().startswith("w0 w1 w2")
    ask(page, "And now?")
    expect(answer(page)).to_contain_text("Hello from the far end [1].")
    turns = [turn["content"] for turn in llm.calls_about("And now?")[-1].request["messages"]]
    assert any("stop this" in turn for turn in turns)
    assert "w199" not in page.locator("article").first.inner_text()


def test_a_reload_in_the_middle_of_an_answer_goes_on_with_it(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "llm:slow reload")
    expect(answer(page)).to_contain_text("w20")
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(answer(page)).to_contain_text("w199")
    assert answer(page).inner_text().strip() == WHOLE


def test_an_answer_is_stopped_after_a_reload(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "llm:brisk reload and stop")
    expect(answer(page)).to_contain_text("steadies")
    page.reload()
    with page.expect_response("**/cancel") as cancelled:
        page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    run = httpx.get(cancelled.value.url.removesuffix("/cancel")).json()
    assert run["status"] == "cancelled"


def test_a_network_that_fails_is_told_and_the_answer_comes_whole_when_it_is_back(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "llm:slow offline")
    expect(answer(page)).to_contain_text("w10")
    browsing.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("Connection lost", timeout=1000)
    page.wait_for_timeout(1500)
    expect(page.get_by_role("alert")).to_contain_text("Connection lost")
    screenshot(page, "offline")
    browsing.set_offline(False)
    expect(answer(page)).to_contain_text("w199")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert answer(page).inner_text().strip() == WHOLE


def test_three_tabs_answer_at_once(browsing, llm_server):
    pages = [opened(browsing, llm_server) for _ in range(3)]
    for n, page in enumerate(pages):
        ask(page, f"llm:slow tab {n}")
    for page in pages:
        expect(answer(page)).to_contain_text("w199", timeout=20_000)
        assert answer(page).inner_text().strip() == WHOLE
    assert len({page.url for page in pages}) == 3


def test_a_failure_is_told_in_plain_words_with_a_way_to_try_again(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "llm:status401 refused")
    expect(page.get_by_role("alert")).to_contain_text("refused the key")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("article")).to_have_count(2)


def test_a_server_that_asks_for_a_key_is_shown_one_and_answers(browsing, start_server, sample_database, server):
    locked = start_server(database_url=sample_database, api_keys="page:a-key-for-the-page")
    page = opened(browsing, locked)
    page.get_by_role("textbox", name="Key").fill("a-key-for-the-page")
    page.get_by_role("button", name="Go on").click()
    ask(page, QUESTION)
    expect(page.get_by_role("list", name="Sources")).to_contain_text("Aripiprazole")
    expect(page.get_by_role("navigation").get_by_role("listitem")).to_contain_text([QUESTION])
    assert page.evaluate("localStorage.length") == 0
    browsing.complaints[:] = [said for said in browsing.complaints if "401" not in said]


def test_a_link_opens_a_conversation_with_its_sources(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, QUESTION)
    expect(answer(page)).to_contain_text("far end")
    expect(page).to_have_url(re.compile("#/session/"))
    other = opened(browsing, llm_server, page.url.removeprefix(llm_server.url))
    expect(answer(other)).to_contain_text("far end")
    other.get_by_role("button", name="Source 1").click()
    expect(other.locator("blockquote")).to_contain_text("aripiprazole")
    other.get_by_role("link", name="Open document").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Aripiprazole")
    expect(other.get_by_role("region", name="Passage")).to_be_in_viewport()
    expect(other.get_by_role("region", name="Passage")).to_contain_text("nausea")
    other.go_back()
    expect(answer(other)).to_contain_text("far end")


def listed(page, title):
    return page.get_by_role("navigation").get_by_role("listitem").filter(has_text=title)


def test_conversations_are_found_renamed_and_deleted(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "a question to be renamed")
    listed(page, "a question to be renamed").get_by_role("button", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Title").fill("another title")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(listed(page, "another title")).to_have_count(1)
    page.get_by_label("Search conversations").fill("ANOTHER")
    expect(page.get_by_role("navigation").get_by_role("listitem")).to_have_count(1)
    page.get_by_role("navigation").get_by_role("button", name="Delete").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Keep").click()
    expect(listed(page, "another title")).to_have_count(1)
    page.get_by_role("navigation").get_by_role("button", name="Delete").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(listed(page, "another title")).to_have_count(0)
    assert page.locator("article").count() == 0


def test_a_pointer_over_a_citation_shows_the_passage_with_the_cited_words_marked(browsing, server):
    page = opened(browsing, server)
    ask(page, QUESTION)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="Source 1").first.hover()
    expect(page.get_by_role("dialog")).to_contain_text("Aripiprazole")
    marked = page.locator("mark").all_inner_texts()
    said = answer(page).inner_text().lower()
    assert marked[0].startswith("most common side effects of aripiprazole are nausea")
    assert all(words.lower() in said for words in marked)
    page.mouse.move(5, 5)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_times_of_an_answer_are_shown_now_and_when_its_conversation_is_opened_again(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "aripiprazole, how long does it take?")
    shown = page.get_by_role("figure", name="Times")
    page.get_by_role("button", name="Times").click()
    expect(shown.get_by_role("row")).to_have_count(4)
    expect(shown).to_contain_text("7 tokens")
    told = shown.inner_text()
    page.reload()
    page.get_by_role("button", name="Times").click()
    expect(shown).to_contain_text("7 tokens")
    assert shown.inner_text() == told


def test_an_answer_goes_on_while_another_conversation_is_on_the_page(browsing, llm_server):
    page = opened(browsing, llm_server)
    again = []
    page.on("request", lambda request: again.append(request.url) if "/runs/" in request.url else None)
    ask(page, "llm:slow in the background")
    expect(answer(page)).to_contain_text("w2")
    page.get_by_role("button", name="New").click()
    ask(page, "aripiprazole in the foreground")
    expect(answer(page)).to_contain_text("far end")
    expect(listed(page, "in the background").get_by_label("Answering")).to_be_visible()
    page.get_by_role("link", name="Collection").click()
    expect(page.get_by_role("heading", name="Collection")).to_be_visible()
    listed(page, "in the background").get_by_role("link").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(answer(page)).to_contain_text("w199", timeout=20_000)
    assert answer(page).inner_text().strip() == WHOLE
    expect(listed(page, "in the background").get_by_label("Answering")).to_have_count(0)
    assert again == []


def test_an_answer_and_its_code_can_be_copied(browsing, llm_server):
    browsing.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(browsing, llm_server)
    ask(page, "aripiprazole to be copied")
    page.get_by_role("button", name="Copy answer").click()
    expect(page.get_by_role("button", name="Copy answer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "Hello from the far end [1]."


def test_the_end_is_followed_unless_the_reader_scrolls_away(browsing, llm_server):
    page = opened(browsing, llm_server)
    page.set_viewport_size({"width": 360, "height": 420})
    turns = page.get_by_label("Questions and answers")
    away = "element => element.scrollHeight - element.scrollTop - element.clientHeight"
    ask(page, "llm:slow followed")
    expect(answer(page)).to_contain_text("w120")
    assert turns.evaluate(away) < 5
    turns.evaluate("element => element.scrollTo(0, 0)")
    expect(answer(page)).to_contain_text("w199")
    assert turns.evaluate("element => element.scrollTop") == 0


def test_a_first_question_that_was_refused_makes_room_for_a_new_conversation(browsing, llm_server):
    page = opened(browsing, llm_server)
    page.route("**/chat", lambda route: route.fulfill(status=503, json={"detail": "The server is full."}))
    ask(page, "refused")
    expect(page.get_by_role("alert")).to_contain_text("The server is full.")
    page.unroute("**/chat")
    page.get_by_role("button", name="Retry").click()
    expect(answer(page)).to_contain_text("far end")
    page.get_by_role("button", name="New").click()
    expect(page.locator("article")).to_have_count(0)
    browsing.complaints[:] = [said for said in browsing.complaints if "503" not in said]


def test_a_conversation_opened_by_a_link_is_there_once_the_key_is_given(
    browsing, start_server, sample_database, server
):
    locked = start_server(database_url=sample_database, api_keys="linked:a-key-for-a-link")
    headers = {"Authorization": "Bearer a-key-for-a-link"}
    body = {"message": QUESTION, "session_id": "linked-session", "stream": False}
    assert httpx.post(f"{locked.url}/chat", json=body, headers=headers).status_code == 200
    page = opened(browsing, locked, "/#/session/linked-session")
    page.get_by_role("textbox", name="Key").fill("a-key-for-a-link")
    page.get_by_role("button", name="Go on").click()
    expect(answer(page)).to_contain_text("aripiprazole")
    expect(page.get_by_role("alert")).to_have_count(0)
    browsing.complaints[:] = [said for said in browsing.complaints if "401" not in said]


def test_events_are_logged_for_those_who_ask_for_it(browsing, llm_server):
    page = opened(browsing, llm_server)
    said = []
    page.on("console", lambda message: said.append(message.text))
    ask(page, "aripiprazole in silence")
    expect(answer(page)).to_contain_text("far end")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert said == []
    page.evaluate("localStorage.setItem('DEBUG_STREAMING', 'true')")
    ask(page, "aripiprazole aloud")
    expect(page.locator("article")).to_have_count(2)
    expect(answer(page)).to_contain_text("far end")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert said[0].startswith("#1 run_start")
    assert said[-1].split()[1] == "done"
    assert sum(" token " in line for line in said) == 7


def test_what_is_in_the_box_is_not_sent_by_stop(browsing, llm_server):
    page = opened(browsing, llm_server)
    ask(page, "llm:slow one")
    expect(answer(page)).to_contain_text("w2")
    page.get_by_role("button", name="New").click()
    page.get_by_label("Message").fill("a draft")
    listed(page, "llm:slow one").get_by_role("link").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_label("Message")).to_have_value("a draft")
    expect(page.locator("article")).to_have_count(1)


def test_an_answer_that_was_lost_is_taken_up_again_by_retry(browsing, llm_server, llm):
    page = opened(browsing, llm_server)
    page.clock.install()
    ask(page, "llm:slow lost for long")
    expect(answer(page)).to_contain_text("w2")
    browsing.set_offline(True)
    for _ in range(20):  # each attempt sets the timer for the next
        page.clock.run_for(4_000)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    browsing.set_offline(False)
    page.get_by_role("button", name="Retry").click()
    expect(answer(page)).to_contain_text("w199", timeout=20_000)
    assert answer(page).inner_text().strip() == WHOLE
    assert len(llm.calls_about("lost for long")) == 1


def test_a_passage_that_was_left_is_where_the_reader_comes_back_to(browsing, server):
    page = opened(browsing, server)
    page.set_viewport_size({"width": 360, "height": 420})
    ask(page, QUESTION)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    turns = page.get_by_label("Questions and answers")
    turns.evaluate("element => element.scrollTo(0, 50)")
    page.get_by_role("button", name="Source 1").first.click()
    page.get_by_role("link", name="Open document").click()
    expect(page.get_by_role("region", name="Passage")).to_be_in_viewport()
    expect(page).to_have_title(re.compile("aripiprazole"))
    page.go_back()
    expect(page.get_by_role("button", name="Source 1").first).to_be_visible()
    assert 20 < turns.evaluate("element => element.scrollTop") < 80
