"""A check is worth something if it can fail: each claim's check is run again in a world where the verdict is false."""

import ast
import asyncio
import contextlib
import io

import stand_ins
from offenders import over

from helpers.collection import claims

COMPARED = {claim.id: claim for claim in claims.load() if claim.shown not in (None, "printed")}


def printed(source: str, values: dict[str, object], before: str = "") -> str:
    """What the cell ``source`` prints if it meets ``values``, after the statement ``before`` has changed them."""
    exec(before, values)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        waiting = eval(compile(source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), values)
        if waiting is not None:
            asyncio.run(waiting)
    return told.getvalue()


def weakness(source: str, committed: str, values, contradiction: str) -> str | None:
    """Why the check ``source`` is none: it does not print what is ``committed``, or no False where it is contradicted."""
    if (agreed := printed(source, values())) != committed:
        return f"with the stand-ins it prints {agreed!r}, and {committed!r} is on the page"
    if "False" not in (said := printed(source, values(), contradiction)):
        return f"it prints {said!r} also after {contradiction!r}: it cannot fail"
    return None


def test_every_claim_that_ran_is_contradicted():
    """No row with a compared cell is left out, and there are at least 90."""

    assert sorted(stand_ins.WORLDS) == sorted(COMPARED)
    assert len(COMPARED) >= 90


@over(lambda: {id: {"claim": claim} for id, claim in COMPARED.items()}, "claim")
def test_the_check_fails_if_the_verdict_is_false(claim):
    """It prints what is committed with the values of the page, and a False once a value contradicts the verdict."""
    values, contradiction = stand_ins.WORLDS[claim.id]
    shows = claims.cell(claim)

    assert weakness(shows.source, claims.output(shows), values, contradiction) is None


def test_a_check_that_cannot_fail_is_found():
    """A condition that holds whatever the value is, and stand-ins that are not those of the page."""
    values = lambda: {"rate": 5}  # noqa: E731

    assert weakness("print(rate > 2)", "True\n", values, "rate = 1") is None
    assert "it cannot fail" in weakness("print(rate > 2 or True)", "True\n", values, "rate = 1")
    assert "it cannot fail" in weakness("print(rate > 2)", "True\n", values, "rates = 1")
    assert "is on the page" in weakness("print(rate > 9)", "True\n", values, "rate = 1")
