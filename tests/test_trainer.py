"""The row trainer is exact: against a bare torch reference, against itself cut differently, and over resumes.

Written for trl 1.16, transformers 5.23 and accelerate 1.15; the contract tests say what of their insides is relied on.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_train import two_ranks
from tiny import random_rows, tiny_model, tiny_policy, tiny_tokenizer
from trainer_runs import (
    Counter,
    configure,
    entries,
    fingerprint,
    largest_difference,
    make_trainer,
    move_off_reference,
    weights,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad

import skill1.updates.trl_config
from skill1.batching import MicroBatch, Shape, Update, plan_updates
from skill1.records import Row
from skill1.store.checkpoints import CheckpointError, complete_checkpoints
from skill1.trainer import build_trainer

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy"))


# -- contract with TRL --------------------------------------------------------------------------------------------


def test_compute_loss_reads_the_keys_we_give():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    required = set(re.findall(r'inputs\["(\w+)"\]', source))
    optional = set(re.findall(r'inputs\.get\("(\w+)"', source))
    given = {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "ref_per_token_logps"}
    switched_off = {"importance_sampling_ratio", "num_items_in_batch", "tool_mask"}  # vLLM, dapo, tools
    assert required == given | switched_off
    assert "old_per_token_logps" in optional


def test_the_scoring_method_has_the_signature_we_override():
    names = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert names[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    assert names[5:8] == ["batch_size", "compute_entropy", "compute_aux_loss"]


def test_every_trl_field_is_set_or_known_to_be_idle():
    call = next(
        n for n in ast.walk(ast.parse(inspect.getsource(skill1.updates.trl_config))) if _is_call(n, "GRPOConfig")
    )
    named = {keyword.arg for keyword in call.keywords}
    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    own = {field.name for field in dataclasses.fields(GRPOConfig)} - inherited
    idle = {  # generation, which is ours; vLLM, off; other losses' constants; TRL's logs of completions, off
        "trust_remote_code", "num_generations_eval", "ds3_gather_for_generation",
        "pad_to_multiple_of", "generation_batch_size", "top_p", "top_k", "min_p", "generation_kwargs",
        "chat_template_kwargs", "repetition_penalty", "cache_implementation", "max_tool_calling_iterations",
        "sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg",
        "vespo_lambda_neg", "ref_model_mixup_alpha", "ref_model_sync_steps", "entropy_coef_min", "entropy_coef_max",
        "entropy_coef_delta", "entropy_target", "log_multimodal", "num_completions_to_print", "log_unique_prompts",
        "log_completions_hub_repo", "use_transformers_continuous_batching",
        "transformers_continuous_batching_config", "use_transformers_paged",
    }  # fmt: skip
    unnamed = {name for name in own - named if not name.startswith("vllm_")}
    assert unnamed == idle


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


@pytest.mark.parametrize("lora", [0, 4])
def test_completions_are_scored_as_trl_scores_them(policy, tmp_path, lora):
    trainer, _ = make_trainer(policy, tmp_path, configure(policy__lora_rank=lora), lambda step, model: [])
    rows = random_rows(7)
    batch = trainer._batch(
        rows, [range(i, i + 1) for i in range(7)], np.ones(7), 7, Update(7, (MicroBatch((tuple(range(7)),), 1),)), 0
    )
    written, mask = batch["completion_ids"], batch["completion_mask"]
    prompts = [torch.tensor(row.prompt_ids).long() for row in rows]
    read = [pad(part, 0, "left") for part in (prompts, [torch.ones_like(ids) for ids in prompts])]
    kept = written.size(1)
    with torch.no_grad():
        ours = trainer._get_per_token_logps_and_entropies(trainer.model, written, mask, kept, compute_entropy=True)
        theirs = GRPOTrainer._get_per_token_logps_and_entropies(
            trainer, trainer.model, torch.cat([read[0], written], 1), torch.cat([read[1], mask], 1), kept,
            compute_entropy=True,
        )  # fmt: skip
    for mine, reference in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=5e-6)
    assert ours[0][batch["completion_mask"] == 0].eq(0).all()
    assert batch["ref_per_token_logps"].sub(ours[0]).abs().max() < 1e-6  # nothing is trained yet


# -- exactness ----------------------------------------------------------------------------------------------------


def reference_step(model, reference, rows, updates, *, clip, kl, rate, dual_clip=None, entropy=0.0):
    """Eq. 13 by hand, one unpadded row at a time: the loss of each update, the gradients of the last one, the share of
    completion tokens in the clipped region over all updates, and the share that only the dual clip holds."""

    def scores(scored, row):
        ids = torch.tensor(np.concatenate([row.prompt_ids, row.completion_ids])[None]).long()
        logits = scored(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
        return torch.log_softmax(logits, -1), ids[0, len(row.prompt_ids) :, None]

    def log_probs(scored, row):
        every, written = scores(scored, row)
        return every.gather(1, written)[:, 0]

    with torch.no_grad():
        old = [log_probs(model, row) for row in rows]
        ref = [log_probs(reference, row) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    losses, clipped, held, tokens = [], 0.0, 0.0, 0
    for number, update in enumerate(updates):
        optimizer.zero_grad()
        total = 0.0
        trained = sorted(i for micro in update.micro_batches for rank in micro.ranks for i in rank)
        for i in trained:
            new, a = log_probs(model, rows[i]), rows[i].advantage * rows[i].weight
            ratio = torch.exp(new - old[i])
            surrogate = torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
            if dual_clip and a < 0:
                held += float((ratio > dual_clip).sum())
                surrogate = torch.clamp(surrogate, min=dual_clip * a)
            k3 = torch.exp(ref[i] - new) - (ref[i] - new) - 1
            every, _ = scores(model, rows[i])
            spread = -(every.exp() * every).sum() / sum(len(rows[j].completion_ids) for j in trained)
            loss = (-surrogate + kl * k3).mean() / update.size - entropy * spread
            loss.backward()
            total += loss.item()
            clipped += float(((ratio > 1 + clip) if a > 0 else (ratio < 1 - clip)).sum())
            tokens += len(new)
        losses.append(total)
        if number < len(updates) - 1:
            optimizer.step()
    return losses, {name: p.grad.clone() for name, p in model.named_parameters()}, clipped / tokens, held / tokens


def first_part(rows: int, size: int) -> np.ndarray:
    """The rows of the first update of step 0 with seed 0."""
    return np.array_split(np.random.default_rng([0, 0]).permutation(rows), -(-rows // size))[0]


@pytest.mark.parametrize("kl, entropy, dual_clip", [(0.0, 0.0, None), (0.05, 0.0, None), (0.0, 0.5, 1.3)])
def test_two_updates_equal_the_equation_written_out(policy, tmp_path, kl, entropy, dual_clip):
    rows = random_rows(23)
    rows[3], rows[8] = replace(rows[3], advantage=0.0), replace(rows[8], weight=0.0)
    config = configure(
        train__kl=kl, train__learning_rate=0.005, train__rows_per_update=12, train__rows_per_micro_batch=5,
        train__entropy=entropy, train__dual_clip=dual_clip,
    )  # fmt: skip  # a rate high enough for the second update to clip
    trainer, tape = make_trainer(policy, tmp_path, config, lambda step, model: rows)
    trainer.train()

    moves = np.array([row.advantage * row.weight != 0 for row in rows])
    updates = plan_updates(
        Shape.of(rows), moves | (kl + entropy > 0), moves | (entropy > 0), world=1, rows_per_update=12, rows_per_micro_batch=5, tokens_per_micro_batch=10**6,
        seed=0, step=0,
    )  # fmt: skip
    assert [u.size for u in updates] == [12, 11]
    model, reference = (AutoModelForCausalLM.from_pretrained(policy) for _ in range(2))
    losses, gradients, clipped, held = reference_step(
        model, reference, rows, updates, clip=0.2, kl=kl, rate=0.005, dual_clip=dual_clip, entropy=entropy
    )
    (entry,) = entries(trainer)
    scale = max(float(g.abs().max()) for g in gradients.values())
    assert largest_difference(tape.steps[0], gradients) < 1e-5 * scale
    assert entry["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert entry["clip_ratio/region_mean"] == pytest.approx(clipped, abs=1e-6) and clipped > 0.05
    still = sum(not moves[i] for i in first_part(23, 12))  # in the first update the KL is 0, with its gradient
    assert entry["rows/trained"] == 23 - (still if kl else 0 if entropy else 2)
    assert (held > 0.02) == (dual_clip is not None)
    assert entry["rows/total"] == 23 and entry["rows/updates"] == 2
    assert ("kl" in entry) == (kl > 0)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_micro_batches_do_not_change_the_updates(policy, tmp_path, lora):
    rows = random_rows(23)
    runs = []
    for most_rows, most_tokens in ((64, 10**6), (5, 10**6), (64, 100), (1, 10**6)):
        config = configure(
            policy__lora_rank=lora, train__steps=2, train__rows_per_update=12, train__rows_per_micro_batch=most_rows,
            train__tokens_per_micro_batch=most_tokens, train__learning_rate=1e-5, train__entropy=0.01,
        )  # fmt: skip
        trainer, tape = make_trainer(policy, tmp_path / str(len(runs)), config, lambda step, model: rows)
        move_off_reference(trainer)
        trainer.train()
        runs.append((tape.steps[1], entries(trainer)[1], weights(trainer)))
    whole = runs[0]
    scale = max(float(g.abs().max()) for g in whole[0].values())
    for gradients, entry, after in runs[1:]:
        assert largest_difference(gradients, whole[0]) < 1e-6 * max(1, scale)
        assert largest_difference(after, whole[2]) < 1e-6
        for name in ("loss", "kl", "entropy", "clip_ratio/region_mean", "grad_norm"):
            assert entry[name] == pytest.approx(whole[1][name], rel=1e-5, abs=1e-7)
    assert whole[1]["kl"] > 0.01
    assert runs[3][1]["rows/padding_waste"] == 0 < whole[1]["rows/padding_waste"]


def conversations(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The same calls as conversations of three, and each by itself with all that came before it as its prompt."""
    together, apart, said = [], [], []
    for i, row in enumerate(rows):
        said = said if i % 3 else []
        together.append(replace(row, continues=bool(i % 3)))
        apart.append(replace(row, prompt_ids=np.concatenate([*said, row.prompt_ids])))
        said += [row.prompt_ids, row.completion_ids]
    return together, apart


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_a_conversation_is_trained_as_its_calls_are_one_by_one(policy, tmp_path, lora):
    rows = random_rows(20)
    still = [*rows[:4], replace(rows[4], advantage=0.0), *rows[5:9], replace(rows[9], weight=0.0), *rows[10:]]
    runs = []
    for number in range(2):
        given = [conversations(rows)[number], conversations(still)[number]]
        config = configure(policy__lora_rank=lora, train__steps=2, train__rows_per_micro_batch=4 - 2 * number)
        trainer, tape = make_trainer(
            policy, tmp_path / str(number), config, lambda step, model, given=given: given[step]
        )
        move_off_reference(trainer)
        trainer.train()
        runs.append((tape.steps, entries(trainer)))
    (steps, logged), (others, expected) = runs
    for mine, other, entry, line in zip(steps, others, logged, expected, strict=True):
        assert largest_difference(mine, other) < 1e-6 * max(1.0, *(float(g.abs().max()) for g in other.values()))
        for name in ("loss", "entropy", "clip_ratio/region_mean", "grad_norm"):
            assert entry[name] == pytest.approx(line[name], rel=1e-5, abs=1e-6)
        assert entry["tokens/trained"] <= entry["tokens/passed"] < line["tokens/passed"] / 1.5
    assert logged[1]["kl"] == pytest.approx(expected[1]["kl"], rel=1e-4)


