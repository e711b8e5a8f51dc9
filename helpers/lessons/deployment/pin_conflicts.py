"""Can two packages share an environment? What the requirements of their installed releases say.

An installer would have to find one version of every package that both accept. Where one release
pins a version (``==``) that the other's range excludes, there is none, and nothing need be tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib import metadata

from helpers import kernels


def requirements(kernel: str, *distributions: str) -> list[str]:
    """The requirements of the first of ``distributions`` that is installed for ``kernel``, as its metadata says them."""
    return kernels.ask(kernel, "helpers.lessons.deployment.pin_conflicts", *distributions)


def clashes(first: Iterable[str], second: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Packages of which no version suits both: name to what each asks for. Only what applies here, without extras.

    Only clashes with an exact pin are found: two ranges that do not meet would need a list of all versions.
    """
    from packaging.utils import canonicalize_name

    sides: list[dict[str, list]] = [{}, {}]
    for side, lines in zip(sides, (first, second)):
        for asked in map(_parse, lines):
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                side.setdefault(canonicalize_name(asked.name), []).append(asked.specifier)
    both = sorted(sides[0].keys() & sides[1].keys())
    return {name: (_say(sides[0][name]), _say(sides[1][name])) for name in both if _clash(sides[0][name] + sides[1][name])}


def _parse(line: str):
    from packaging.requirements import Requirement

    return Requirement(line)


def _clash(specifiers: Iterable) -> bool:
    """Whether some exact pin is outside of another specifier; a local version (``+cpu``) meets a pin without one."""
    every = list(specifiers)
    exact = [one.version for specifier in every for one in specifier if one.operator == "==" and not one.version.endswith("*")]
    ranges = [_public(specifier) for specifier in every]
    return any(not range_.contains(pin.partition("+")[0], prereleases=True) for pin in exact for range_ in ranges)


def _public(specifier):
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(",".join(str(one).partition("+")[0] for one in specifier))


def _say(specifiers: Iterable) -> str:
    return ", ".join(str(specifier) or "any" for specifier in specifiers)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            print(json.dumps(metadata.requires(name) or []))
            break
        except metadata.PackageNotFoundError:
            continue
    else:
        sys.exit(f"none of {', '.join(sys.argv[1:])} is installed here")
