"""Who cannot see a page, or not well: what axe finds in it."""

from collections.abc import Sequence


def faults(page, only: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """The rules that an open ``page`` of Playwright breaks, each with the first three places.

    ``only`` names the rules that are asked; none: all. What keeps a rule is counted by axe and not written out, which
    would take longer than to look for it.
    """
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]} | ({"runOnly": list(only)} if only else {})
    found = Axe().run(page, options=options).response["violations"]
    return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
