"""The flame graph page in a real Chromium: what a person sees and does.

Each check was seen to fail on a page broken on purpose; the comments name the change.
"""

import pytest

from pyprof.pprof.flamegraph import render
from pyprof.pprof.model import Profile

from .flamegraph_page import Page
from .flamegraph_profiles import HOSTILE, TYPES, sample, talk

pytestmark = pytest.mark.browser

LIGHT_MATCH = (194, 24, 91)


def test_head(page: Page) -> None:
    assert page.driver.title == page.get("title").text == "talk.pb.gz"
    facts = page.get("facts").text
    for fact in ("2023-11-14 22:13:20 UTC", "3.8 s", "pid 42", HOSTILE):
        assert fact in facts


def test_click_zooms_in_and_escape_out(page: Page) -> None:
    # Failed with `zoom` not changing the view, and with Escape taken out of PAGE_KEYS.
    assert not page.painted(0.15, 4), "prepare is 13.2 % of the width"
    page.pointer(0.3, 3, click=True)
    page.wait("zoomed into doALot", lambda: page.zoomed() == "__main__.doALot")
    page.wait("prepare is 20 % of the width", lambda: page.painted(0.15, 4) and not page.painted(0.25, 4))
    assert page.get("crumbs").text.split("\n") == [
        "all",
        "__main__.<module>",
        "__main__.main",
        "__main__.doALot",
    ]
    assert page.get("name").text == "__main__.doALot"
    assert page.get("source").text == "/srv/talk.py:10"
    [_, cpu, _] = page.get("numbers").find_elements("css selector", "tbody tr")
    assert cpu.text == "cpu 2.00 s 52.6 % 2.50 s 65.8 %"
    page.keys("ESCAPE")
    page.wait("zoomed out", lambda: page.zoomed() == "all" and not page.painted(0.15, 4))
    assert not page.get("reset").is_displayed()


def test_breadcrumb_and_reset(page: Page) -> None:
    page.pointer(0.05, 4, click=True)
    assert page.zoomed() == "__main__.prepare"
    page.get("crumbs").find_elements("tag name", "button")[2].click()
    assert page.zoomed() == "__main__.main"
    page.get("reset").click()
    assert page.zoomed() == "all"


def test_search_shows_the_share_and_marks_frames(page: Page) -> None:
    # Failed with the sum over all frames found ("__main__" gave 387 %), and without the fill of a match.
    assert page.search("prepare") == "26.3 % of cpu · 1.00 s · 2 frames"
    page.wait("both painted as found", lambda: page.pixel(0.05, 4) == page.pixel(0.7, 4) == LIGHT_MATCH)
    assert page.pixel(0.3, 3) != LIGHT_MATCH
    assert page.search("MAIN").startswith("nothing found"), "capitals make the case count"
    assert page.search("__main__").startswith("100.0 % of cpu · 3.80 s · 6 frames"), "a stack counts once"
    page.pointer(0.3, 3, click=True)
    assert page.search("prepare") == "26.3 % of cpu · 1.00 s · 2 frames · 20.0 % of the zoomed frame"
    page.keys("ESCAPE")
    assert page.found() == ""
    page.wait("colours are back", lambda: page.pixel(0.05, 4) != LIGHT_MATCH)


def test_regular_expressions(page: Page) -> None:
    assert page.search(r"do(alot|little)$").startswith("nothing found"), "plain text until asked"
    page.get("regex").click()
    assert page.found().startswith("92.1 % of cpu")
    assert page.search("(") == "not a regular expression"
    assert page.get("term").get_attribute("aria-invalid") == "true"
    page.get("regex").click()
    assert page.found().startswith("nothing found")


def test_search_keys(page: Page) -> None:
    page.keys("/")
    page.driver.switch_to.active_element.send_keys("prepare")
    assert page.found().startswith("26.3 % of cpu")
    names = []
    for key in ("ENTER", "ENTER", "ENTER"):
        page.keys(key)
        names.append(
            (
                page.selected(),
                page.js("return document.querySelector('#graph').ariaActiveDescendantElement.ariaLevel"),
            )
        )
    assert names == [("__main__.prepare", "5")] * 3
    page.keys("ESCAPE")
    assert page.found() == ""
    assert page.js("return document.activeElement.id") == "graph"
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(page.driver, duration=0).key_down(Keys.CONTROL).send_keys("f").key_up(Keys.CONTROL).perform()
    assert page.js("return document.activeElement.id") == "term"


