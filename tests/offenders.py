"""One test over many things of one kind, which names every one that fails and not only the first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping


def over(items: Callable[[], Mapping[str, Mapping[str, object]]], *takes: str):
    """Make a check of one thing a test of all of them: a line for each that fails, with its name and the reason.

    ``items()`` gives, when the test runs, name to keyword arguments; ``takes`` are those arguments' names. What else the
    check asks for are fixtures.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(check)

        @functools.wraps(check)
        def test(*of_class, **fixtures) -> None:
            given = items()
            assert given, "there is nothing to check: see what this test is over"
            found = offenders(given, lambda one: check(*of_class, **_asked(signature, one), **fixtures))
            assert not found, "\n".join(["", *found])

        del test.__wrapped__  # else pytest looks for fixtures of these names
        fixtures = [one for name, one in signature.parameters.items() if name not in takes]
        test.__signature__ = signature.replace(parameters=fixtures)
        return test

    return decorate


def offenders(items: Mapping[str, Mapping[str, object]], check: Callable[[Mapping[str, object]], None]) -> list[str]:
    """A line for each of ``items`` that ``check`` does not take."""
    found = []
    for name, given in items.items():
        try:
            check(given)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are looked at too
            found.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return found


def _asked(signature: inspect.Signature, given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in signature.parameters}
