"""Pages and prefixes are drawn as the engine reports them."""

from helpers.pictures import caches

TREE = [
    {"name": "root", "tokens": 300, "cached": 0, "parent": None},
    {"name": "a", "tokens": 350, "cached": 300, "parent": "root"},
    {"name": "b", "tokens": 350, "cached": 120, "parent": "root"},
    {"name": "a, then more", "tokens": 380, "cached": 350, "parent": "a"},
]


def test_pages_stand_on_each_other_under_the_engines_own_line():
    """Two requests: what the second holds begins where the first one's pages end."""
    axes = caches.pages([1, 3, 2], {"long": [1, 1, 2], "short": [0, 2, 0]}, title="filled and freed", notes=["a CPU"]).axes[0]
    long, short = (area.get_paths()[0].get_extents() for area in axes.collections)

    assert (long.y1, short.y1) == (2, 3)
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 3, 2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["long", "short", "in use, says the engine"]


def test_a_branch_begins_where_the_tree_ended():
    """What was found is thin, what was computed begins behind it, and a line leads up to the one before."""
    axes = caches.prefix_tree(TREE, title="810 of 1,380", notes=["a CPU"]).axes[0]
    found, computed = axes.containers

    assert [bar.get_width() for bar in found] == [0, 300, 120, 350]
    assert [(bar.get_x(), bar.get_width()) for bar in computed] == [(0, 300), (300, 50), (120, 230), (350, 30)]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 1], [0, 2], [1, 3]]
    assert [text.get_text() for text in axes.texts][:2] == [
        "300 computed, found again by 2", "50 computed, found again by 1",
    ]  # fmt: skip


def test_a_branch_counts_as_found_only_whole():
    """The third prompt found 120 of the root's 300 tokens; the fourth found the root through its parent."""

    assert [caches.times_found(TREE, one["name"]) for one in TREE] == [2, 1, 0, 0]