def test_a_row_that_continues_needs_the_row_before():
    rows = conversations(random_rows(6))[0]
    with pytest.raises(ValueError, match="continues another one, which is missing"):
        Shape.of(rows[1:])
    assert Shape.of(rows).rows.tolist() == [3, 3]


def test_a_row_with_weight_two_is_the_row_with_twice_the_advantage(policy, tmp_path):
    rows = random_rows(9)
    folded = [replace(row, advantage=row.advantage * row.weight, weight=1.0) for row in rows]
    seen = []
    for number, given in enumerate((rows, folded)):
        trainer, tape = make_trainer(policy, tmp_path / str(number), configure(), lambda step, model: given)
        trainer.train()
        seen.append(tape.steps[0])
    assert largest_difference(*seen) == 0


def test_a_step_without_gradient_changes_nothing_and_is_logged(policy, tmp_path):
    steps = {0: random_rows(9), 1: [replace(row, advantage=0.0) for row in random_rows(9)], 2: []}
    seen = []

    def collect(step, model):
        seen.append({name: p.clone() for name, p in model.named_parameters()})
        return steps.get(step, steps[0]), {"reward": float(step)}

    config = configure(train__steps=4, train__kl=0.0, train__weight_decay=0.1)
    trainer, tape = make_trainer(policy, tmp_path, config, collect)
    began = time.perf_counter()
    trainer.train()
    took = time.perf_counter() - began
    assert largest_difference(seen[0], seen[1]) > 0
    assert largest_difference(seen[1], seen[2]) == largest_difference(seen[2], seen[3]) == 0
    assert largest_difference(seen[3], weights(trainer)) > 0
    logged = entries(trainer)
    assert [entry["rows/updates"] for entry in logged] == [1, 0, 0, 1]
    assert [entry["rows/total"] for entry in logged] == [9, 9, 0, 9]
    assert [entry["grad_norm"] > 0 for entry in logged] == [True, False, False, True]
    assert [entry["reward"] for entry in logged] == [0, 1, 2, 3]
    assert tape.steps[1] == tape.steps[2] == {}
    steps = trainer.state.log_history[:4]
    assert 0 < sum(step["time/collect"] + step["time/update"] for step in steps) < took


