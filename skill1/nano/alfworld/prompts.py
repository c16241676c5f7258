"""Compact prompts for the nano policy: entity tokens, no prose, 60-100 tokens a call. Ours, not the paper's.

The same four stages and the same information as `full`, worded for a word-level tokenizer: "cabinet 3" is one token
`cabinet_3`, filler words are dropped, and the answer is bare (no tags, no reasoning), ended by the end token.

    query    mug here
    rerank   2
    act      go_to cabinet_3
    distill  mug here | mug here in cabinet_3

Homes have names, which the task says ("put a clean mug in cabinet in the amber house"). The policy reads and writes
"here", the library keeps the name ("mug amber in cabinet_3"), and a prompt shows it as "here" in that home and as
"elsewhere" in any other. Likewise the object type that the task is about is "this": "this here in cabinet_3".

The room list starts at the place after the current one, so that searching on is reading on. The task stands near the
end, where a small model finds it, and before the skills: a skill names object and home before the place, so that
whether both agree with the task is known where the place is read. So does a candidate before its number.

Differs from the paper in: no reasoning text; the prompts, not the policy, recognise homes and the task's object in
skills, which a policy of this size learns badly; the admissible list is shortened to what the task can need: `take` only of the object type the task names, `go to` only the first receptacle of
a type it names (the room list says where else one can go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skill1.envs.alfworld.homes import facts
from skill1.envs.base import Observation
from skill1.methods.skillrl.bank import Mistake
from skill1.nano.alfworld.reading import compact, home, named, pointed, read_request, request_words, room, type_of
from skill1.nano.prompts import WRITE, CompactBase, Fact, Trajectory
from skill1.prompts.base import ActContext, Parsed

MARKS = (
    "<query>", "<rerank>", "<act>", "<distill>", "<room>", "<hist>", "<step>", "<at>", "<hold>", "<obs>", "<can>",
    "<skill>", "<cand>", "<traj>", "<ref>", "<task>", WRITE, ":", ";", ">", ",", "|", "none", "start", "in", "here",
    "elsewhere", "this", "success", "failure",
)  # fmt: skip
_ENGINE_WORDS = (
    "go_to open close take move put use clean heat cool slice examine look inventory help nothing happens closed pick "
    "turn middle room looking quickly around hot cold sliced normal special about not anything two find"
)
_MANY, _FEW = 30, 8  # highest number of an entity: of the receptacle types below, and of any other type
_NUMEROUS = ("cabinet", "drawer", "shelf")
_JOINED = {"take": "from", "move": "to", "clean": "with", "heat": "with", "cool": "with", "slice": "with"}
_SHOWN = ("open", "move", "put", "clean", "heat", "cool", "use")
_TREATMENTS = ("clean", "heat", "cool")


def _onward(places: list[str], here: list[str]) -> list[str]:
    """The room list read from where one stands: the place after the current one comes first, the current one last."""
    after = max((places.index(place) for place in here), default=-1) + 1
    return places[after:] + places[:after]


class CompactPrompts(CompactBase):
    """Prompts and parsers over the compact text."""

    subtasks = ("go_to", "take", "use", "move")  # "use": clean, heat, cool or light

    def vocabulary(self) -> list[str]:
        """See `CompactBase.vocabulary`."""
        known = facts()
        places, things = ({kind.lower() for kind in kinds} for kinds in (known.holds, known.things))
        numbered = {kind: _MANY if kind in _NUMEROUS else _FEW for kind in (*sorted(places), *sorted(things - places))}
        entities = [f"{kind}_{n}" for kind, most in numbered.items() for n in range(1, most + 1)]
        words = [*MARKS, *_ENGINE_WORDS.split(), *compact(_ENGINE_WORDS).split(), *map(str, range(51))]
        return list(dict.fromkeys([*words, *sorted(places), *sorted(things), *entities]))

    def _words(self, start: Observation) -> str:
        return request_words(start)

    def _first_seen(self, start: Observation) -> str:
        return f"<room> {' '.join(room(start))} "

    def _scene(self, context: ActContext, past: str) -> str:
        start, now = context.start, context.observation
        places, wanted = room(start), set(self._words(start).split())
        here: list[str] = []
        held: list[str] = []
        can: list[str] = []
        for command in now.admissible:
            verb, *things = words = compact(command).split()
            kind, _, number = things[0].rpartition("_") if things else ("", "", "")
            if verb == "examine":
                (here if things[0] in places else held).append(things[0])
            elif verb in _SHOWN or (kind in wanted and (verb == "take" or (verb == "go_to" and number == "1"))):
                can.append(" ".join(words))
        return (
            f"<room> {' '.join(_onward(places, here))} <hist> {past} <step> {context.steps} "
            f"<obs> {self._past(now.text, start)} <at> {' '.join(here) or 'none'} "
            f"<hold> {' '.join(held) or 'none'} <can> {' ; '.join(can) or 'none'} {self._task(start)}"
        )

    def _past(self, text: str, start: Observation) -> str:
        return "start" if text == start.text else compact(text)

    def _answer(self, action: str, text: str, start: Observation, *, named: bool = False) -> str:
        return compact(action)

    def _skill(self, text: str, start: Observation) -> str:
        return pointed(text, start)

    def _kept(self, text: str, start: Observation) -> str:
        return named(text, start)

    def _asked(self, start: Observation) -> str:
        return f"<can> {' ; '.join(self.subtasks)}"

    def _avoided(self, mistakes: Sequence[Mistake]) -> list[str]:
        return [f"not {mistake.description}" for mistake in mistakes]

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        match [word.replace("_", " ") for word in text.split()]:
            case ["go to" | "open" | "close" | "use" | "examine", _] | ["look" | "inventory"] as words:
                return Parsed(" ".join(words), True)
            case ["put" | "move" as verb, thing, place] if (
                # text version 2.1.1 says put where later games say move
                (older := f"put {thing} in/on {place}") in admissible or verb == "put"
            ):
                return Parsed(older, True)
            case [verb, thing, place] if verb in _JOINED:
                return Parsed(f"{verb} {thing} {_JOINED[verb]} {place}", True)
        return Parsed(text.strip(), False)

    def fact(self, start: Observation, found: str) -> Fact:
        return Fact(read_request(start.instruction).target, found, home(start))

    def write_query(self, fact: Fact) -> str:
        return f"{fact.about} here"

    def write_lesson(self, fact: Fact) -> str:
        return f"{fact.about} here | {fact.about} here in {fact.found}"

    def write_skill(self, fact: Fact) -> str:
        return f"{fact.about} {fact.home} in {fact.found}"

    def write_principle(self, fact: Fact) -> str:
        return principle(fact.about, type_of(fact.found))

    def _progress(self, start: Observation, won: bool, trajectory: Trajectory) -> tuple[Mapping[str, bool], str]:
        """What the commands did for the task's object, and where it was found."""
        words = [compact(command).split() for _, command in trajectory]
        task = request_words(start).split()
        own = [w for w in words if len(w) > 1 and type_of(w[1]) in task]  # commands about the object
        taken = [w for w in own if w[0] == "take"]
        looks = task[0] in ("look", "examine")
        done = {"go_to": any(w[0] == "go_to" for w in words), "take": len(taken) >= (2 if "two" in task else 1)}
        if looks or {*_TREATMENTS, "hot"} & set(task):
            done["use"] = won or any(w[0] == "use" for w in words) or any(w[0] in _TREATMENTS for w in own)
        if not looks:
            done["move"] = won
        return done, f"{type_of(taken[0][1])} here in {taken[0][2]}" if taken else ""


def principle(about: str, kind: str) -> str:
    """Write in which type of place an object lies, as a skill bank keeps it."""
    return f"{about} in {kind}"
