"""The skill bank: its file, what a task is shown of it, and the categories of tasks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill1.encoder import HashEncoder
from skill1.methods.skillrl.bank import BankError, Mistake, Principle, SkillBank, load_bank, parse_bank
from skill1.methods.skillrl.categories import category_of, known_categories, sections_of
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.retrieval import FrozenBank

ALFWORLD = known_categories("alfworld")
TEMPLATE, EMBEDDING = SkillRLConfig(retrieval="template"), SkillRLConfig()
HOT = "put a hot mug in shelf."


def principle(identity: str, text: str = "look", category: str | None = None) -> Principle:
    return Principle(identity, f"title of {identity}", text, category=category)


def tree() -> dict:
    """The shape of the published files, with keys of our own."""
    return {
        "general_skills": [
            {"skill_id": "gen_001", "title": "Search", "principle": "Open what is closed", "when_to_apply": "always"},
            {"skill_id": "gen_002", "title": "Go on", "principle": "Never look twice", "rating": 3},
        ],
        "task_specific_skills": {
            "heat": [
                {"skill_id": "hea_001", "title": "Heat", "principle": "Use the microwave", "when_to_apply": "hot"}
            ],
            "examine": [{"skill_id": "exa_001", "title": "Lamp", "principle": "Switch it on", "when_to_apply": ""}],
        },
        "common_mistakes": [
            {"mistake_id": "err_001", "description": "leaving", "why_it_happens": "haste", "how_to_avoid": "take it"}
        ],
        "metadata": {"source": "tests", "total_memories_analyzed": 3},
    }


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_published_shape_is_read_and_written_back(tmp_path):
    path = tmp_path / "bank.json"
    path.write_text(json.dumps(tree()))
    bank = load_bank(path, ALFWORLD)
    assert len(bank) == 5 and [e.id for e in bank.principles] == ["gen_001", "gen_002", "hea_001", "exa_001"]
    assert bank.general[1].when == "" and bank.general[1].extra == {"rating": 3}  # kept; a missing key is empty
    assert bank.specific[0].category == "heat" and bank.mistakes[0].avoid == "take it"
    expected = tree()
    expected["general_skills"][1]["when_to_apply"] = ""
    assert bank.to_json() == expected
    path.write_text(bank.to_text())
    assert load_bank(path, ALFWORLD) == bank


def broken(change) -> dict:
    found = tree()
    change(found)
    return found


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t["general_skills"][0].pop("title"), "general_skills[0] has title = None: it needs a text"),
        (lambda t: t["general_skills"][1].update(principle=" "), "general_skills[1] has principle = ' '"),
        (lambda t: t["general_skills"].append("search"), "general_skills[2] is 'search', not an object"),
        (lambda t: t["general_skills"][1].update(skill_id="gen_001"), "the id 'gen_001' is there twice"),
        (lambda t: t["common_mistakes"][0].update(mistake_id="hea_001"), "the id 'hea_001' is there twice"),
        (lambda t: t["common_mistakes"][0].pop("how_to_avoid"), "common_mistakes[0] has how_to_avoid = None"),
        (lambda t: t["task_specific_skills"].update(heatt=[]), "unknown category 'heatt'; did you mean 'heat'?"),
        (lambda t: t.update(task_specific_skills=[]), "task_specific_skills must be an object"),
        (lambda t: t.update(general_skills={}), "general_skills must be a list"),
    ],
)
def test_a_malformed_bank_names_the_entry(tmp_path, change, message):
    path = tmp_path / "bank.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(BankError) as error:
        load_bank(path, ALFWORLD)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


@pytest.mark.parametrize(
    "text, message", [("{", "not a readable JSON file"), ("[]", "no bank: expected an object"), ("{}", "no bank")]
)
def test_what_is_no_bank_is_refused(tmp_path, text, message):
    path = tmp_path / "bank.json"
    path.write_text(text)
    with pytest.raises(BankError, match=message):
        load_bank(path, ALFWORLD)
    with pytest.raises(BankError, match="does not exist: name a bank file"):
        load_bank(tmp_path / "none.json", ALFWORLD)


def test_adding_keeps_the_old_bank_and_gives_no_id_twice():
    bank = parse_bank(tree(), ALFWORLD)
    grown = bank.add([principle("dyn_002", category="heat"), principle("dyn_001")])
    assert len(bank) == 5 and len(grown) == 7 and (bank.next_evolved, grown.next_evolved) == (1, 3)
    assert grown.general[-1].id == "dyn_001" and grown.of(["heat"])[-1].id == "dyn_002"
    with pytest.raises(BankError, match="already holds dyn_001"):
        grown.add([principle("dyn_001")])
    assert parse_bank(grown.to_json(), ALFWORLD).next_evolved == 3  # also after a file


@given(count=st.integers(0, 9), more=st.integers(0, 9))
def test_evolved_ids_continue_from_the_banks_own(count, more):
    bank = SkillBank()
    for _ in range(count + more):
        bank = bank.add([principle(f"dyn_{bank.next_evolved:03d}")])
    assert [e.id for e in bank.general] == [f"dyn_{i:03d}" for i in range(1, count + more + 1)]


# -- categories -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence, category",
    [
        ("put a mug in shelf.", "pick_and_place"),
        ("put some mug on shelf.", "pick_and_place"),
        ("put two mug in shelf.", "pick_and_place"),
        ("find two mug and put them in shelf.", "pick_and_place"),
        ("put a clean mug in shelf.", "clean"),
        ("clean some mug and put it in shelf.", "clean"),
        (HOT, "heat"),  # the released keyword rules see no "heat" in it
        ("heat some mug and put it in shelf.", "heat"),
        ("put a cool mug in shelf.", "cool"),
        ("cool some mug and put it in shelf.", "cool"),
        ("look at mug under the desklamp.", "look_at_obj_in_light"),
        ("examine the mug with the desklamp.", "look_at_obj_in_light"),
    ],
)
def test_every_kind_of_household_task_has_its_category(sentence, category):
    assert category_of("alfworld", sentence) == category
    assert category in ALFWORLD


def test_a_sentence_of_no_grammar_is_refused():
    with pytest.raises(ValueError, match="not a task sentence"):
        category_of("alfworld", "dance in the kitchen")


@pytest.mark.parametrize(
    "sentence, category",
    [
        ("i am looking for a pair of black shoes with rubber soles", "footwear"),
        ("find me women's dresses with long sleeve, and price lower than 40.00 dollars", "apparel"),
        ("i need a night stand table lamp for the bedroom", "home_decor"),
        ("i want a usb charger cable for my phone", "electronics"),
        ("i would like two watches with a leather band", "accessories"),
        ("i need a shampoo for dry hair", "beauty_health"),
        ("i want a pack of gluten free crackers", "other"),
    ],
)
def test_a_wish_has_the_category_of_its_words(sentence, category):
    assert category_of("webshop", sentence) == category and category in known_categories("webshop")


def test_both_wordings_of_light_are_shown_both_sections():
    assert sections_of("look_at_obj_in_light") == ("look_at_obj_in_light", "examine")
    assert sections_of("heat") == ("heat",)
    assert {name for c in ALFWORLD for name in sections_of(c)} == set(ALFWORLD)  # no section is lost
    with pytest.raises(ValueError, match="did you mean 'webshop'"):
        known_categories("webshp")


# -- what a task is shown ---------------------------------------------------------------------------------------------


def frozen(config: SkillRLConfig, bank: SkillBank) -> FrozenBank:
    return FrozenBank(config, "alfworld", HashEncoder(), bank)


def grown(evolved: int, static: int = 8) -> SkillBank:
    entries = [principle(f"gen_{i:03d}") for i in range(static)]
    return SkillBank(tuple(entries) + tuple(principle(f"dyn_{i:03d}") for i in range(evolved)))


@pytest.mark.parametrize(
    "evolved, own, shared",
    [
        (0, "g0 g1 g2 g3 g4 g5", "g0 g1 g2 g3 g4 g5"),
        (3, "g0 g1 g2 g3 g4 g5 d0 d1 d2", "d0 d1 d2 g0 g1 g2"),
        (7, "g0 g1 g2 g3 g4 g5 d1 d2 d3 d4 d5 d6", "d0 d1 d2 d3 d4 d5 d6"),
    ],
)
def test_evolved_principles_hide_no_others(evolved, own, shared):
    for budget, expected in (("own", own), ("shared", shared)):
        [shown] = frozen(replace(TEMPLATE, general_budget=budget), grown(evolved)).retrieve([HOT])
        assert " ".join(f"{e.id[0]}{int(e.id[4:])}" for e in shown.general) == expected


def test_the_template_shows_all_of_a_category_and_nothing_of_others():
    bank = parse_bank(tree(), ALFWORLD)
    hot, lit, cold = frozen(TEMPLATE, bank).retrieve(
        [HOT, "look at mug under the desklamp.", "put a cool mug in shelf."]
    )
    assert [e.id for e in hot.specific] == ["hea_001"] and [e.id for e in lit.specific] == ["exa_001"]
    assert cold.specific == () and [e.id for e in cold.general] == ["gen_001", "gen_002"]
    assert [c.skill for c in hot.candidates] == ["gen_001", "gen_002", "hea_001", "err_001"]
    many = replace(bank, mistakes=tuple(Mistake(f"err_{i}", "x", "y") for i in range(9)))
    assert [m.id for m in frozen(TEMPLATE, many).retrieve([HOT])[0].mistakes] == [f"err_{i}" for i in range(5)]


def test_the_embedding_shows_the_nearest_of_any_category_above_the_floor():
    bank = SkillBank(
        general=(principle("gen_001", "shelf"), principle("gen_002", HOT), principle("dyn_001", HOT)),
        specific=(
            Principle("a", "put", "a hot mug in", category="heat"),  # 5 of the 6 words of the task
            Principle("b", "put", "a hot mug in shelf", category="clean"),  # all 6
            Principle("c", "wash", "sink", category="heat"),  # none
        ),
    )
    [shown] = frozen(EMBEDDING, bank).retrieve([HOT])
    assert [e.id for e in shown.specific] == ["b", "a"]
    assert [e.id for e in shown.general] == ["gen_002", "gen_001", "dyn_001"]  # general ones have no floor
    cosines = {c.skill: c.similarity for c in shown.candidates}
    assert cosines["b"] == pytest.approx(1.0) and cosines["a"] == pytest.approx((5 / 6) ** 0.5)
    assert all(c.utility == 0.0 for c in shown.candidates)
    [few] = frozen(replace(EMBEDDING, specific_top_k=1, top_k=1), bank).retrieve([HOT])
    assert [c.skill for c in few.candidates] == ["gen_002", "dyn_001", "b"]  # a budget each
    [high] = frozen(replace(EMBEDDING, similarity_floor=0.95), bank).retrieve([HOT])
    assert [e.id for e in high.specific] == ["b"]
    assert frozen(EMBEDDING, SkillBank()).retrieve([HOT])[0].candidates == ()
