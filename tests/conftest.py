"""Every test module is checked for what it leaves behind; the quick tier sees no engine and no model."""

import os
from contextlib import ExitStack
from pathlib import Path

import hidden
import lanes
import pytest
from leftovers import nothing_is_left  # noqa: F401 - a fixture that is used by itself

from helpers.lessons.quantization import gguf_types
from helpers.weights import models


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("QUICK") == "1":
        hidden.hide(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("QUICK") == "1":
        lanes.longest_first(items)


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
    from helpers.collection.site import speed

    with ExitStack() as stack:
        try:
            opened = stack.enter_context(speed.chromium())
        except speed.NoBrowser as error:
            pytest.skip(str(error))
        yield opened
