"""A Chromium for the tests of the flame graph page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyprof.pprof.flamegraph import render

from .flamegraph_page import Page
from .flamegraph_profiles import talk

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def driver(require: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    require.module("selenium")
    chromium = require.tool("chromium", "chromium-browser", "google-chrome")
    chromedriver = require.tool("chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Iterator[Page]:
    page = Page(driver, tmp_path)
    page.size(1200, 800)
    page.media("light")
    page.open(render(talk(), title="talk.pb.gz"))
    yield page
    assert page.complaints() == [], "errors and refusals in the console"
