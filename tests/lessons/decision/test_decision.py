"""The rules with points, what follows from them, and that the pictures and the widget say the same."""

import dataclasses
import re
import tomllib
from collections import Counter
from xml.etree import ElementTree

import pytest

from helpers.lessons.decision import figures, recommend, rules
from helpers.paths import REPOSITORY

DATA = rules.load()
EVERY = list(rules.combinations(DATA))
SERVER = {
    "device": "nvidia", "users": "hundreds", "memory": "fits", "internals": "no", "structured": "no",
    "prefixes": "no", "place": "server", "operator": "team", "nvidia_only": "yes",
}  # fmt: skip
LAPTOP = SERVER | {"device": "none", "users": "one", "memory": "quantized", "place": "laptop", "operator": "me"}
PICTURES = ["framework_decision.svg", "source_flowchart.svg"]


@pytest.fixture(scope="module")
def table() -> dict:
    """What :func:`rules.ranking` says to every combination of answers."""
    return {tuple(answers.values()): rules.ranking(DATA, answers) for answers in EVERY}


@pytest.fixture
def remembered(table, monkeypatch):
    """``ranking`` looks its answers up: a search for changes asks the same thousands of times."""
    look_up(table, monkeypatch)


def look_up(table: dict, patch: pytest.MonkeyPatch) -> None:
    keys = [question["key"] for question in DATA["questions"]]
    patch.setattr(rules, "ranking", lambda _, answers: table[tuple(answers[key] for key in keys)])


@pytest.fixture(scope="module")
def decided(table) -> list[dict]:
    """What :func:`rules.decide` says to every combination of answers, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        look_up(table, patch)
        return [rules.decide(DATA, answers) for answers in EVERY]


def first(ranked: dict) -> str:
    return next(iter(ranked))


# --- the rules ------------------------------------------------------------------------------------


def claims() -> dict[str, dict]:
    """notebooks/claims.toml by id."""
    tables = tomllib.loads((REPOSITORY / "notebooks" / "claims.toml").read_text())
    (rows,) = [value for value in tables.values() if isinstance(value, list)]
    return {row["id"]: row for row in rows}


def test_every_reason_rests_on_claims_that_are_settled():
    """No rule and no step of the picture cites a claim that does not exist or could not be checked."""
    settled = {name for name, row in claims().items() if row["verdict"] != "cannot be checked"}
    cited = {claim for part in ("rules", "picture") for rule in DATA[part] for claim in rule["claims"]}

    assert sorted(cited - settled) == []


def test_the_verdicts_on_the_documents_flowchart_are_those_of_the_claims():
    """Each exit's claim, and the one on the whole."""
    drawn = {step["claim"]: step["verdict"] for step in DATA["document"] + DATA["document_whole"]}

    assert drawn == {name: claims()[name]["verdict"] for name in drawn}


def _broken(change) -> str:
    data = tomllib.loads(rules.RULES.read_text())
    change(data["rules"][0])
    with pytest.raises(rules.RulesError) as caught:
        rules.check(data, "rules.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rule: rule.update(becuase=rule.pop("because")),
            "rules.toml: rule 1 names 'becuase', which is not a field of a rule with excludes: "
            "choose from when, for, excludes, because, claims",
        ),
        (
            lambda rule: rule.pop("claims"),
            "rules.toml: rule 1 lacks claims: a rule with excludes has when, for, excludes, because, claims",
        ),
        (lambda rule: rule.update(points=3), "rules.toml: rule 1 has points and excludes: give it one of points, excludes, note"),
        (lambda rule: rule.pop("excludes"), "rules.toml: rule 1 has no effect: give it one of points, excludes, note"),
        (
            lambda rule: rule.update(when={"device": ["gpu"]}),
            "rules.toml: rule 1 names 'gpu', which is not an answer to device: choose from none, apple, nvidia, nvidias, amd",
        ),
        (
            lambda rule: rule.update({"for": ["tgi"]}),
            "rules.toml: rule 1 names 'tgi', which is not a framework: "
            "choose from llama-cpp, transformers, vllm, sglang, tensorrt-llm",
        ),
        (
            lambda rule: rule.update(claims=["C148"]),
            "rules.toml: rule 1 rests on the claim 'C148': name at least one of C001 to C147",
        ),
        (lambda rule: rule.update(claims=[]), "rules.toml: rule 1 rests on the claim '': name at least one of C001 to C147"),
    ],
    ids=["misspelt field", "no claims", "two effects", "no effect", "unknown answer", "unknown framework", "no claim", "empty"],
)
def test_a_broken_rule_is_refused(change, message):
    """The rule, what is wrong with it, and what is allowed there."""

    assert _broken(change) == message