def test_keyboard(page: Page) -> None:
    # Failed with ArrowLeft and ArrowRight exchanged, and without the ring (`mark` of the selected frame).
    walk = []
    for key in (
        "ARROW_DOWN",
        "ARROW_DOWN",
        "ARROW_DOWN",
        "ARROW_RIGHT",
        "ARROW_DOWN",
        "ARROW_LEFT",
        "ARROW_UP",
    ):
        page.keys(key)
        walk.append(page.selected().removeprefix("__main__."))
    assert walk == ["<module>", "main", "doALot", "doLittle", "prepare", "prepare", "doALot"]
    page.wait("a ring around doALot", lambda: page.pixel(0.3, 3, 0.03) == (17, 17, 17))
    page.keys("ENTER")
    assert page.zoomed() == "__main__.doALot"
    page.keys("ARROW_RIGHT")
    assert page.selected() == "__main__.doALot", "doLittle is out of sight"
    page.keys("BACKSPACE")
    assert page.zoomed() == "__main__.main"
    page.keys("ESCAPE")
    assert (page.zoomed(), page.selected()) == ("all", "__main__.doALot")
    page.keys("v")
    assert page.get("table").is_displayed()
    page.keys("?")
    assert page.get("keys").is_displayed()
    page.keys("ESCAPE")
    assert not page.get("keys").is_displayed()


def test_every_control_is_reached_by_tab_and_shows_focus(page: Page) -> None:
    reached = []
    for _ in range(20):
        page.keys("TAB")
        focused = page.js(
            "const e = document.activeElement, label = e.closest('label') || e;"
            "return [e.id || e.textContent || e.name, getComputedStyle(label).outlineStyle]"
        )
        reached.append(focused[0])
        if focused[0] == "graph":
            page.wait("a ring around the root", lambda: page.pixel(0.3, 0, 0.03) == (17, 17, 17))
            break
        assert focused[1] != "none", f"no outline on {focused[0]}"
    assert reached == ["theme", "help", "type", "show-graph", "show-table", "term", "regex", "all", "graph"]


def test_sample_types(page: Page) -> None:
    assert page.get("graph").get_attribute("data-type") == "cpu"
    page.js("document.querySelector('#types input[value=\"2\"]').closest('label').click()")
    assert page.get("graph").get_attribute("data-type") == "wall"
    assert page.search("prepare") == "13.2 % of wall · 1.00 s · 2 frames"
    page.wait("the waiting thread is drawn", lambda: page.painted(0.75, 1) and page.painted(0.95, 1))
    [samples, cpu, wall] = page.get("numbers").find_elements("css selector", "tbody tr")
    assert [row.text.split()[0] for row in (samples, cpu, wall)] == ["samples", "cpu", "wall"]
    assert wall.get_attribute("aria-current") == "true"


def test_tooltip(page: Page) -> None:
    page.pointer(0.3, 3, click=False)
    tip = page.get("tip")
    page.wait("tooltip", lambda: tip.is_displayed())
    assert tip.text.split("\n") == [
        "__main__.doALot",
        "cum 65.8 % (2.50 s) · flat 52.6 % (2.00 s)",
        "/srv/talk.py:10",
    ]


def test_table(page: Page) -> None:
    page.get("show-table").click()
    rows = [row.text.split("\n")[0] for row in page.get("rows").find_elements("tag name", "tr")]
    assert [row.split(" /srv")[0] for row in rows] == [
        "2.00 s 52.6 % 52.6 % 2.50 s 65.8 % __main__.doALot",
        "1.00 s 26.3 % 78.9 % 1.00 s 26.3 % __main__.prepare",
        "500 ms 13.2 % 92.1 % 1.00 s 26.3 % __main__.doLittle",
        "300 ms 7.9 % 100.0 % 3.80 s 100.0 % __main__.main",
        "0 0.0 % 100.0 % 3.80 s 100.0 % __main__.<module>",
    ]
    page.get("rows").find_elements("tag name", "button")[1].click()
    assert page.get("graph").is_displayed()
    assert page.found().startswith("26.3 % of cpu")
    assert page.selected() == "__main__.prepare"


