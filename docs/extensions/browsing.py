"""Photographs of pages, as a browser shows them."""

from __future__ import annotations

import shutil
from pathlib import Path


def has_browser() -> bool:
    """Whether there is one on this machine."""
    return shutil.which("chromium") is not None


def photograph(address: str, to: Path, scheme: str, size: tuple[int, int], *, until: str) -> None:
    """What a browser shows of a page, as PNG. Raises ImportError without playwright, its own errors without Chromium.

    scheme: `light` or `dark`. size: width and height of the window. until: a selector of what must be there first."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        window.goto(address)
        window.wait_for_selector(until)
        window.wait_for_load_state("networkidle")
        window.screenshot(path=to)
        browser.close()