# --- what follows from them -----------------------------------------------------------------------


def test_every_framework_is_the_answer_to_something(table):
    """None is there only to lose."""

    assert {first(ranked) for ranked in table.values()} == set(DATA["frameworks"])


def test_every_question_counts_except_structured_output(table):
    """Four of the five hold answers to a schema (C082): only the document's flowchart turns on that."""
    keys = [question["key"] for question in DATA["questions"]]

    def counts(at: int) -> bool:
        groups = {}
        for answers, ranked in table.items():
            groups.setdefault(answers[:at] + answers[at + 1 :], set()).add(first(ranked))
        return any(len(group) > 1 for group in groups.values())

    assert [key for at, key in enumerate(keys) if not counts(at)] == ["structured"]


def test_every_combination_of_answers_gives_an_answer_and_what_would_change_it(decided):
    """Two sentences each; the runner-up always has a way to win; nothing excluded is named."""
    wrong = []
    for answers, found in zip(EVERY, decided, strict=True):
        told = rules.summary(DATA, found)
        named = {found["framework"], found["runner_up"]}
        if not (found["changes"] and found["reasons"][found["framework"]] and len(named) == len(told) == 2):
            wrong.append(answers)
        elif named & set(found["excluded"]):
            wrong.append(answers)

    assert wrong == []


def test_the_changes_that_are_told_do_change_the_answer(remembered):
    """With each of them the runner-up is the one to take; no smaller change does it."""
    for answers in EVERY[::71]:
        found = rules.decide(DATA, answers)
        (size,) = {len(way) for way in found["changes"]}
        smaller = [way for less in range(1, size) for way in rules.others(DATA["questions"], answers, less)]
        taken = {first(rules.ranking(DATA, answers | way)) for way in found["changes"]}

        assert taken == {found["runner_up"]}
        assert found["runner_up"] not in {first(rules.ranking(DATA, answers | way)) for way in smaller}


@pytest.mark.parametrize(
    ("answers", "framework", "runner_up"),
    [
        (LAPTOP, "llama-cpp", "transformers"),
        (SERVER, "vllm", "sglang"),
        (SERVER | {"structured": "yes"}, "vllm", "sglang"),
        (SERVER | {"prefixes": "branching"}, "sglang", "vllm"),
        (SERVER | {"nvidia_only": "measure"}, "tensorrt-llm", "vllm"),
        (SERVER | {"internals": "train"}, "transformers", "vllm"),
        (SERVER | {"memory": "too_large"}, "llama-cpp", "vllm"),
        (SERVER | {"device": "none"}, "vllm", "llama-cpp"),
        (SERVER | {"device": "apple"}, "llama-cpp", "transformers"),
        (SERVER | {"device": "amd"}, "vllm", "sglang"),
    ],
    ids=["laptop", "server", "schema", "branching", "NVIDIA", "training", "too large", "CPU server", "Apple", "AMD"],
)
def test_recommendations(answers, framework, runner_up):
    """One of each kind."""
    found = recommend.recommend(**answers)

    assert (found.framework, found.runner_up) == (framework, runner_up)


def test_an_answer_explains_itself():
    """Two sentences, then each rule that counted with its points and claims."""
    said = str(recommend.recommend(**SERVER)).splitlines()

    assert said[0].count(". ") == 1 and said[0].endswith(".")
    assert [line for line in said if line and not line.startswith("  ")][1:] == ["Take vLLM", "Runner-up: SGLang"]
    assert all(re.search(r"\. \+\d+ \(C\d{3}(, C\d{3})*\)$", line) for line in said if line.startswith("  "))


