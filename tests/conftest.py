"""Every test module is checked for what it leaves behind."""

from leftovers import nothing_is_left  # noqa: F401 - a fixture that is used by itself