def test_recursion_counts_once_in_the_table(page: Page) -> None:
    samples = [sample("f > f > g > f", 30), sample("g", 10)]
    page.open(render(Profile(TYPES, samples, default_sample_type="cpu")))
    page.get("show-table").click()
    rows = [row.text.split(" /srv")[0] for row in page.get("rows").find_elements("tag name", "tr")]
    assert rows == ["300 ms 75.0 % 75.0 % 300 ms 75.0 % f", "100 ms 25.0 % 100.0 % 400 ms 100.0 % g"]


def test_dark_and_light(page: Page) -> None:
    # Failed with the palette fixed to light, and with the body's colour not from a variable.
    def look() -> tuple[str, tuple[int, int, int]]:
        return page.js("return getComputedStyle(document.body).backgroundColor"), page.pixel(0.3, 3)

    def is_dark() -> bool:
        ground, frame = look()
        return sum(map(int, ground[4:-1].split(","))) < 150 and sum(frame) < 300

    assert not is_dark()
    light = look()
    page.get("theme").click()
    page.wait("dark", is_dark)
    assert page.get("theme").get_attribute("aria-pressed") == "true"
    page.keys("t")
    page.wait("light again", lambda: look() == light)
    page.media("dark")
    page.driver.refresh()
    page.wait("dark because the system is", is_dark)


def test_fifty_thousand_frames(page: Page) -> None:
    stacks = [f"r > a{i % 50} > b{i % 500} > c{i % 5000} > d{i} > e{i}" for i in range(22_500)]
    page.open(render(Profile(TYPES, [sample(names, 1) for names in stacks], default_sample_type="cpu")))
    nodes = page.js("return JSON.parse(document.getElementById('profile').textContent).nodes[0].length")
    assert nodes > 50_000
    painted = int(page.get("canvas").get_attribute("data-frames"))
    assert 500 < painted < 10_000, "frames too narrow to be seen are not painted"
    assert page.search("e77") == "0.5 % of cpu · 1.11 s · 111 frames"
    page.pointer(0.5, 2, click=True)
    page.wait("zoomed", lambda: page.zoomed().startswith("a"))
    page.wait("its callees are painted", lambda: page.painted(0.5, 5))


def test_deep_stacks_scroll(page: Page) -> None:
    page.open(
        render(
            Profile(TYPES, [sample(" > ".join(f"f{i}" for i in range(300)), 1)], default_sample_type="cpu")
        )
    )
    assert int(page.get("canvas").get_attribute("data-frames")) < 60, "only rows in view are painted"
    page.keys(*["ARROW_DOWN"] * 250)
    assert page.selected() == "f249"
    page.wait("its row is in view", lambda: page.painted(0.3, 250))


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_windows(page: Page, width: int) -> None:
    page.size(width, 740, mobile=True)
    page.open(render(talk(), title="a-long-name-without-any-space-in-it.pb.gz"))
    for view in ("show-graph", "show-table"):
        page.get(view).click()
        assert page.js("return document.documentElement.scrollWidth") <= width, (
            "nothing beyond the right edge"
        )
    page.get("show-graph").click()
    assert page.get("graph").size["height"] > 200
    assert page.search("prepare").startswith("26.3 % of cpu")
    found = page.get("found").rect
    assert found["x"] >= 0
    assert found["x"] + found["width"] <= width


def test_screen_readers_hear_the_frame(page: Page) -> None:
    heard = []
    for _ in range(3):
        page.keys("ARROW_DOWN")
        heard.append(
            page.js("return document.querySelector('#graph').ariaActiveDescendantElement.textContent")
        )
    assert [text.split(",")[0] for text in heard] == ["__main__.<module>", "__main__.main", "__main__.doALot"]
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"]}
    assert ("tree", "Flame graph of cpu") in named
    assert ("treeitem", "__main__.doALot, 65.8 % of cpu, flat 52.6 %") in named
    assert ("radio", "cpu") in named
    assert {("button", "Dark theme"), ("button", "Keys and help"), ("button", "Regular expression")} <= named
    assert ("searchbox", "Search functions") in named
    unnamed = [
        role
        for role, name in named
        if role in ("button", "radio", "searchbox", "tree", "treeitem") and not name
    ]
    assert unnamed == []


def test_a_profile_without_samples(page: Page) -> None:
    page.open(render(Profile(TYPES, default_sample_type="cpu")))
    assert page.get("empty").text == "This profile has no samples of type cpu."
    page.keys("ARROW_DOWN", "ENTER", "ESCAPE")
