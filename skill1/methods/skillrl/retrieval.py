"""What a task is shown of the bank: general principles, those of its category, and mistakes.

    embedding   the principles of either section nearest to the task's sentence, those of a category only above a floor
    template    all principles of the task's category, general ones in the order of the bank

Once per episode. Utilities do not exist here: a `Candidate` says which entries were shown, with the cosine where one
was taken and 0 otherwise.

Differs from the paper in:
* The encoder is the kit's, so that all methods share it.
* Evolved general principles have a budget of their own, as large as that of the others; in the released code
  (`method.general_budget = "shared"`) every evolved one comes first and six of them hide all others.
* Both wordings of a task under light are shown the principles of both (`categories.sections_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skill1.encoder import Encoder
from skill1.methods.skillrl.bank import Entry, Mistake, Principle, SkillBank
from skill1.methods.skillrl.categories import category_of, sections_of
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.records import Candidate

_Ranked = list[tuple[Principle, float]]  # with the cosine to the task's sentence, nearest first


@dataclass(frozen=True, slots=True)
class Shown:
    """What one episode is shown, in the order of the block."""

    general: tuple[Principle, ...]
    specific: tuple[Principle, ...]
    mistakes: tuple[Mistake, ...]
    candidates: tuple[Candidate, ...]  # one per entry, in that order


class FrozenBank:
    """An immutable bank with its embeddings: retrieval without learning."""

    def __init__(self, config: SkillRLConfig, environment: str, encoder: Encoder, bank: SkillBank) -> None:
        """`environment`: its name, which says how categories are read off a sentence."""
        self.bank = bank
        self._config = config
        self._environment = environment
        self._encoder = encoder
        self._pools = None
        if config.retrieval == "embedding":
            self._pools = _Pool(bank.general, encoder), _Pool(bank.specific, encoder)

    def __len__(self) -> int:
        return len(self.bank)

    def retrieve(self, instructions: Sequence[str]) -> list[Shown]:
        """Choose what each task is shown, by its sentence. Raises ValueError for that of another environment."""
        if self._pools is None:
            return [self._by_category(instruction) for instruction in instructions]
        general, specific = self._pools
        queries = self._encoder.encode(instructions)
        return [self._by_similarity(general.ranked(query), specific.ranked(query)) for query in queries]

    def _by_category(self, instruction: str) -> Shown:
        sections = sections_of(category_of(self._environment, instruction))
        return self._shown(self._budget(self.bank.general), self.bank.of(sections), {})

    def _by_similarity(self, general: _Ranked, specific: _Ranked) -> Shown:
        near = [(entry, cosine) for entry, cosine in specific if cosine > self._config.similarity_floor]
        kept = self._budget([entry for entry, _ in general])
        cosines = {entry.id: cosine for entry, cosine in (*general, *near)}
        return self._shown(kept, [entry for entry, _ in near[: self._config.specific_top_k]], cosines)

    def _budget(self, ranked: Sequence[Principle]) -> list[Principle]:
        """The general principles that are shown of all, best first."""
        static, evolved = ([e for e in ranked if e.evolved == grown] for grown in (False, True))
        most = self._config.top_k
        if self._config.general_budget == "shared":
            return evolved + static[: max(most - len(evolved), 0)]
        if self._config.retrieval == "template":
            evolved = evolved[-most:]  # in the order of the bank, the newest last
        return static[:most] + evolved[:most]

    def _shown(self, general: Sequence[Principle], specific: Sequence[Principle], cosines: dict[str, float]) -> Shown:
        mistakes = self.bank.mistakes[: self._config.mistakes]
        shown: tuple[Entry, ...] = (*general, *specific, *mistakes)
        found = [(entry.id, cosines.get(entry.id, 0.0)) for entry in shown]
        candidates = tuple(Candidate(name, utility=0.0, similarity=cosine, score=cosine) for name, cosine in found)
        return Shown(tuple(general), tuple(specific), mistakes, candidates)


class _Pool:
    """Principles with their embeddings."""

    def __init__(self, entries: Sequence[Principle], encoder: Encoder) -> None:
        self._entries = tuple(entries)
        self._embeddings = encoder.encode([entry.text for entry in entries]).astype(np.float64)  # (n, d)

    def ranked(self, query: np.ndarray) -> _Ranked:
        """List all entries with their cosine to a (d,) query, nearest first, ties in the order of the bank."""
        cosines = np.vecdot(self._embeddings, query.astype(np.float64))  # (n,)
        return [(self._entries[i], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")]
