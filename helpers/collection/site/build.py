"""From the repository to ``site/``: the sources made, Sphinx over them, its pages checked, the old site replaced."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from helpers import paths
from helpers.collection.site import built, stage

SITE = paths.REPOSITORY / "site"
WORK = paths.REPOSITORY / "build" / "site"
STRICT = ("--quiet", "--fail-on-warning", "--keep-going", "--jobs=auto")


def build(python: Path, site: Path = SITE, work: Path = WORK, *, unfinished: bool = False) -> str:
    """Build the site with the Sphinx of the interpreter ``python`` and put it into ``site``; returns what was checked.

    ``work`` keeps what Sphinx has read. Raises the errors of :func:`~helpers.collection.site.stage.stage`, and
    :class:`~helpers.collection.site.built.SiteError` if Sphinx warns or a page is not what it should be; then the old site
    stays.
    """
    stage.stage(work / "source", unfinished=unfinished)
    shutil.rmtree(work / "html", ignore_errors=True)  # a page that is gone would stay
    where = ["-d", str(work / "read"), str(work / "source"), str(work / "html")]
    ran = subprocess.run([str(python), "-m", "sphinx", *STRICT, *where], capture_output=True, text=True)
    if ran.returncode:
        said = (ran.stderr or ran.stdout).replace(f"{work / 'source'}/", "")
        raise built.SiteError(f"Sphinx does not take the pages as they are:\n{said.strip()}")
    checked = built.check(work / "html")
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(work / "html", site)
    return checked