def test_the_rate_climbs_from_the_first_step(policy, tmp_path):
    config = configure(train__steps=5, train__warmup_steps=3, train__learning_rate=0.04)
    trainer, _ = make_trainer(policy, tmp_path, config, lambda step, model: random_rows(3))
    trainer.train()
    assert [entry["learning_rate"] for entry in entries(trainer)] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.04])


# -- collecting ---------------------------------------------------------------------------------------------------


def sampled_rows(step, model, seed=0):
    """Rows whose completions the policy writes itself, as in a rollout."""
    assert not model.training and not torch.is_grad_enabled()
    torch.manual_seed(1000 * seed + step)
    rows = random_rows(6, seed=step)
    prompts = torch.tensor(np.stack([row.prompt_ids[:1] for row in rows])).long()
    written = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=4)[:, 1:]
    return [replace(row, completion_ids=ids.numpy().astype(np.int32)) for row, ids in zip(rows, written, strict=True)]


@pytest.mark.slow
def test_one_seed_one_policy(policy, tmp_path):
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        config = configure(policy__lora_rank=4, train__steps=2, train__seed=seed, train__rows_per_update=3)
        trainer, _ = make_trainer(policy, tmp_path / str(number), config, sampled_rows)
        trainer.train()
        hashes.append(fingerprint(trainer))
    assert hashes[0] == hashes[1] != hashes[2]


