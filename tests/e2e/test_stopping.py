"""Stop, in whatever stage an answer is."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.conftest import installed
from tests.e2e.test_page import answer, ask, opened

ENTRY_POINTS = (
    "[stagecast.retrievers]\nlingering = stagecast_lingering:LingeringRetriever\n"
    "[stagecast.rerankers]\nlingering = stagecast_lingering:LingeringReranker\n"
)
STAGES = {
    "condense": ("And llm:silent in children?", "Understanding..."),
    "retrieval": ("aripiprazole linger:retrieval", "Searching..."),
    "reranking": ("aripiprazole linger:reranking", "Reranking..."),
    "first token": ("aripiprazole llm:silent", "Generating..."),
    "tokens": ("aripiprazole llm:slow", "Generating..."),
}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def lingering(start_server, sample_database, server, llm, tmp_path_factory):
    """Lend a server whose retriever and reranker linger when they are asked to."""
    module = Path(__file__).parent / "stagecast_lingering.py"
    site = installed(tmp_path_factory.mktemp("site"), module, ENTRY_POINTS)
    parts = {"retriever": "lingering", "reranker": "lingering", "llm_model": "openai/fake", "llm_api_base": llm.url}
    return start_server(database_url=sample_database, environment={"PYTHONPATH": str(site)}, **parts)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_works_in_every_stage_and_the_conversation_goes_on(browsing, lingering, llm, stage, how):
    question, named = STAGES[stage]
    page = opened(browsing, lingering)
    ask(page, "What are the side effects of aripiprazole?")
    expect(answer(page)).to_contain_text("far end")
    with page.expect_response("**/cancel") as cancelled:
        ask(page, question)
        expect(page.get_by_role("list", name="Stages").last).to_contain_text(named)
        if stage == "tokens":
            expect(answer(page)).to_contain_text("w2")
        if how == "button":
            page.get_by_role("button", name="Stop").click()
        else:
            page.keyboard.press("Escape")
        expect(page.get_by_label("Message")).to_be_focused(timeout=500)
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    run = httpx.get(cancelled.value.url.removesuffix("/cancel")).json()
    assert run["status"] == "cancelled"
    assert (stage == "tokens") == run["answer"].startswith(" w0 w1 w2")
    ask(page, "What is lithium used for?")
    expect(answer(page)).to_contain_text("far end")
    expect(page.locator("article")).to_have_count(3)
