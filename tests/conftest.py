"""Every test module is checked for what it leaves behind; the quick tier sees no engine and no model."""

import os
import shutil
from pathlib import Path

import hidden
import pytest
from leftovers import nothing_is_left  # noqa: F401 - a fixture that is used by itself

from helpers.lessons.quantization import gguf_types
from helpers.weights import models


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("QUICK") == "1":
        hidden.hide(config)


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The default model as it is shipped: a GGUF of type Q4_1."""
    return models.weights("gguf")


@pytest.fixture(scope="session")
def unquantized_file() -> Path:
    """The same model unquantized: a GGUF of type bf16."""
    return gguf_types.unquantized()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: the system's, else Playwright's own if it was downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        found = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium on this machine: install it, or run `python -m playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()