def test_metrics_under_the_trainers_names_are_refused(policy, tmp_path):
    trainer, _ = make_trainer(policy, tmp_path, configure(), lambda step, model: (random_rows(3), {"rows/total": 1.0}))
    with pytest.raises(ValueError, match="own names: rows/total"):
        trainer.train()


def test_evaluate_says_where_validation_lives(policy, tmp_path):
    trainer, _ = make_trainer(policy, tmp_path, configure(), lambda step, model: [])
    with pytest.raises(RuntimeError, match="callback"):
        trainer.evaluate()


def test_policies_that_cannot_be_trained_as_asked_are_refused(policy, tmp_path):
    def build(model, **overrides):
        build_trainer(configure(**overrides), model, tiny_tokenizer(), tmp_path, lambda step, model: ([], {}))

    with pytest.raises(ValueError, match="dtype=torch.float32"):
        build(AutoModelForCausalLM.from_pretrained(policy, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="does not say where it was loaded from"):
        build(tiny_model())
    changed = AutoModelForCausalLM.from_pretrained(policy)
    torch.nn.init.zeros_(changed.model.norm.weight)
    with pytest.raises(ValueError, match="differs from .* in model.norm.weight"):
        build(changed)
    build(tiny_model(), train__kl=0.0)
    build(tiny_model(dtype=torch.bfloat16), policy__lora_rank=2)


def test_a_policy_without_a_padding_token_is_trained_alike(policy, tmp_path):
    bare = shutil.copytree(policy, tmp_path / "bare")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(bare)
    assert AutoTokenizer.from_pretrained(bare).pad_token is None
    seen = []
    for given in (policy, bare):
        config = configure(train__rows_per_update=5)
        trainer, _ = make_trainer(given, tmp_path / given.name, config, lambda step, model: random_rows(9))
        trainer.train()
        seen.append(weights(trainer))
    assert largest_difference(*seen) == 0


# -- checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_resuming_equals_running_straight_through(policy, tmp_path, lora):
    config = configure(
        policy__lora_rank=lora, train__steps=4, train__save_every=2, train__warmup_steps=3, train__rows_per_update=3
    )

    def run(output, resume=None):
        counter = Counter()

        def collect(step, model):
            counter.calls += step + 1
            return sampled_rows(step, model, seed=counter.calls)

        trainer, _ = make_trainer(policy, output, config, collect, [counter])
        trainer.train(resume)
        return trainer, counter

    straight, counted = run(tmp_path / "a")
    assert complete_checkpoints(tmp_path / "a")[-1] == tmp_path / "a" / "checkpoint-4"
    resumed, recounted = run(tmp_path / "b", tmp_path / "a" / "checkpoint-2")
    assert fingerprint(resumed) == fingerprint(straight)
    assert counted.calls == recounted.calls == 1 + 2 + 3 + 4
    assert entries(resumed) == entries(straight)


def test_only_complete_checkpoints_count_and_old_ones_go(policy, tmp_path):
    config = configure(train__steps=4, train__save_every=1, train__save_total_limit=2, train__kl=0.0)
    trainer, _ = make_trainer(policy, tmp_path, config, lambda step, model: random_rows(3), [Counter()])
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "left_over").touch()  # of a run that died while saving
    assert complete_checkpoints(tmp_path) == []
    trainer.train()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    marker = tmp_path / "checkpoint-4" / "COMPLETE"
    assert json.loads(marker.read_text())["step"] == 4
    marker.unlink()
    assert complete_checkpoints(tmp_path)[-1] == tmp_path / "checkpoint-3"
    with pytest.raises(CheckpointError, match="checkpoint-4 has no COMPLETE marker"):
        make_trainer(policy, tmp_path, config, lambda step, model: [])[0].train(tmp_path / "checkpoint-4")


