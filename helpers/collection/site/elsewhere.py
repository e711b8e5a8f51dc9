"""The pages of others that the collection rests on: which of them answer. ``python -m helpers.collection.site.elsewhere``.

It needs a network and stops nothing: where a page has moved, its entry in ``references.toml`` or ``claims.toml`` is mended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator

from helpers import cli
from helpers.collection import claims, references


def silent(addresses: Iterable[str], ask: Callable[[str], int] = references.answers) -> Iterator[str]:
    """A line for each of ``addresses`` that does not answer, or not with a page; ``ask`` gives the HTTP status."""
    for address in addresses:
        try:
            status = ask(address)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one, the others are asked too
            yield f"{address}: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
            continue
        if status >= 400:
            yield f"{address}: HTTP {status}"


def main() -> int:
    """The command; returns its exit code: 1 if a page did not answer."""
    argparse.ArgumentParser(prog="python -m helpers.collection.site.elsewhere", description=__doc__.splitlines()[0]).parse_args()

    def program() -> int:
        asked, found = references.addresses(), 0
        for line in silent(asked):
            print(line, flush=True)
            found += 1
        print(f"{len(asked)} pages asked, {found} did not answer")
        return int(found > 0)

    return cli.finish(program, references.BadReference, claims.ClaimError, stopped="nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
