"""Figures and tables in words."""

import pandas as pd

from helpers import formatting


def test_an_index_of_several_levels_is_one_bold_cell():
    """Its levels one after the other; an index of one level as it is."""
    several = pd.DataFrame({"ms": [1]}, index=pd.MultiIndex.from_tuples([("vLLM", "turn 1")]))
    assert formatting.markdown(several).splitlines()[-1] == "| **vLLM, turn 1** | 1 |"
    assert formatting.markdown(pd.DataFrame({"ms": [1]}, index=["vLLM"])).splitlines()[-1] == "| **vLLM** | 1 |"