def test_an_answer_cannot_be_changed():
    """It is frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        recommend.recommend(**SERVER).framework = "vllm"


def test_a_framework_asked_for_by_name_is_held_against_the_answer():
    """It is the runner-up, with what would have to be different."""
    found = recommend.recommend(wanted="transformers", **SERVER)

    assert (found.framework, found.runner_up) == ("vllm", "transformers")
    assert list(found.changes) == [{"internals": "research"}, {"internals": "train"}]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            LAPTOP | {"wanted": "tensorrt-llm"},
            "TensorRT-LLM and device='none' contradict each other: it runs on NVIDIA GPUs only; "
            "answer device with 'nvidia' or 'nvidias', or leave wanted out",
        ),
        (
            LAPTOP | {"wanted": "tensorrt-llm", "nvidia_only": "no"},
            "TensorRT-LLM and device='none' and nvidia_only='no' contradict each other: "
            "it runs on NVIDIA GPUs only and would bind you to NVIDIA; "
            "answer device with 'nvidia' or 'nvidias' and answer nvidia_only with 'yes' or 'measure', or leave wanted out",
        ),
        (
            {key: value for key, value in SERVER.items() if key != "users"},
            "users is not answered (How many users ask at the same time?): give users= one of 'one', 'tens', 'hundreds'",
        ),
        (SERVER | {"devise": "none"}, "no question is called 'devise': did you mean 'device'?"),
        (
            SERVER | {"budget": "none"},
            "no question is called 'budget': the questions are "
            "device, users, memory, internals, structured, prefixes, place, operator, nvidia_only",
        ),
        (
            SERVER | {"structured": True},
            "structured=True is no answer to 'Must answers obey a schema (JSON, function calls)?': choose one of 'no', 'yes'",
        ),
        (
            SERVER | {"wanted": "tgi"},
            "wanted='tgi' is none of the frameworks: choose one of llama-cpp, transformers, vllm, sglang, tensorrt-llm",
        ),
    ],
    ids=["no GPU", "no GPU and no NVIDIA", "missing", "misspelt", "unknown question", "unknown answer", "unknown framework"],
)
def test_answers_without_an_answer(answers, message):
    """The answer, the reason and the way out, in one line."""
    with pytest.raises(recommend.DecisionError) as caught:
        recommend.recommend(**answers)

    assert str(caught.value) == message


# --- the widget -----------------------------------------------------------------------------------


def test_the_widget_says_what_recommend_says():
    """It names what is not answered yet, and then gives the two sentences."""
    *boxes, shown = recommend.widget().children
    before = shown.value
    for box, value in zip(boxes, SERVER.values()):
        box.value = value

    assert before.startswith("<p>Still to answer: What does it run on? How many users")
    assert shown.value.startswith(f"<p>{' '.join(recommend.recommend(**SERVER).summary)}</p>")


# --- the files ------------------------------------------------------------------------------------


def test_the_committed_files_follow_from_the_rules(tmp_path):
    """Written again they are the same, byte by byte: else run `python -m helpers.lessons.decision.recommend figures`."""
    made = figures.write(tmp_path)

    assert [path.name for path in made if path.read_bytes() != (figures.VIS / path.name).read_bytes()] == []


def test_the_picture_says_what_the_rules_say_nine_times_in_ten(table):
    """The share that stands in it, and that each of its steps is right more often than not."""
    equal, of = figures.agreement(DATA)
    right, all_ = Counter(), Counter()
    for answers in EVERY:
        step = next(i for i, step in enumerate(DATA["picture"]) if figures.fits(step, answers))
        all_[step] += 1
        right[step] += DATA["picture"][step]["take"] == first(table[tuple(answers.values())])

    assert equal / of > 0.9
    assert (right[0], len(all_)) == (all_[0], len(DATA["picture"]))
    assert min(right[step] / all_[step] for step in all_) > 0.75


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_title_and_description(name):
    """Named by the root element, the first things in it, and long enough to stand for the picture."""
    root = ElementTree.parse(figures.VIS / name).getroot()
    title, desc = root[0], root[1]

    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert (title.tag[-5:], desc.tag[-4:], len(title.text) > 20, len(desc.text) > 300) == ("title", "desc", True, True)


@pytest.mark.parametrize("name", PICTURES)
def test_a_pictures_text_has_contrast(name):
    """Every colour of text has 4.5 to 1 (WCAG AA) on both grounds that are drawn."""
    root = ElementTree.parse(figures.VIS / name).getroot()
    inks = {node.get("fill") for node in root.iter() if node.tag.endswith("}text")}

    assert [(ink, ground) for ink in inks for ground in ("#ffffff", "#f3f3f0") if contrast(ink, ground) < 4.5] == []


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours ``#rrggbb``, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
