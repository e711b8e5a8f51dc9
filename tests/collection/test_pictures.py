"""The picture of notebook 15: every paper stands in its year and its topic, filled where a notebook measures it."""

from helpers.collection import pictures
from helpers.collection.references import Paper


def paper(topic: str, name: str, year: int, notebook: str | None = None) -> Paper:
    return Paper(topic, name, name, "A. Author", year, "https://example.org/x", "It says.", notebook)


def test_papers_stand_in_year_and_topic():
    """Two of one year and topic stand below each other; a year without a paper takes no room; hollow is measured nowhere."""
    found = [paper("A", "one", 2009, "01"), paper("B", "two", 2022), paper("B", "three", 2022, "02"), paper("A", "four", 2022)]
    figure = pictures.papers(found, title="Two are seen")
    (axes,) = figure.axes
    filled = [line.get_markerfacecolor() != "white" for line in axes.lines]

    assert [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines] == [(0, 0), (1, 1), (1, 2), (1, 0)]
    assert filled == [True, False, True, False]
    assert [text.get_text() for text in axes.texts] == ["one · 01", "two", "three · 02", "four"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2009", "2022"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A", "B"]
    assert figure.get_suptitle() == "Two are seen"
