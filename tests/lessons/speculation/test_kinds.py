"""Kinds of drafts, found in the names that engines give them."""

from helpers.lessons.speculation import kinds


def test_each_engine_names_them_in_its_own_way():
    """Names of four engines; what has no kind of ours is left out."""
    assert kinds.found(["PromptLookupCandidateGenerator", "MTPCandidateGenerator"]) == ["n-gram, prompt lookup", "MTP"]
    assert kinds.found(["AssistedCandidateGenerator", "CandidateGenerator"]) == ["draft model"]
    assert kinds.found(["ngram_gpu", "draft_model", "deepseek_mtp"]) == ["n-gram, prompt lookup", "draft model", "MTP"]
    assert kinds.found(["draft-simple", "draft-eagle3", "ngram-map-k"]) == ["n-gram, prompt lookup", "draft model", "EAGLE-3"]
    assert kinds.found(["STANDALONE", "EAGLE", "UNO"]) == ["draft model"]


def test_what_ran_is_told_from_what_is_listed():
    """A row for each kind, a column for each engine."""
    shown = kinds.table({"one": ["ngram", "eagle3"], "other": []}, {"one": ["n-gram, prompt lookup"]})

    assert list(shown.index) == list(kinds.KINDS)
    assert list(shown.loc[["n-gram, prompt lookup", "EAGLE-3", "MTP"], "one"]) == ["ran here", "in its list", "-"]
    assert set(shown["other"]) == {"-"}
