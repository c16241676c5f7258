"""What the tour needs to follow the real loop by hand: a policy that answers from a script, and log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skill1.generation.calls import Completion, Seed
from skill1.prompts import PromptSet
from skill1.records import STAGES, Row, Stage

Script = Mapping[Stage, Sequence[str]]  # what one rollout answers: one text a stage, one a step for `act`


class ScriptedPolicy:
    """Stands where `policy.Policy` stands: rollout i of the group answers `scripts[i]`, with certainty.

    Args:
        prompts: the prompt set that encodes what it is asked.
        scripts: one per rollout of the group.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: PromptSet, scripts: Sequence[Script]) -> None:
        self.prompts = prompts
        self._tokenizer = tokenizer
        self._scripts = scripts

    def generate(
        self, texts: Sequence[str], seeds: Sequence[Seed], *, temperature: float, max_new_tokens: int
    ) -> list[Completion]:
        """See `policy.Policy.generate`: a call's seed ends with (rollout, stage, actions so far).

        Raises:
            IndexError: the script of a rollout is shorter than its episode.
        """
        answers = []
        for text, (*_, rollout, stage, actions) in zip(texts, seeds, strict=True):
            name = STAGES[stage]
            answer = self._scripts[rollout][name][actions if name == "act" else 0]
            ids = self._tokenizer.encode(f"{answer} {self._tokenizer.eos_token}", add_special_tokens=False)
            asked = self.prompts.encode(self._tokenizer, text)
            zeros = np.zeros(len(ids), np.float32)
            answers.append(Completion(np.asarray(asked, np.int32), np.asarray(ids, np.int32), zeros, answer))
        return answers


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, rows: Sequence[Row]) -> np.ndarray:
    """Compute the log-probability of every row's completion given its prompt: (len(rows),)."""
    result = []
    for row in rows:
        text = np.concatenate([row.prompt_ids, row.completion_ids])
        ids = torch.as_tensor(text, dtype=torch.long)[None]  # (1, P + C)
        logits = model(input_ids=ids.to(model.device)).logits[0, len(row.prompt_ids) - 1 : -1]  # (C, V)
        chosen = ids[0, len(row.prompt_ids) :, None].to(model.device)  # (C, 1)
        result.append(float(torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).sum()))
    return np.array(result)
