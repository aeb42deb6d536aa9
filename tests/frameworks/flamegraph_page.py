"""A Chromium window with a flame graph page in it, and what tests do and see there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT = 20.0


class Page:
    """A driven browser window with what the tests ask of it."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver = driver
        self.folder = folder
        self.url = ""

    def open(self, html: str) -> None:
        file = self.folder / "flame.html"
        file.write_text(html, encoding="ascii")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.url = file.as_uri()
        self.driver.get(self.url)
        self.wait("page drawn", lambda: self.get("canvas").get_attribute("data-frames"))

    def media(self, scheme: str) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def get(self, element_id: str) -> Any:
        return self.driver.find_element("id", element_id)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            WebDriverWait(self.driver, WAIT, poll_frequency=0.02).until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"not within {WAIT} s: {what}")

    def keys(self, *names: str) -> None:
        """Press keys (names of selenium's Keys, or characters) wherever the focus is."""
        from selenium.webdriver.common.keys import Keys

        self.driver.switch_to.active_element.send_keys(*(getattr(Keys, name, name) for name in names))

    def pixel(self, x: float, depth: int, y: float = 0.9) -> tuple[int, int, int]:
        """Colour at a share of the width in the row of a depth, at a share of its height."""
        code = """
            const [x, depth, y] = arguments, canvas = document.getElementById("canvas");
            const graph = document.getElementById("graph"), ratio = canvas.width / canvas.clientWidth;
            const row = parseFloat(getComputedStyle(graph).getPropertyValue("--row"));
            const at = [x * canvas.width, ((depth + y) * row - graph.scrollTop) * ratio];
            return [...canvas.getContext("2d").getImageData(Math.floor(at[0]), Math.floor(at[1]), 1, 1).data];
        """
        red, green, blue, alpha = self.js(code, x, depth, y)
        return (red, green, blue) if alpha else (0, 0, 0)

    def painted(self, x: float, depth: int) -> bool:
        return self.pixel(x, depth, 0.5 if x > 0.5 else 0.85) != (0, 0, 0)

    def pointer(self, x: float, depth: int, *, click: bool) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.get("canvas")
        row = float(
            self.js(
                "return parseFloat(getComputedStyle(arguments[0]).getPropertyValue('--row'))",
                self.get("graph"),
            )
        )
        width, height = canvas.size["width"], canvas.size["height"]
        chain = ActionChains(self.driver, duration=0).move_to_element_with_offset(
            canvas, round(x * width - width / 2), round((depth + 0.5) * row - height / 2)
        )
        (chain.click() if click else chain).perform()

    def selected(self) -> str:
        return str(self.get("graph").get_attribute("data-selected"))

    def zoomed(self) -> str:
        return str(self.get("graph").get_attribute("data-zoomed"))

    def found(self) -> str:
        return str(self.get("found").text)

    def search(self, term: str) -> str:
        self.get("term").clear()
        self.get("term").send_keys(term)
        return self.found()

    def requests(self) -> list[str]:
        """Addresses that the browser asked for since `open`, whether or not it was let."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        named = ("Network.requestWillBeSent", "Network.webSocketCreated")
        return [
            event["params"].get("url") or event["params"]["request"]["url"]
            for event in events
            if event["method"] in named
        ]

    def complaints(self) -> list[str]:
        log = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in log if "willReadFrequently" not in message]  # `pixel` reads the canvas
