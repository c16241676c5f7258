"""Compact prompts for the nano policy: entity tokens, no prose, 60-100 tokens a call. Ours, not the paper's.

The same four stages and the same information as `full`, worded for a word-level tokenizer: "cabinet 3" is one token
`cabinet_3`, filler words are dropped, and the answer is bare (no tags, no reasoning), ended by the end token.

    query    mug here
    rerank   2
    act      go_to cabinet_3
    distill  mug here | mug here in cabinet_3

Homes have names, drawn by a hash of the receptacles that the first observation lists, which is by what a home is
recognised when it is visited again. The policy writes "here", the library keeps the name ("mug kirobe in cabinet_3"),
and a prompt shows it as "here" in that home and as "elsewhere" in any other. Whether a skill is about this home can
thus be read off one word; whether it is about the task's object is left to the policy.

The room list starts at the place after the current one, so that searching on is reading on. The task stands near the
end, where a small model finds it, and before the skills: a skill names object and home before the place, so that
whether both agree with the task is known where the place is read. A candidate's number stands behind it for the same
reason.

Differs from the paper in: no reasoning text; the prompts, not the policy, recognise homes; the admissible list is
shortened to what the task can need: `take` only of the object type the task names, `go to` only the first receptacle of
a type it names (the room list says where else one can go).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

from skill1.envs.base import Observation
from skill1.methods.skillrl.bank import Mistake, Principle
from skill1.nano.prompts.base import WRITE, CompactBase
from skill1.nano.prompts.reflection import read_reflection, write_reflection
from skill1.prompts.base import ActContext, Exchange, Parsed, Reflected
from skill1.records import Lesson

MARKS = (
    "<query>", "<rerank>", "<act>", "<distill>", "<room>", "<hist>", "<step>", "<at>", "<hold>", "<obs>", "<can>",
    "<skill>", "<cand>", "<traj>", "<ref>", "<task>", WRITE, ":", ";", ">", ",", "|", "none", "start", "in", "here",
    "elsewhere", "success", "failure",
)  # fmt: skip
_FILLER = frozenset(
    "a an and are arrive at from in into is it its next of on s some the them then there this to under up using with "
    "you your see facing carrying".split()
)
_ENTITY = re.compile(r"\b([a-z]+) (\d+)\b")
_WORD = re.compile(r"[a-z_]+_\d+|[a-z_]+|\d+")
_TWO = {"take": "from", "move": "to", "clean": "with", "heat": "with", "cool": "with", "slice": "with"}
_ONE = ("open", "close", "use", "examine")
_BARE = ("look", "inventory")
_SHOWN = ("open", "move", "put", "clean", "heat", "cool", "use")
_SYLLABLES = tuple(a + b for a in "bdgklmnr" for b in "aeio")
SUBTASKS = ("go_to", "take", "use", "move")  # of a reflection; "use": clean, heat, cool or light
NAME = re.compile(r"\b(?:[bdgklmnr][aeio]){3}\b")  # of a home; no word of the environment looks like one


@lru_cache(maxsize=1 << 16)  # a rollout says the same few thousand things again and again
def compact(text: str) -> str:
    """Environment text or command -> content words and entity tokens, without repeats of the word just said."""
    joined = _ENTITY.sub(r"\1_\2", text.lower().replace("go to ", "go_to "))
    words: list[str] = []
    for word in _WORD.findall(joined):
        if word not in _FILLER and (not words or word != words[-1]):
            words.append(word)
    return " ".join(words)


def room(start: Observation) -> list[str]:
    """Receptacles in the order of the first observation, as entity tokens."""
    return [f"{kind}_{n}" for kind, n in _ENTITY.findall(start.text.partition("you see ")[2].partition("\n")[0])]


def home(start: Observation) -> str:
    """The home's name, one of 32,768: the same for the same receptacles, whatever their order."""
    number = zlib.crc32(" ".join(sorted(room(start))).encode())
    first, second, third = (_SYLLABLES[number // 32**i % 32] for i in range(3))
    return first + second + third


def _pointed(text: str, start: Observation) -> str:
    """Names of homes -> "here" or "elsewhere", as seen from `start`."""
    here = home(start)
    return NAME.sub(lambda name: "here" if name[0] == here else "elsewhere", text)


def _named(text: str, start: Observation) -> str:
    """ "here" -> the name of the home, for the library."""
    return re.sub(r"\bhere\b", home(start), text)


def _onward(places: list[str], here: list[str]) -> list[str]:
    """The room list read from where one stands: the place after the current one comes first, the current one last."""
    after = max((places.index(place) for place in here), default=-1) + 1
    return places[after:] + places[:after]


def _spaced(entity: str) -> str:
    return entity.replace("_", " ")


class CompactPrompts(CompactBase):
    """Prompts and parsers over the compact text."""

    def act(self, context: ActContext) -> str:
        start, now = context.start, context.observation
        places = room(start)
        here, held, can = [], [], []
        wanted = set(compact(start.instruction).split())
        for command in now.admissible:
            verb, *things = words = compact(command).split()
            kind, _, number = things[0].rpartition("_") if things else ("", "", "")
            if verb == "examine":
                (here if things[0] in places else held).append(things[0])
            elif verb in _SHOWN or (kind in wanted and (verb == "take" or (verb == "go_to" and number == "1"))):
                can.append(" ".join(words))
        past = " ; ".join(f"{self._observation(o, start)} > {compact(a)}" for o, a in context.history)
        return (
            f"<act> <room> {' '.join(_onward(places, here))} <hist> {past or 'none'} <step> {context.steps} "
            f"<obs> {self._observation(now.text, start)} <at> {' '.join(here) or 'none'} "
            f"<hold> {' '.join(held) or 'none'} <can> {' ; '.join(can) or 'none'} {self._task(start)} "
            f"<skill> {self._skill(context.skill, start) or 'none'} {WRITE}"
        )

    def _task(self, start: Observation) -> str:
        return f"<task> {compact(start.instruction)}"

    def _asked(self, start: Observation) -> str:
        return f"<can> {' ; '.join(SUBTASKS)}"

    def _skill(self, text: str, start: Observation) -> str:
        return _pointed(text, start)

    @staticmethod
    def _observation(text: str, start: Observation) -> str:
        return "start" if text == start.text else compact(text)

    def _actions(self, start: Observation, trajectory: Sequence[Exchange]) -> str:
        return " ; ".join(compact(action) for _, action in trajectory)

    def bank_block(
        self, general: Sequence[Principle], specific: Sequence[Principle], mistakes: Sequence[Mistake]
    ) -> str:
        shown = [entry.principle for entry in (*general, *specific)]
        return self.skill_block([*shown, *(f"not {mistake.description}" for mistake in mistakes)])

    def parse_query(self, text: str, start: Observation) -> Parsed:
        return Parsed(_named(text.strip() or compact(start.instruction), start), bool(text.strip()))

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        words = text.split()
        verb, args = (words[0], [_spaced(w) for w in words[1:]]) if words else ("", [])
        if verb == "go_to" and len(args) == 1:
            return Parsed(f"go to {args[0]}", True)
        if verb in _TWO and len(args) == 2:
            command = f"{verb} {args[0]} {_TWO[verb]} {args[1]}"
            older = f"put {args[0]} in/on {args[1]}"  # text version 2.1.1 says put where later games say move
            return Parsed(older if verb == "move" and older in admissible else command, True)
        if verb == "put" and len(args) == 2:
            return Parsed(f"put {args[0]} in/on {args[1]}", True)
        if (verb in _ONE and len(args) == 1) or (verb in _BARE and not args):
            return Parsed(" ".join([verb, *args]), True)
        return Parsed(text.strip(), False)

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        desc, bar, strategy = (part.strip() for part in _named(text, start).partition("|"))
        return Lesson(desc, strategy) if desc and bar and strategy and "|" not in strategy else None

    def parse_reflect(self, text: str, start: Observation) -> Reflected | None:
        found = read_reflection(text, SUBTASKS)
        if found is None:
            return None
        reflection, words = found
        return Reflected(reflection, Lesson(start.instruction, _named(" ".join(words), start)) if words else None)

    def raw_lesson(self, start: Observation, trajectory: Sequence[Exchange]) -> Lesson:
        return Lesson(compact(start.instruction), self._actions(start, trajectory))

    # -- what the warm start teaches ------------------------------------------------------------------------------

    @staticmethod
    def write_query(target: str) -> str:
        """A query: the object, in this home."""
        return f"{target} here"

    @staticmethod
    def write_lesson(target: str, place: str) -> str:
        """A distillation: where the object was found."""
        return f"{target} here | {target} here in {place}"

    @staticmethod
    def write_reflection(start: Observation, won: bool, trajectory: Sequence[Exchange]) -> str:
        """A reflection on an episode: what its commands did for the task's object, and where it was found."""
        words = [compact(command).split() for _, command in trajectory]
        task = compact(start.instruction).split()
        wanted = 2 if "two" in task else 1
        own = [w for w in words if len(w) > 1 and w[1].rpartition("_")[0] in task]  # commands about the object
        taken = [w for w in own if w[0] == "take"]
        treats = [w for w in words if w[0] == "use"] + [w for w in own if w[0] in ("clean", "heat", "cool")]
        done = {
            "go_to": any(w[0] == "go_to" for w in words),
            "take": len(taken) >= wanted,
            "use": won or bool(treats),
            "move": won,
        }
        if task[0] in ("look", "examine"):
            del done["move"]
        elif not {"clean", "hot", "heat", "cool"} & set(task):
            del done["use"]
        lesson = f"{taken[0][1].rpartition('_')[0]} here in {taken[0][2]}" if taken else "none"
        return write_reflection(won, [s for s in done if done[s]], [s for s in done if not done[s]], lesson)

    @staticmethod
    def write_skill(target: str, place: str, start: Observation) -> str:
        """The strategy that the library keeps of such a lesson."""
        return _named(f"{target} here in {place}", start)
