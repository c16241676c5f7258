"""The planner: parameters, memory and batches against hand-computed numbers, and what it refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from tiny import tiny_model, tiny_policy
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from skill1.cli.main import main
from skill1.config import ConfigError, load_config
from skill1.plan import passes as counting
from skill1.plan.architecture import COPIED, read_architecture
from skill1.plan.duration import seconds_to_write
from skill1.plan.machine import GB, gpu_machine
from skill1.plan.memory import estimate_memory
from skill1.plan.passes import Passes, Weights, build, count
from skill1.plan.plan import Planner
from skill1.plan.report import to_json, to_text
from skill1.plan.workload import Assumptions, Lengths, make_workload
from skill1.updates.trl_config import lora_config

FLOAT32 = Weights(torch.float32, None)
ADAPTERS = Weights(torch.bfloat16, lora_config(load_config("small")))
SMALL = Qwen2Config(
    vocab_size=500, hidden_size=64, intermediate_size=192, num_hidden_layers=5, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_policy(tmp_path_factory.mktemp("tiny"), layers=1)


@pytest.fixture(scope="module")
def paper():
    return Planner.of("Qwen/Qwen2.5-7B-Instruct")


@pytest.fixture
def whole(monkeypatch):
    """Passes are measured at their whole depth."""
    monkeypatch.setattr(counting, "_DEPTHS", (1000, 1001))


@pytest.mark.parametrize(
    "model, parameters",
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
    ],
)
def test_the_copied_architectures_have_the_published_numbers_of_parameters(model, parameters):
    counted = count(build(COPIED[model], FLOAT32))
    assert counted.total == counted.trained == parameters
    assert counted.bytes == 4 * parameters
    assert counted.largest_block * COPIED[model].num_hidden_layers + counted.outside == parameters


def test_adapters_count_as_peft_makes_them_on_a_real_model():
    config = load_config("nano", overrides={"policy.lora_rank": 3})
    real = get_peft_model(tiny_model(dtype=torch.bfloat16), lora_config(config))
    counted = count(build(tiny_model().config, Weights(torch.bfloat16, lora_config(config))))
    assert counted.trained == real.get_nb_trainable_parameters()[0]
    assert counted.total == tiny_model().num_parameters()
    assert counted.bytes == 2 * counted.total + 4 * counted.trained  # adapters in float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "checkpointing"), [(FLOAT32, False), (ADAPTERS, True)],
    ids=["float32", "adapters, checkpointed"],
)  # fmt: skip
def test_two_depths_extend_to_the_whole_depth(monkeypatch, weights, checkpointing):
    extended = Passes(SMALL, weights).update(3, 40, 8, checkpointing)
    decoded = Passes(SMALL, weights).decode(3, 40)
    monkeypatch.setattr(counting, "_DEPTHS", (1000, 1001))
    whole = Passes(SMALL, weights).update(3, 40, 8, checkpointing)
    assert extended.peaks == pytest.approx(whole.peaks, rel=2e-3)
    assert extended.flops == whole.flops
    assert extended.operators == pytest.approx(whole.operators, abs=2)
    assert decoded.operators == pytest.approx(Passes(SMALL, weights).decode(3, 40).operators, abs=2)


@pytest.mark.slow
def test_the_adapters_are_on_every_layer_whatever_was_built_before():
    """peft writes the names of the layers that it adapts into the configuration that it is given."""
    fresh = Passes(SMALL, ADAPTERS).decode(3, 40)
    build(COPIED["Qwen/Qwen2.5-0.5B-Instruct"], ADAPTERS)
    assert Passes(SMALL, ADAPTERS).decode(3, 40) == fresh
    bare = Passes(SMALL, replace(ADAPTERS, adapter=None)).decode(3, 40)
    products = {
        sign: sum(n for (flops, _), n in taken.work.items() if flops) for sign, taken in ((1, fresh), (0, bare))
    }
    assert products[1] - products[0] == 2 * 7 * 5  # A and B of seven matrices in five layers


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fake_tensors_count_what_real_ones_do(whole, checkpointing):
    counted = Passes(SMALL, FLOAT32).update(3, 40, 8, checkpointing)
    real = Qwen2ForCausalLM(SMALL)
    add_fused_lm_head(real, outputs=("log_probs", "entropy"))
    done = counting._update(real, 3, 40, 8, checkpointing)
    assert counted.peaks == done.peaks and counted.flops == done.flops
    assert counted.operators == pytest.approx(done.operators, rel=0.02)
    traffic = [sum(moved * many for (_, moved), many in taken.work.items()) for taken in (counted, done)]
    assert traffic[0] == pytest.approx(traffic[1], rel=0.02)


def test_fake_tensors_issue_what_real_ones_do_for_a_token(whole):
    real = get_peft_model(Qwen2ForCausalLM(SMALL).bfloat16(), copy.deepcopy(ADAPTERS.adapter))
    done, counted = counting._decode(real, 3, 40), Passes(SMALL, ADAPTERS).decode(3, 40)
    assert counted.flops == done.flops and counted.cache == done.cache
    assert counted.operators == pytest.approx(done.operators, rel=0.02)


def test_writing_takes_a_pass_a_token_in_each_call_by_hand():
    """The preset small: in each of 30 turns 240 tokens, twice the mean, for the 64 * .6 episodes that go on."""
    config, passes = load_config("small"), Passes(SMALL, ADAPTERS)
    [act] = [calls for calls in make_workload(config, Assumptions()).stages if calls.stage == "act"]
    machine = gpu_machine(1, 24 * GB, flops=1e30, bandwidth=1e30, host=8e-6)
    prompts, token = passes.prefill(38, 450).operators, passes.decode(38, 450 + 120).operators
    assert seconds_to_write(act, config, passes, machine) == pytest.approx(30 * (prompts + 239 * token) * 8e-6)


@pytest.mark.slow
def test_the_whole_7b_model_does_the_operations_counted_by_hand(whole):
    passes = Passes(COPIED["Qwen/Qwen2.5-7B-Instruct"], Weights(torch.bfloat16, None))
    blocks = 28 * 233_057_792
    head = 152_064 * 3584  # on the 64 completion tokens alone; its logits are computed again, too
    spared = 28 * 18_944 * 3584  # a block's last product need not be computed again
    wanted = 8 * 128 * blocks - 2 * 128 * spared + 8 * 64 * head  # forward, again, and twice backward
    assert passes.update(1, 64, 64, True).flops == pytest.approx(wanted, rel=0.01)


def test_generation_keeps_keys_and_values_of_every_layer():
    passes = Passes(SMALL, FLOAT32)
    heads = 2 * 2 * 16 * 4  # keys and values x heads x dimension x bytes
    assert passes.prefill(5, 30).cache == 5 * 5 * 30 * heads
    assert passes.decode(5, 30).cache == 5 * 5 * 31 * heads
    assert passes.decode(5, 30).peak >= 5 * 5 * 31 * heads


def test_checkpointing_and_short_rows_cost_less_memory():
    passes = Passes(SMALL, FLOAT32)
    assert passes.update(4, 64, 8, True).peak < passes.update(4, 64, 8, False).peak / 2
    assert passes.update(2, 64, 8, False).peak < 0.6 * passes.update(4, 64, 8, False).peak


def test_a_roofline_takes_the_slower_of_arithmetic_and_traffic():
    score = Passes(SMALL, FLOAT32).score(4, 20, 5)
    machine = replace(gpu_machine(1, GB), flops=2e9, mfu=0.5, bandwidth=1e30, host=0.0, overlap=False)
    arithmetic = score.seconds(machine)
    assert arithmetic == pytest.approx(score.flops / 1e9)
    moved = sum(traffic * many for (_, traffic), many in score.work.items())
    assert score.seconds(replace(machine, flops=1e30, bandwidth=1e9)) == pytest.approx(moved / 1e9)
    assert score.seconds(replace(machine, bandwidth=1e9)) > max(arithmetic, moved / 1e9)
    issued = score.operators * 1e-3
    assert score.seconds(replace(machine, host=1e-3)) == pytest.approx(arithmetic + issued)
    assert score.seconds(replace(machine, host=1e-3, overlap=True)) == pytest.approx(max(arithmetic, issued))


@pytest.mark.slow
def test_each_kind_of_work_reaches_its_own_share_of_the_roofline(tiny):
    planner = Planner.of(str(tiny))
    config = load_config("nano", overrides={"policy.model": str(tiny), "rollout.max_prompt_tokens": 256})
    machine = gpu_machine(1, GB, bandwidth=1e30, host=0.0)
    full = planner.plan(config, machine).duration
    half = planner.plan(config, replace(machine, training=0.5)).duration
    assert half.update == pytest.approx(2 * full.update) and half.generation == full.generation
    fifth = planner.plan(config, replace(machine, generation=0.2)).duration
    assert fifth.generation == pytest.approx(5 * full.generation) and fifth.update == full.update


def test_a_step_of_the_paper_by_hand():
    work = make_workload(load_config("paper"), Assumptions(turns=20, prompt=500, completion=100))
    assert {s.stage: s.rows for s in work.stages} == {"query": 256, "rerank": 256, "act": 5120, "distill": 256}
    assert work.rows == 5888
    assert work.completion_tokens == 256 * (40 + 20 + 150) + 5120 * 100
    assert len(work.updates(load_config("paper"), 8)) == 23  # 5888 / 256
    assert sum(update.size for update in work.updates(load_config("paper"), 8)) == 5888
    bare = make_workload(load_config("paper", "no_library"), Assumptions(turns=20))
    assert [s.stage for s in bare.stages] == ["act"]


@pytest.mark.slow
def test_act_prompts_grow_with_what_they_show(paper):
    """Sixty tokens for each skill beside one; a prompt that is given stays as it is."""

    def act(variant: str, prompt: int | None = None, preset: str = "paper", **changes) -> int:
        fields = {name.replace("__", "."): value for name, value in changes.items()}
        return make_workload(load_config(preset, variant, fields), Assumptions(prompt=prompt)).sequence.prompt

    one = act("full")
    assert act("no_library") == act("retroagent_rl") == one  # RetroAgent trains with one lesson
    everything = {"library__inject": "all", "library__top_k": 5}
    assert act("full", **everything) == one + 4 * 60
    assert act("retroagent_rl", **everything) == one + 2 * 60  # mean of the two halves of a group
    assert act("skillrl") == one + (2 * 6 + 6 + 5 - 1) * 60  # evolved general principles have a budget of their own
    assert act("skillrl", method__evolve_from="never") == act("skillrl", method__general_budget="shared")
    assert act("skillrl", method__evolve_from="never") == one + (6 + 6 + 5 - 1) * 60
    assert act("skillrl", method__limit=4) == one + 3 * 60
    assert act("skillrl", prompt=500) == 500
    assert act("full", preset="nano") < act("skillrl", preset="nano") < one
    text = to_text(paper.plan(load_config("paper", "skillrl"), gpu_machine(8, 80 * GB)))
    assert "act prompts hold 23 skills, all there can be, of 60 tokens each" in text


def test_a_conversation_is_one_sequence_and_each_call_stands_behind_what_was_said():
    work = make_workload(load_config("mini"), Assumptions(turns=10))
    assert [(s.stage, s.before) for s in work.stages] == [("query", 0), ("rerank", 290), ("act", 648), ("distill", 940)]
    assert work.sequence == Lengths(270 + 115 + 10 * 45 + 60, 20 + 5 + 10 * 8 + 55)
    shape = work.shape()
    assert shape.lengths.tolist() == [1055] * 32 and shape.rows.tolist() == [13] * 32
    assert work.micro_rows == 1 and len(work.updates(load_config("mini"), 1)) == 1


def test_the_paper_on_eight_gpus(paper):
    plan = paper.plan(load_config("paper"), gpu_machine(8, 80 * GB))
    n = 7_615_616_512
    memory, held = plan.memory, plan.memory.held
    assert held.parameters == held.gradients == held.reference == 4 * n / 8
    assert held.optimiser == 8 * n / 8
    block = 233_057_792
    assert (
        held.unsynchronised == held.gathered == 2 * (2 * block + n - 28 * block)
    )  # two blocks' and the embeddings', in bfloat16
    assert memory.writing == 2 * n  # gathered once a step
    assert memory.phases["generation"] == sum(
        (held.parameters, held.optimiser, held.reference, memory.writing, memory.generating)
    )
    assert plan.fits and plan.suggestions == ()
    assert max(memory.phases.values()) == memory.peak
    text, data = to_text(plan), to_json(plan)
    assert "act prompts hold" not in text
    assert "computed" in text and "7,615,616,512" in text and "copy of config.json of huggingface.co/Qwen" in text
    assert json.loads(json.dumps(data))["memory"]["peak"] == memory.peak


def test_the_backend_decides_what_generation_holds(paper):
    def plan(**given):
        overrides = {name.replace("__", "."): value for name, value in given.items()}
        return paper.plan(load_config("paper", overrides=overrides), gpu_machine(8, 80 * GB)).memory

    padded = plan()
    token = 2 * 28 * 4 * 128 * 2  # keys and values x layers x heads x dimension x bytes
    assert padded.cache_longest == pytest.approx(7 * 18_432 * token, rel=1e-3)  # 131,072 / (16,384 + 2,048)
    assert plan(policy__backend="continuous", policy__cache_tokens=65_536).cache == pytest.approx(65_536 * token)
    engine = plan(policy__backend="vllm", policy__vllm_memory=0.25)
    assert (engine.writing, engine.generating) == (0.25 * 80 * GB, 0)
    served = plan(policy__backend="vllm_server")
    assert served.phases["generation"] == padded.phases["generation"] - padded.writing - padded.generating


@pytest.mark.slow
def test_whole_float32_weights_are_cast_beside_the_originals(tiny):
    """To write, to score and to learn; sharded ones are gathered in the compute dtype, and adapters alone are float32."""
    planner = Planner.of(str(tiny))
    given = {"policy.model": str(tiny), "policy.dtype": "bfloat16", "rollout.max_prompt_tokens": 256}

    def memory(gpus: int = 1, **changes):
        fields = given | {name.replace("__", "."): value for name, value in changes.items()}
        return planner.plan(load_config("nano", overrides=fields), gpu_machine(gpus, GB)).memory

    whole = memory()
    assert whole.cast == whole.writing == 2 * planner.passes(load_config("nano", overrides=given)).parameters.total
    assert whole.phases["longest row"] == whole.held.total + whole.cast + whole.longest_row
    assert memory(policy__dtype="float32").cast == 0
    assert memory(2, train__sharding="fsdp2").cast == 0
    adapters = memory(policy__lora_rank=2)
    assert adapters.cast == adapters.writing == 2 * adapters.held.gradients / 4 > 0
    assert memory().cache == memory(policy__dtype="float32").cache / 2


@pytest.mark.slow
def test_a_plan_that_does_not_fit_suggests_plans_that_do(tiny):
    planner = Planner.of(str(tiny))
    sizes = {"policy.model": str(tiny), "rollout.max_prompt_tokens": 256, "rollout.tasks_per_step": 2}
    config = load_config("nano", overrides=sizes)
    roomy = planner.plan(config, gpu_machine(1, GB))
    assert roomy.fits
    tight = roomy.memory.phases["longest row"] * 1.2  # less than the micro-batch takes
    assert tight < roomy.memory.phases["micro-batch"]
    plan = planner.plan(config, gpu_machine(1, tight))
    assert not plan.fits
    kinds = [set(s.changes) & {"gpus", "policy.lora_rank"} for s in plan.suggestions]
    assert kinds == [set(), {"gpus"}, {"policy.lora_rank"}]
    text = to_text(plan)
    assert "It does not fit" in text and "DOES NOT FIT" in text
    for suggestion in plan.suggestions:
        changes = dict(suggestion.changes)
        machine = gpu_machine(changes.pop("gpus", 1), tight)
        mended = load_config("nano", overrides=sizes | changes)
        passes = planner.passes(mended)  # what was counted is not counted again
        memory = estimate_memory(mended, passes, machine, make_workload(mended, Assumptions()))
        assert memory.peak <= machine.usable and memory.peak == suggestion.peak
    half = suggestion.changes["train.tokens_per_micro_batch"]
    assert half < config.train.tokens_per_micro_batch and f"--set train.tokens_per_micro_batch={half}" in text


@pytest.mark.parametrize(
    "words, message",
    [
        ("--preset papr", "unknown preset 'papr'; did you mean 'paper'?"),
        ("--gpus 0", "gpus = 0: a plan needs at least 1"),
        ("--memory 0", "memory = 0: must be more than 0"),
        ("--gpus 9", "rollout.tasks_per_step=8 is less than the 9 processes"),
        ("--turns 17", "turns = 17: an episode takes more than 0 and at most environment.max_steps=16"),
        ("--set policy.model=./nowhere", "there is no folder './nowhere'"),
        ("--set rollout.max_prompt_tokens=4096", "are more than the model's 512 positions"),
        ("--set rollout.max_prompt_tokens=100", "is less than a typical distill prompt (128 tokens)"),
        ("--mfu 1.5", "must be shares of 1"),
    ],
)
def test_impossible_plans_are_refused(tiny, capsys, words, message):
    model = [] if "policy.model" in words else ["--set", f"policy.model={tiny}"]
    limits = [] if "max_prompt" in words else ["--set", "rollout.max_prompt_tokens=256"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", *model, *limits, *words.split()])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, spread", [("", False), ("--set train.sharding=fsdp2", True), ("--set train.sharding=fsdp2 --whole", False)]
)
def test_several_gpus_share_the_weights_where_the_configuration_says_so(tiny, capsys, words, spread):
    model = ["--set", f"policy.model={tiny}", "--set", "rollout.max_prompt_tokens=256"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", *model, "--gpus", "2", "--json", *words.split()])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["machine"]["sharded"] is spread


@pytest.mark.slow
def test_the_command_line_exits_with_the_verdict(tiny, capsys):
    words = ["plan", "--set", f"policy.model={tiny}", "--set", "rollout.max_prompt_tokens=256", "--json"]
    for memory, status in (("1", 0), ("0.0001", 1)):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--memory", memory])
        assert (ended.value.code or 0) == status
        assert json.loads(capsys.readouterr().out)["fits"] is (status == 0)


@pytest.mark.slow
def test_a_dry_run_checks_and_starts_nothing(tiny, world, tmp_path, capsys):
    def train(*words: str) -> tuple[int, str, str]:
        given = {"policy.model": tiny, "environment.data": world, "rollout.max_prompt_tokens": 256}
        sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        with pytest.raises(SystemExit) as ended:
            main(["train", "--out", str(tmp_path / "run"), "--dry-run", *sets, *words])
        return (ended.value.code or 0, *capsys.readouterr())

    status, out, _ = train()
    assert status == 0 and "It fits" in out and "this CPU" in out
    assert not list(tmp_path.iterdir())
    for words, message in (
        (("--set", "environment.train_split=trian"), "trian"),
        (("--nproc", "9"), "rollout.tasks_per_step=8 is less than the 9 processes"),
        (("--resume",), "there is no run at"),
    ):
        status, _, err = train(*words)
        assert status == 2 and message in err


def test_a_model_out_of_reach_is_named():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="'nobody/nothing' is no folder here, and the hub cannot be reached"):
            read_architecture("nobody/nothing")
