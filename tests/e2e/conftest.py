"""What tests of the page share: the built page on a real server, and Debian's Chromium."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from api.http import page as served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SANDBOX = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's refuses to work for root
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]

expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    if not (served.FOLDER / "index.html").exists():
        pytest.skip("the page is not built, which needs Node: just page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SANDBOX, *QUIET])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def llm_server(start_server, sample_database, server, llm):
    return start_server(database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url)


@pytest.fixture
def browsing(chromium):
    """Lend a new browser context, and fail if a page of it met an error or asked another host for anything."""
    context = chromium.new_context(viewport={"width": 1100, "height": 760})
    complaints, hosts = [], set()
    context.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    context.on("weberror", lambda problem: complaints.append(str(problem.error)))
    context.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    context.complaints = complaints
    yield context
    context.close()
    assert hosts <= {"127.0.0.1"}
    assert [said for said in complaints if "ERR_INTERNET_DISCONNECTED" not in said] == []


def screenshot(page, name):
    """Keep a picture where ``STAGECAST_PICTURES`` names a folder to look at them."""
    if folder := os.environ.get("STAGECAST_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")
