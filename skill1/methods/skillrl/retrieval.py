"""What a task is shown of the bank: general principles, those of its category, and mistakes.

    embedding   the principles of either section nearest to the task's sentence, those of a category only above a floor
    template    all principles of the task's category, general ones in the order of the bank

Once per episode. Utilities do not exist here: a `Candidate` says which entries were shown, with the cosine where one was
taken and 0 otherwise.

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
from skill1.methods.skillrl.bank import Mistake, Principle, SkillBank
from skill1.methods.skillrl.categories import category_of, sections_of
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.records import Candidate


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
        self._general = _Pool(bank.general, encoder) if config.retrieval == "embedding" else None
        self._specific = _Pool(bank.specific, encoder) if config.retrieval == "embedding" else None

    def __len__(self) -> int:
        return len(self.bank)

    def retrieve(self, instructions: Sequence[str]) -> list[Shown]:
        """What each task is shown, from its sentence. Raises ValueError for a sentence of another environment."""
        if self._config.retrieval == "template":
            return [self._by_category(instruction) for instruction in instructions]
        return [self._by_similarity(query) for query in self._encoder.encode(instructions)]

    def _by_category(self, instruction: str) -> Shown:
        sections = sections_of(category_of(self._environment, instruction))
        general = self._budget(list(self.bank.general))
        return self._shown(general, list(self.bank.of(sections)), {})

    def _by_similarity(self, query: np.ndarray) -> Shown:
        config = self._config
        general, specific = self._general.ranked(query), self._specific.ranked(query)
        near = [(entry, cosine) for entry, cosine in specific if cosine > config.similarity_floor]
        kept = self._budget([entry for entry, _ in general])
        cosines = {entry.id: cosine for entry, cosine in (*general, *near)}
        return self._shown(kept, [entry for entry, _ in near[: config.specific_top_k]], cosines)

    def _budget(self, ranked: list[Principle]) -> list[Principle]:
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
        candidates = [
            Candidate(entry.id, utility=0.0, similarity=cosines.get(entry.id, 0.0), score=cosines.get(entry.id, 0.0))
            for entry in (*general, *specific, *mistakes)
        ]
        return Shown(tuple(general), tuple(specific), tuple(mistakes), tuple(candidates))


class _Pool:
    """Principles with their embeddings."""

    def __init__(self, entries: Sequence[Principle], encoder: Encoder) -> None:
        self._entries = tuple(entries)
        self._embeddings = encoder.encode([entry.text for entry in entries]).astype(np.float64)  # (n, d)

    def ranked(self, query: np.ndarray) -> list[tuple[Principle, float]]:
        """All entries with their cosine to a (d,) query, nearest first, ties in the order of the bank."""
        cosines = np.vecdot(self._embeddings, query.astype(np.float64))  # (n,)
        return [(self._entries[i], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")]
