"""Compact prompts of WebShop for the nano policy: a term or a value is one token, no prose. Ours, not the paper's.

    query    men's_shirts slim_fit long_sleeve
    rerank   2
    act      search men's_shirts slim_fit ...   open 3   choose navy_blue   buy   prev   back   next   features
    distill  men's_shirts slim_fit long_sleeve | ~ber +den

A skill says for which wish which brand was the right one: the one thing that a search for the wish's words does not
tell, since look-alikes share words, and titles leave attributes out. The library keeps it in plain words ("men's shirts
slim fit long sleeve : berden"), which is what queries are compared with; a prompt shows it as tokens, and what is about
the very wish of the task as "this : ~ber +den".

The task stands near the end and before the skill, and what the skill is about before what it says, as in `compact`.

Differs from the paper in: no reasoning text; the prompts, not the policy, compare: a product is listed with the words
of the *task* that its title has and with whether it is within the price ("ok" or "dear"); of a product's values only
the wanted ones are shown; products are opened by their number on the page, not by their id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from skill1.envs.base import Observation
from skill1.envs.webshop.goods import STOCK
from skill1.envs.webshop.pages import BACK, BUY, NEXT, PER_PAGE, PREVIOUS, SUB_PAGES
from skill1.nano.prompts import WRITE, CompactBase, Fact, Trajectory
from skill1.nano.webshop.reading import TERMS, Item, read_page, read_wish, spoken, token, tokens
from skill1.prompts.base import ActContext, Parsed

_MARKS = (
    "<query>", "<rerank>", "<act>", "<distill>", "<hist>", "<step>", "<obs>", "<left>", "<chosen>", "<missing>",
    "<want>", "<skill>", "<cand>", "<traj>", "<ref>", "<task>", WRITE, ":", ";", ">", "|", "none", "success", "failure",
    "index", "results", "item", "sub", "ok", "dear", "seen", "search", "open", "choose", "this",
)  # fmt: skip
_CLICKS = {
    "buy": BUY, "back": BACK, "prev": PREVIOUS, "next": NEXT, **{name.lower(): name for name in SUB_PAGES},
}  # fmt: skip
_PLAIN = {name.lower(): word for word, name in _CLICKS.items()}
_BUTTONS = frozenset(f"click[{name}]" for name in _PLAIN)
_MOST = 50  # highest number there is a token for


class CompactShopPrompts(CompactBase):
    """Prompts and parsers over the compact text."""

    subtasks = ("search", "open", "choose", "buy")

    def vocabulary(self) -> list[str]:
        """See `CompactBase.vocabulary`."""
        brands = [mark + syllable for mark in "~+" for syllable in STOCK.syllables]
        return list(dict.fromkeys([*_MARKS, *_CLICKS, *map(str, range(_MOST + 1)), *brands, *map(token, TERMS)]))

    def _words(self, start: Observation) -> str:
        return " ".join(read_wish(start.instruction).terms)

    def _scene(self, context: ActContext, past: str) -> str:
        start = context.start
        now = _observation(context.observation.text, start)
        return f"<step> {context.steps} <hist> {past} <obs> {now} {self._task(start)} {self._want(start)}"

    def _past(self, text: str, start: Observation) -> str:
        return read_page(text, start.instruction).kind

    def _answer(self, action: str, text: str, start: Observation, *, named: bool = False) -> str:
        """`named`: opened products by their brand instead of their number on the page."""
        name, _, argument = action.removesuffix("]").partition("[")
        if name == "search":
            return f"search {tokens(argument) or 'none'}"
        if action in _BUTTONS:
            return _PLAIN[argument]
        page = read_page(text, start.instruction)
        if page.kind != "results":
            return f"choose {token(argument)}"
        if argument not in page.ids:
            return "open none"
        number = page.ids.index(argument)
        return f"open {page.items[number].brand if named else number + 1}"

    def _skill(self, text: str, start: Observation) -> str:
        """What is about this very wish says so."""
        return re.sub(rf"(^|; ){re.escape(self._words(start))} : ", r"\1this : ", tokens(text))

    def _kept(self, text: str, start: Observation) -> str:
        return spoken(re.sub(r"(^|\s)this(?=\s|$)", lambda found: found[1] + self._words(start), text))

    def _strategy(self, about: str, lesson: str) -> str:
        """A lesson says which brand was right; what for is put before it."""
        return f"{about} : {lesson}"

    def _asked(self, start: Observation) -> str:
        # whether all values that were wanted were chosen is one of the subtasks
        return f"<left> {' ; '.join(self.subtasks)} {self._want(start)}"

    @staticmethod
    def _want(start: Observation) -> str:
        return f"<want> {' '.join(read_wish(start.instruction).options) or 'none'}"

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        match text.split():
            case ["search", first, *more]:
                return Parsed(f"search[{spoken(' '.join([first, *more]))}]", True)
            case ["open", number] if number.isdecimal() and 1 <= int(number) <= PER_PAGE:
                products = [action for action in admissible if action.startswith("click[") and action not in _BUTTONS]
                listed = int(number) <= len(products) and f"click[{NEXT.lower()}]" in admissible
                return Parsed(products[int(number) - 1] if listed else f"click[product {number}]", True)
            case ["choose", value]:
                return Parsed(f"click[{spoken(value)}]", True)
            case [word] if word in _CLICKS:
                return Parsed(f"click[{_CLICKS[word].lower()}]", True)
        return Parsed(text.strip(), False)

    def fact(self, start: Observation, found: str) -> Fact:
        return fact_of(start.instruction, found)

    def write_query(self, fact: Fact) -> str:
        return fact.about

    def write_lesson(self, fact: Fact) -> str:
        return f"{fact.about} | {fact.found}"

    def write_skill(self, fact: Fact) -> str:
        return self._strategy(spoken(fact.about), spoken(fact.found))

    write_principle = write_skill

    def _progress(self, start: Observation, won: bool, trajectory: Trajectory) -> tuple[Mapping[str, bool], str]:
        """What the commands did, and which brand was right: no word says what not to buy."""
        words = [self._answer(action, text, start, named=True).split() for text, action in trajectory]
        opened = [i for i, w in enumerate(words) if w[0] == "open" and w[1:] != ["none"]]
        chosen = {w[1] for w in words[opened[-1] :] if w[0] == "choose"} if opened else set()
        wanted = set(read_wish(start.instruction).options)
        done = {"search": any(w[0] == "search" for w in words), "open": bool(opened)}
        if wanted:
            done["choose"] = won or (bool(opened) and wanted <= chosen)
        done["buy"] = won
        return done, " ".join(words[opened[-1]][1:]) if won else ""


def fact_of(instruction: str, found: str) -> Fact:
    """Return that the brand `found` was right for what the instruction asks for."""
    return Fact(" ".join(read_wish(instruction).terms), found)


def _observation(text: str, start: Observation) -> str:
    page = read_page(text, start.instruction)
    match page.kind:
        case "results":
            listed = (f"{number} {_item(item)}" for number, item in enumerate(page.items, start=1))
            return f"results {' ; '.join(listed) or 'none'}"
        case "item":
            return (
                f"item {_item(page.items[0])} <left> {' '.join(page.offered) or 'none'} "
                f"<chosen> {' '.join(page.chosen) or 'none'} <missing> {' '.join(page.missing) or 'none'}"
            )
        case "sub":
            return f"sub {' '.join(page.terms) or 'none'}"
    return page.kind


def _item(item: Item) -> str:
    return " ".join([*item.terms, "ok" if item.cheap else "dear", *(["seen"] if item.seen else [])])
