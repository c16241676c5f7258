"""Compact prompts of WebShop for the nano policy: a term or a value is one token, no prose. Ours, not the paper's.

    query    men's_shirts slim_fit long_sleeve
    rerank   2
    act      search men's_shirts slim_fit ...   open 3   choose navy_blue   buy   prev   back   next   features
    distill  men's_shirts slim_fit long_sleeve | ~ber +den

A skill says for which wish which brand was the right one: the one thing that a search for the wish's words does not
tell, since look-alikes share words, and titles leave attributes out. The library keeps it in plain words ("men's shirts
slim fit long sleeve : berden"), which is what queries are compared with; a prompt shows it as tokens.

The task stands near the end and before the skill, and what the skill is about before what it says, as in `compact`.

Differs from the paper in: no reasoning text; the prompts, not the policy, compare: a product is listed with the words
of the *task* that its title has and with whether it is within the price ("ok" or "dear"); of a product's values only
the wanted ones are shown; products are opened by their number on the page, not by their id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skill1.envs.base import Observation
from skill1.envs.webshop.generate import SYLLABLES
from skill1.envs.webshop.pages import BACK, BUY, NEXT, PER_PAGE, PREVIOUS, SUB_PAGES
from skill1.nano.prompts import WRITE, Fact, Trajectory
from skill1.nano.reflection import CompactReflections
from skill1.nano.webshop.reading import TERMS, Item, read_page, read_wish, spoken, token, tokens
from skill1.prompts.base import ActContext, Parsed
from skill1.records import Lesson

_MARKS = (
    "<query>", "<rerank>", "<act>", "<distill>", "<hist>", "<step>", "<obs>", "<left>", "<chosen>", "<missing>",
    "<want>", "<skill>", "<cand>", "<traj>", "<ref>", "<task>", WRITE, ":", ";", ">", "|", "none", "success", "failure",
    "index", "results", "item", "sub", "ok", "dear", "seen", "search", "open", "choose",
)  # fmt: skip
_CLICKS = {
    "buy": BUY, "back": BACK, "prev": PREVIOUS, "next": NEXT, **{name.lower(): name for name in SUB_PAGES},
}  # fmt: skip
_PLAIN = {name.lower(): word for word, name in _CLICKS.items()}
_BUTTONS = frozenset(f"click[{name}]" for name in _PLAIN)
_MOST = 50  # highest number there is a token for


def vocabulary() -> list[str]:
    """All words of compact prompts in generated shops."""
    brands = [mark + syllable for mark in "~+" for syllable in SYLLABLES]
    return list(dict.fromkeys([*_MARKS, *_CLICKS, *map(str, range(_MOST + 1)), *brands, *map(token, TERMS)]))


class CompactShopPrompts(CompactReflections):
    """Prompts and parsers over the compact text."""

    subtasks = ("search", "open", "choose", "buy")

    def act(self, context: ActContext) -> str:
        start = context.start
        past = " ; ".join(
            f"{read_page(text, start.instruction).kind} > {_answer(action, text, start)}"
            for text, action in context.history
        )
        return (
            f"<act> <step> {context.steps} <hist> {past or 'none'} "
            f"<obs> {_observation(context.observation.text, start)} {self._task(start)} "
            f"{self._want(start)} "
            f"<skill> {self._skill(context.skill, start) or 'none'} {WRITE}"
        )

    def _task(self, start: Observation) -> str:
        return f"<task> {_wished(start) or 'none'}"

    def _asked(self, start: Observation) -> str:
        # whether all values that were wanted were chosen is one of the subtasks
        return f"<left> {' ; '.join(self.subtasks)} {self._want(start)}"

    @staticmethod
    def _want(start: Observation) -> str:
        return f"<want> {' '.join(read_wish(start.instruction).options) or 'none'}"

    def _skill(self, text: str, start: Observation) -> str:
        return tokens(text)

    def _actions(self, start: Observation, trajectory: Trajectory) -> str:
        return " ; ".join(_answer(action, text, start, named=True) for text, action in trajectory)

    def parse_query(self, text: str, start: Observation) -> Parsed:
        return Parsed(spoken(text.strip() or _wished(start)), bool(text.strip()))

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

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        words = text.split()
        bar = words.index("|") if words.count("|") == 1 else 0
        about, right = (spoken(" ".join(part)) for part in (words[:bar], words[bar + 1 :]))
        return Lesson(about, f"{about} : {right}") if bar and right else None

    def _strategy(self, words: Sequence[str], start: Observation) -> str:
        """A lesson says which brand was right; what for stands in the task, and is put before it."""
        right = spoken(" ".join(words))
        return f"{spoken(_wished(start))} : {right}" if right else ""

    def raw_lesson(self, start: Observation, trajectory: Trajectory) -> Lesson:
        return Lesson(spoken(_wished(start)), spoken(self._actions(start, trajectory)))

    # -- what the warm start teaches ------------------------------------------------------------------------------

    def fact(self, start: Observation, found: str) -> Fact:
        return fact_of(start.instruction, found)

    def write_query(self, fact: Fact) -> str:
        return fact.about

    def write_lesson(self, fact: Fact) -> str:
        return f"{fact.about} | {fact.found}"

    def write_skill(self, fact: Fact) -> str:
        return f"{spoken(fact.about)} : {spoken(fact.found)}"

    write_principle = write_skill

    def _progress(self, start: Observation, won: bool, trajectory: Trajectory) -> tuple[Mapping[str, bool], str]:
        """What the commands did, and which brand was right: no word says what not to buy."""
        words = [_answer(action, text, start, named=True).split() for text, action in trajectory]
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


def _wished(start: Observation) -> str:
    """The words of the wish, as tokens."""
    return " ".join(read_wish(start.instruction).terms)


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


def _answer(action: str, text: str, start: Observation, named: bool = False) -> str:
    """An environment command, given on the page `text`, as the policy would have written it.

    `named`: opened products by their brand instead of their number on the page.
    """
    name, _, argument = action.removesuffix("]").partition("[")
    if name == "search":
        return f"search {tokens(argument) or 'none'}"
    if action in _BUTTONS:
        return _PLAIN[argument]
    page = read_page(text, start.instruction)
    if page.kind == "results":
        number = page.ids.index(argument) if argument in page.ids else None
        if number is None:
            return "open none"
        return f"open {page.items[number].brand if named else number + 1}"
    return f"choose {token(argument)}"
