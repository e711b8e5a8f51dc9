"""Build the site into ``site/``: what ``nox -s site`` runs in the lab, with the Sphinx of another environment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers import cli, records
from helpers.collection import claims, references
from helpers.collection.site import build, built, curves, pages, published

ERRORS = (
    pages.PageError, published.SchemaError, curves.NoCurves, built.SiteError,
    records.RecordError, claims.ClaimError, references.BadReference,
)  # fmt: skip


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.site", description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path, help="the interpreter that has Sphinx")
    parser.add_argument("--unfinished", action="store_true", help="build pages of notebooks that have not run, too")
    asked = parser.parse_args()

    def program() -> None:
        print(build.build(asked.python, unfinished=asked.unfinished))

    return cli.finish(program, *ERRORS, stopped="the site is as it was")


if __name__ == "__main__":
    sys.exit(main())
