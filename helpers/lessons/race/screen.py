"""The race in a notebook: one display, drawn over itself while the answers grow, and at the end the replay."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.lessons.race import picture
from helpers.lessons.race.lanes import Lane


class Screen:
    """A display of its own; ``options`` are those of :func:`helpers.lessons.race.picture.svg`."""

    def __init__(self, **options):
        self.options, self.handle = options, None

    def draw(self, lanes: Sequence[Lane], moving: bool = False) -> None:
        """Show ``lanes`` in place of what is shown: what has come so far, or the replay."""
        from IPython.display import display

        told = "\n".join([self.options["title"], *picture.words(lanes, self.options.get("gpu"))])
        shown = {"text/html": picture.svg(lanes, moving=moving, **self.options), "text/plain": told}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)
