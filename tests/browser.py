"""Chromium for tests: headless, without a network of its own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


expect.set_options(timeout=30_000)  # ms: on a busy machine a page may take long to change


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser. Where there is none: a skip here, a failure in CI."""
    if find_browser() is None:
        reason = "no browser: install Debian's chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=QUIET)
        yield browser
        browser.close()


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@contextmanager
def open_profile(browser: Browser, folder: Path) -> Iterator[BrowserContext]:
    """The browser with a profile in a folder, as a person has it.

    Without one, Chromium on a busy machine now and then does not tell a tab what another tab keeps
    (6 of 660 times beside four busy loops; with one 0 of 180).
    """
    profile = browser.browser_type.launch_persistent_context(
        folder, executable_path=find_browser(), args=QUIET, offline=True
    )
    yield profile
    profile.close()
