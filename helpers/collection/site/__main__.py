"""The two halves of ``nox -s site`` that need the lab: before Sphinx ``stage``, after it ``check``."""

from __future__ import annotations

import argparse
import sys

from helpers import cli, records
from helpers.collection import claims, references
from helpers.collection.site import built, curves, pages, published, stage


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.site", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("stage", "check"))
    parser.add_argument("--unfinished", action="store_true", help="build pages of notebooks that have not run, too")
    asked = parser.parse_args()

    def program() -> None:
        if asked.what == "stage":
            stage.stage(unfinished=asked.unfinished)
        else:
            print(built.check(built.SITE))

    errors = (pages.PageError, records.RecordError, claims.ClaimError, references.BadReference, built.SiteError)
    errors += (published.SchemaError, curves.NoCurves)
    return cli.finish(program, *errors, stopped="run `nox -s site` again: the folder of the site is not complete")


if __name__ == "__main__":
    sys.exit(main())
