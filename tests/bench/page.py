"""Measures the page in Chromium: frames while an answer of 2,000 tokens comes at 200 a second, and memory.

    just bench page [--answers 20]

Starts a server with a collection of its own and the far end of an LLM in this process. One answer is traced: the gaps
between animation frames, and the tasks on the page's main thread, which are what delays a frame. Then the heap is read
after each answer, garbage collected: in one conversation, where every answer stays on the page, and with a new
conversation for each.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.conftest import ServerProcess, clean_environment
from tests.e2e.conftest import CHROMIUM, QUIET, SANDBOX
from tests.e2e.test_page import ask
from tests.faulty_llm import FaultyLLM

QUESTION = "aripiprazole llm:brisk"
FRAMES = """() => {
    window.gaps = [];
    let last = performance.now();
    const frame = (now) => {
        window.gaps.push(now - last);
        last = now;
        window.counting = requestAnimationFrame(frame);
    };
    window.counting = requestAnimationFrame(frame);
}"""
TASKS = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]
ANSWER_TIMEOUT_MS = 60_000


def answered(page, question=QUESTION):
    ask(page, question)
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=ANSWER_TIMEOUT_MS)


def traced(browser, page):
    """Return the gaps between frames and the tasks of the main thread, both in ms, while one answer comes."""
    browser.start_tracing(page=page, categories=TASKS)
    page.evaluate(FRAMES)
    answered(page)
    gaps = page.evaluate("cancelAnimationFrame(window.counting), window.gaps")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    tasks = [e["dur"] / 1000 for e in events if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in main]
    return gaps, tasks


def heap_mb(devtools):
    devtools.send("HeapProfiler.collectGarbage")
    return devtools.send("Runtime.getHeapUsage")["usedSize"] / 1e6


def show(what, values):
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    slow = sum(value > 50 for value in values)
    shown = f"p50 {cuts[49]:.1f}  p99 {cuts[98]:.1f}  max {max(values):.1f} ms"
    print(f"{what:32} {shown}; {slow} of {len(values)} above 50 ms")


def measure(browser, url, answers):
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    page.goto(url)
    answered(page, "aripiprazole")  # what is loaded by the first answer is not the second's fault
    gaps, tasks = traced(browser, page)
    show("between animation frames", gaps)
    show("tasks of the main thread", tasks)
    devtools = page.context.new_cdp_session(page)
    for name, again in (("in one conversation", False), ("in a new conversation each", True)):
        heaps = []
        for _ in range(answers):
            if again:
                page.get_by_role("button", name="New").click()
            answered(page)
            heaps.append(heap_mb(devtools))
        print(f"heap in MB, {name}: " + " ".join(f"{heap:.1f}" for heap in heaps))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=20)
    answers = parser.parse_args().answers
    with tempfile.TemporaryDirectory() as folder, FaultyLLM() as llm, sync_playwright() as playwright:
        settings = {"data_dir": Path(folder) / "data", "llm_model": "openai/fake", "llm_api_base": llm.url}
        server = ServerProcess(folder, clean_environment(**settings))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SANDBOX, *QUIET])
        try:
            measure(browser, server.wait_ready().url, answers)
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
