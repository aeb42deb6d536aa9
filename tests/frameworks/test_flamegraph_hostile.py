"""The flame graph page in a real Chromium: names that attack it stay text, and no request leaves it.

Each check was seen to fail on a page broken on purpose; the comments name the change.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pyprof.pprof.flamegraph import render

from .flamegraph_page import Page
from .flamegraph_profiles import HOSTILE, talk

pytestmark = pytest.mark.browser


def test_a_hostile_name_is_text(page: Page) -> None:
    # Failed with `<` and `>` not escaped in the data, and with innerHTML in place of textContent.
    from selenium.common.exceptions import NoAlertPresentException

    page.js("document.querySelector('#types input[value=\"2\"]').closest('label').click()")
    assert page.search("onerror").startswith("10.5 % of wall")
    page.keys("ENTER")
    assert page.get("name").text == HOSTILE
    page.get("zoom").click()
    assert page.get("crumbs").text.split("\n")[-1] == HOSTILE
    page.pointer(0.5, 2, click=False)
    page.wait("tooltip", lambda: page.get("tip").text.startswith(HOSTILE))
    page.get("show-table").click()
    assert HOSTILE in page.get("rows").text
    page.get("help").click()
    assert HOSTILE in page.get("notes").text
    assert page.js("return document.images.length") == 0
    assert page.js("return document.scripts.length") == 2
    with pytest.raises(NoAlertPresentException):
        _ = page.driver.switch_to.alert.text


def test_no_request_but_the_page_itself(page: Page) -> None:
    # Failed with an <img> of another origin put into the template, though the policy refused it.
    page.pointer(0.3, 3, click=True)
    page.search("prepare")
    page.get("theme").click()
    page.get("show-table").click()
    page.js("document.querySelector('#types input[value=\"2\"]').closest('label').click()")
    remote = [url for url in page.requests() if not url.startswith("data:image/svg+xml,")]
    assert remote == [page.url]
    assert page.js("return performance.getEntriesByType('resource').map((e) => e.name)") == []


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that would notice a request: its address and the paths asked for."""
    hits: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", hits
        server.shutdown()
        thread.join()


ATTEMPTS = """
    const [address, done] = arguments, ended = [];
    const until = (name, object, ...events) => ended.push(new Promise((end) => {
        for (const event of events) object.addEventListener(event, () => end(name));
    }));
    const put = (tag, properties) => {
        const made = Object.assign(document.createElement(tag), properties);
        until(tag, made, "load", "error");
        document.body.append(made);
    };
    put("img", {src: address + "/img"});
    put("link", {rel: "stylesheet", href: address + "/style"});
    ended.push(fetch(address + "/fetch", {mode: "no-cors"}).catch(() => {}));
    const request = new XMLHttpRequest();
    until("xhr", request, "loadend");
    request.open("GET", address + "/xhr");
    request.send();
    Promise.all(ended).then(() => done(ended.length));
"""


def test_the_policy_stops_what_would_ask_the_network(
    driver: Any, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """The test runs code in the page, as a hole in it would; without the policy the code gets through."""
    address, hits = listener
    page = Page(driver, tmp_path)
    html = render(talk())
    policy = 'http-equiv="Content-Security-Policy"'
    assert policy in html
    page.open(html.replace(policy, 'name="none"'))
    assert driver.execute_async_script(ATTEMPTS, address) == 4
    assert sorted(hits) == ["/fetch", "/img", "/style", "/xhr"]
    hits.clear()
    page.open(html)
    assert driver.execute_async_script(ATTEMPTS, address) == 4
    assert hits == []
    blocked = driver.execute_script(
        "try { document.body.innerHTML = '<b>x</b>'; return 'let'; } catch (e) { return e.name; }"
    )
    assert blocked == "TypeError", "strings do not become markup"