def test_a_checkpoint_of_another_architecture_is_refused(policy, tmp_path):
    trainer, _ = make_trainer(policy, tmp_path, configure(train__kl=0.0), lambda step, model: random_rows(3))
    trainer.train()
    folder = tmp_path / "checkpoint-1"
    deeper = tiny_policy(tmp_path / "deeper", layers=3)
    for other, lora in ((deeper, 0), (policy, 4)):
        config = configure(train__kl=0.0, policy__lora_rank=lora)
        with pytest.raises(CheckpointError, match="another architecture.*same policy.model"):
            make_trainer(other, tmp_path / "x", config, lambda step, model: [])[0].train(folder)


# -- several processes --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_equal_one(policy, tmp_path):
    from distributed_trainer import RUN, collect, config, main

    one, tape = make_trainer(policy, tmp_path / "one", config(), collect, [Counter()])
    one.train()
    shutil.copytree(tmp_path / "one" / f"checkpoint-{RUN['resume']}", tmp_path / "start")

    assert two_ranks(lambda: main(policy, tmp_path)) == 0
    found = torch.load(tmp_path / "two.pt")
    for mine, theirs in zip(tape.steps, found["gradients"], strict=True):
        assert mine.keys() == theirs.keys()
        if mine:
            scale = max(1.0, *(float(g.abs().max()) for g in mine.values()))
            assert largest_difference(mine, theirs) < 1e-6 * scale
    assert largest_difference(weights(one), found["weights"]) < 1e-6
    assert largest_difference(weights(one), found["resumed"]) < 1e-6
    for mine, theirs in zip(entries(one), found["entries"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"rows/padding_waste"}:  # each rank pads to its own longest row
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-6), name
    assert re.fullmatch(r"collect must return the same rows on every rank, but at step 0: "
                        r"rank 0: 5 rows \(\w{8}\), rank 1: 4 rows \(\w{8}\)", found["mismatch"])  # fmt: skip
