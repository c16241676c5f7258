"""The nano policy's teacher: expert, demonstrations, vocabulary and warm start."""

from __future__ import annotations

import json
import math
import random
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from datasets import Dataset

from skill1.config import load_config, load_section
from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import NOTHING, RunningGame
from skill1.envs.alfworld.game import Game
from skill1.envs.alfworld.generate import make_games
from skill1.envs.alfworld.homes import TASK_TYPES, facts
from skill1.envs.base import Observation
from skill1.nano.alfworld import NANO
from skill1.nano.alfworld.demonstrator import HomeDemonstrator, OneGame, common_places
from skill1.nano.alfworld.expert import HomeExpert
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.alfworld.reading import Request, compact, home, read_request, request_words, room
from skill1.nano.model import END, nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.warmstart import MuonAdamW, collate, make_trainer, score, tokenize
from skill1.policy import load_model
from skill1.prompts import ActContext, history_of
from skill1.records import Task
from skill1.registry import ConfigError

PROMPTS = CompactPrompts()
COMMON = common_places()
ARMS = ("none", "relevant", "irrelevant", "other_object", "other_home")
PLAIN = dict.fromkeys(("wrong_share", "raw_share", "rival_share", "several_share", "bank_share", "reflect_share"), 0.0)


def observe(episode: RunningGame) -> Observation:
    """What the vector environment would show of a running episode."""
    admissible = tuple(command for command in episode.admissible if command != "help")
    return Observation(episode.text, admissible, episode.game.instruction)


def command_of(answer: str, now: Observation) -> str:
    return PROMPTS.parse_action(answer, now.admissible).value


def blind(start: Observation) -> str:
    """The first answer of an expert that is told nothing."""
    return HomeExpert(start, COMMON).act(start)


@pytest.fixture(scope="module")
def games():
    """60 generated games of all task types, with the habitual place of their target as an entity token."""
    made = make_games(11, train=60, valid_seen=0, valid_unseen=0, homes=8, unseen_homes=1, receptacles=16)
    return [(Game.parse(g.game_dict), g.habitual.replace(" ", "_")) for g in made]


@pytest.fixture(scope="module")
def real_games(shared_data, tmp_path_factory):
    """100 published games."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(shared_data / "alfworld" / "valid_seen.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    tree = GameTree(folder)
    files = tree.games("valid_seen")
    return [tree.game(files[i].id) for i in sorted(random.Random(0).sample(range(len(files)), 100))]


def play(game: Game, steps: int, hint: str | None = None) -> list[tuple[str, str]] | None:
    """The expert's (observation, command) pairs if it wins within `steps`."""
    episode = RunningGame(game)
    now = start = observe(episode)
    expert, trajectory = HomeExpert(start, COMMON, hint), []
    while not episode.won and len(trajectory) < steps:
        answer = expert.act(now)
        command = command_of(answer, now)
        trajectory.append((now.text, command))
        episode.step(command)
        now = observe(episode)
        expert.moved(answer, now)
    return trajectory if episode.won else None


# -- expert -----------------------------------------------------------------------------------------------------------


def test_the_expert_wins_nearly_all_generated_games(games):
    won = [play(game, 50) for game, _ in games]
    assert {read_request(game.instruction).kind for game, _ in games} == {"put", "two", "clean", "heat", "cool", "look"}
    assert np.mean([w is not None for w in won]) >= 0.95


def test_the_expert_wins_most_published_games(real_games):
    won = [play(game, 50) for game in real_games[::3]]
    assert np.mean([w is not None for w in won]) >= 0.9


def test_the_expert_never_goes_where_it_stands(real_games, games):
    """In published homes places stand together, and going from one to the other is refused."""
    refused = 0
    for game in [*real_games[::3], *(game for game, _ in games)]:
        episode = RunningGame(game)
        now = observe(episode)
        expert, last = HomeExpert(now, COMMON), None
        for _ in range(50):
            if episode.won:
                break
            answer = expert.act(now)
            assert answer != last or now.text != NOTHING
            episode.step(command_of(answer, now))
            now, last = observe(episode), answer
            refused += now.text == NOTHING
            expert.moved(answer, now)
    assert refused > 3


def test_a_hint_is_followed_first_and_then_given_up(games):
    followed = 0
    for (game, _), seed in zip(games[:20], range(20), strict=True):
        start = observe(RunningGame(game))
        for place in random.Random(seed).sample(room(start), 3):
            assert HomeExpert(start, COMMON, place).act(start) == f"go_to {place}"
            followed += f"go_to {place}" != blind(start)
        wrong = next(p for p in room(start) if not _holds(game, p))
        trajectory = play(game, 60, wrong)
        visits = [command for _, command in trajectory or ()]
        assert trajectory and visits[0] == f"go to {wrong.replace('_', ' ')}"
    assert followed > 30


def _holds(game: Game, place: str) -> bool:
    episode = RunningGame(game)
    episode.step(f"go to {place.replace('_', ' ')}")
    episode.step(f"open {place.replace('_', ' ')}")
    return any(c.startswith(f"take {read_request(game.instruction).target} ") for c in episode.admissible)


def test_a_true_hint_makes_the_search_shorter(games):
    def steps(with_hint: bool) -> list[int]:
        return [len(play(game, 60, place if with_hint else None) or range(60)) for game, place in games]

    assert np.mean(steps(True)) < np.mean(steps(False)) - 1


def test_a_hint_for_a_place_that_is_not_there_is_ignored(games):
    start = observe(RunningGame(games[0][0]))
    assert HomeExpert(start, COMMON, "garden_9").act(start) == blind(start)


KINDS = {
    "pick_and_place_simple": "put", "look_at_obj_in_light": "look", "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat", "pick_cool_then_place_in_recep": "cool", "pick_two_obj_and_place": "two",
}  # fmt: skip


@pytest.mark.parametrize("task", TASK_TYPES)
def test_every_task_sentence_is_read(task):
    templates = facts().goals[task]["templates"]
    assert templates
    for template in templates:
        for target, place in (("mug", "diningtable"), ("butterknife", "garbagecan"), ("cd", "toiletpaperhanger")):
            sentence = template.format(obj=target, recep=place, toggle="desklamp", mrecep="")
            where = "desklamp" if task == "look_at_obj_in_light" else place
            assert read_request(sentence) == Request(KINDS[task], target, where)


def test_other_sentences_are_refused():
    with pytest.raises(ValueError, match="not a task sentence.*'bake a cake'"):
        read_request("bake a cake")


def test_slips_are_commands_of_the_room(games):
    start = observe(RunningGame(games[0][0]))
    slips = [HomeExpert(start, COMMON).slip(start, random.Random(i)) for i in range(200)]
    possible = {compact(command) for command in start.admissible}
    assert 0.1 < np.mean([s not in possible for s in slips]) < 0.5  # some are impossible
    assert all(s.split(" ", 1)[0] in ("go_to", "open", "close", "take") for s in slips)


# -- demonstrations ---------------------------------------------------------------------------------------------------


def options(**changed):
    overrides = {f"warm_start.{name}": value for name, value in changed.items()}
    return load_section(WarmStartConfig, "warm_start", "nano", overrides)


def demonstrations(config):
    return NANO.demonstrator(config).demonstrations()


def demonstrate(games, **changed):
    """Per game: (game, habitual place, first observation, its demonstrations)."""
    config = options(**{"seed": 1, **PLAIN, **changed})
    demonstrator, task = HomeDemonstrator(config), Task("alfworld", "train", "a game", "")
    return [
        (game, place, observe(RunningGame(game)), list(demonstrator.demonstrate(OneGame(game, 40), task, place)))
        for game, place in games
    ]


def test_a_relevant_skill_names_the_habitual_place_and_is_followed(games):
    for game, place, start, rows in demonstrate(games[:20], relevant_share=1.0, foreign_share=0.0, first_moves=0):
        acts = [row for row in rows if row.stage == "act"]
        assert acts and all(f"<skill> this here in {place} " in row.prompt for row in acts)
        assert acts[0].answer == f"go_to {place}"


def test_a_foreign_skill_is_shown_and_ignored(games):
    shown = 0
    for game, place, start, rows in demonstrate(games[:20], relevant_share=0.0, foreign_share=1.0, first_moves=0):
        first = next(row for row in rows if row.stage == "act")
        assert first.answer == blind(start)
        assert "<skill> this here " not in first.prompt
        shown += "<skill> none" not in first.prompt
    assert shown > 10


def test_first_moves_come_in_pairs_that_only_reading_the_skill_tells_apart(games):
    relevant = foreign = 0
    for game, _, start, rows in demonstrate(games[:30], relevant_share=0.0, foreign_share=0.0, first_moves=2):
        skilled = [row for row in rows if row.stage == "act" and "<skill> none" not in row.prompt]
        for row in skilled:
            skill, _, place = row.prompt.partition("<skill> ")[2].removesuffix(" <write>").partition(" in ")
            if skill == "this here":
                assert row.answer == f"go_to {place}" and row.kind == "first move, relevant skill"
                relevant += 1
            else:
                assert row.answer == blind(start)
                assert place in room(start) and row.kind == "first move, foreign skill"
                foreign += 1
    assert relevant == 60 and foreign > 40


def test_the_relevant_candidate_is_ranked_first(games):
    asked = 0
    for game, place, start, rows in demonstrate(games, rerank_relevant=1.0, reranks=2):
        for row in (row for row in rows if row.stage == "rerank"):
            candidates = row.prompt.partition("<cand> ")[2].partition(" <")[0].split(" ; ")
            ranking, parsed = PROMPTS.parse_rerank(row.answer, len(candidates))
            assert parsed and len(row.answer.split()) == 1 and len(ranking) == len(candidates)
            about = "this here in "
            fits = [candidate.startswith(about) for candidate in candidates]
            assert fits[ranking[0]]
            assert row.kind == f"rerank, relevant listed {'first' if fits[0] else 'later'}"
            asked += 1
    assert asked == 2 * (len(games) - 8)  # the pool of foreign skills must fill first


def test_a_wrong_skill_about_the_task_is_followed_too(games):
    wrong = 0
    for game, place, _, rows in demonstrate(games[:20], relevant_share=1.0, first_moves=0, wrong_share=1.0):
        first = next(row for row in rows if row.stage == "act")
        about, _, said = first.prompt.partition("<skill> ")[2].removesuffix(" <write>").partition(" in ")
        assert about == "this here" and first.answer == f"go_to {said}"
        wrong += said != place
    assert wrong > 10


def test_of_several_candidates_about_the_task_the_first_is_ranked_first(games):
    rivals = 0
    for game, _, _, rows in demonstrate(games, rerank_relevant=1.0, reranks=2, rival_share=1.0):
        for row in (row for row in rows if row.stage == "rerank"):
            candidates = row.prompt.partition("<cand> ")[2].partition(" <")[0].split(" ; ")
            about = "this here in "
            fits = [candidate.startswith(about) for candidate in candidates]
            assert len(candidates) <= 5 and int(row.answer) == fits.index(True) + 1
            rivals += sum(fits) > 1
    assert rivals > 20


def test_raw_trajectories_are_followed_and_ranked_by_what_they_are_about(games):
    kinds = Counter()
    for game, _, start, rows in demonstrate(games, raw_share=1.0, rerank_relevant=0.0, reranks=0, first_moves=0):
        task = f"{request_words(start)} : ".replace(f" {read_request(game.instruction).target} ", " this ")
        for row in (row for row in rows if "raw" in row.kind):
            kinds[row.kind] += 1
            if row.stage == "rerank":
                own = row.prompt.partition("<cand> ")[2].index(task)
                before = row.prompt.partition("<cand> ")[2][:own]
                assert sum(f" : {n} ; " in before for n in range(1, 5)) == int(row.answer) - 1
                continue
            shown = row.prompt.partition("<skill> ")[2]
            if row.kind == "first move, relevant raw trajectory":
                assert shown.startswith(task) and f"take {read_request(game.instruction).target}_" in shown
                assert f" {row.answer.removeprefix('go_to ')} ;" in shown, "where the object was taken"
            else:
                assert row.answer == blind(start)
    assert min(kinds.values()) > 20 and len(kinds) == 3


def test_whole_episodes_are_played_with_raw_trajectories(games):
    kinds = Counter()
    played = demonstrate(games, raw_episode_share=1.0, wrong_share=0.4, noise=0.0, first_moves=0, reranks=0)
    for game, right, start, rows in played:
        task, target = f"{request_words(start)} : ", read_request(game.instruction).target
        acts = [row for row in rows if row.stage == "act"]
        [shown] = {row.prompt.partition("<skill> ")[2] for row in acts}  # one for the whole episode
        if shown.startswith(task.replace(f" {target} ", " this ")):
            followed = acts[0].answer.removeprefix("go_to ")
            taken = shown.partition(f"take {target}_")[2].split()[1]
            kinds["right" if taken == right else "elsewhere"] += 1
            assert followed == taken, "the expert goes where the object was taken, whether or not it is there"
        elif " : " in shown:
            kinds["foreign"] += 1
            assert acts[0].answer == blind(start)
        else:
            kinds["none"] += 1
    assert kinds["right"] > 10 and kinds["elsewhere"] > 5 and kinds["foreign"] > 5, kinds


def test_treatments_are_repeated_and_searching_on_is_thinned(games):
    def count(**changed):
        rows = (row for *_, rows in demonstrate(games, noise=0.0, **changed) for row in rows)
        return Counter(row.kind for row in rows)

    once, thrice = (count(treatment_copies=n, search_share=1.0) for n in (1, 3))
    assert thrice["treat"] == 3 * once["treat"] > 0
    assert thrice - once == Counter({"treat": 2 * once["treat"]})
    thinned = count(treatment_copies=1, search_share=0.5)
    assert thinned["search on"] == pytest.approx(once["search on"] / 2, rel=0.25)
    assert thinned["treat"] == once["treat"]


def test_what_the_expert_is_doing(games):
    for game, place in games[:20]:
        episode = RunningGame(game)
        now = observe(episode)
        expert = HomeExpert(now, COMMON, place)
        while not episode.won:
            verb = (answer := expert.act(now)).split()[0]
            expected = {
                "take": {"search"}, "open": {"search", "deliver", "search on"}, "move": {"deliver"},
                **{key: {"treat"} for key in ("clean", "heat", "cool", "use")},
            }  # fmt: skip
            assert expert.doing in expected.get(verb, {"search", "search on", "treat", "deliver"}), answer
            episode.step(command_of(answer, now))
            now = observe(episode)
            expert.moved(answer, now)


def test_the_other_answers_are_what_the_parsers_expect(games):
    lessons = 0
    for game, _, start, rows in demonstrate(games[:30]):
        target = read_request(game.instruction).target
        [query] = [row for row in rows if row.stage == "query"]
        assert query.answer == f"{target} here"
        [distill] = [row for row in rows if row.stage == "distill"]
        lesson = PROMPTS.parse_distill(distill.answer, start)
        if lesson is None:
            assert distill.answer == "none"
            continue
        lessons += 1
        assert lesson.desc == PROMPTS.parse_query(query.answer, start).value == f"{target} {home(start)}"
        found = lesson.strategy.removeprefix(f"{target} {home(start)} in ")
        taken = [row.answer for row in rows if row.stage == "act" and row.answer.startswith(f"take {target}_")]
        assert any(answer.endswith(f" {found}") for answer in taken) or found in distill.prompt
        for row in (row for row in rows if row.stage == "act"):
            assert PROMPTS.parse_action(row.answer, ()).well_formed
    assert lessons > 20


def test_demonstrations_know_only_the_vocabulary_and_repeat_exactly():
    config = options(games=50, games_per_world=10)
    rows = list(demonstrations(config))
    assert {row.stage for row in rows} == {"query", "rerank", "act", "distill"}
    assert {row.kind for row in rows} > {"reflect, judged", "reflect, told", "rerank, raw trajectories"}
    data = tokenize(iter(rows), nano_tokenizer("alfworld"))  # raises on an unknown word
    assert len(data) == len(rows) and max(data["length"]) < 512
    end = nano_tokenizer("alfworld").eos_token_id
    assert all(ids[-1] == end and ids.count(end) == 1 for ids in data["input_ids"])
    assert list(islice(demonstrations(config), 300)) == rows[:300]


def test_no_answer_goes_where_the_player_stands(games):
    acts = [row for *_, rows in demonstrate(games, noise=0.3) for row in rows if row.stage == "act"]
    for row in acts:
        here = row.prompt.partition("<at> ")[2].partition(" <")[0].split()
        assert row.answer.removeprefix("go_to ") not in here
    assert len(acts) > 500


def test_an_unknown_word_is_refused():
    row = next(demonstrations(options(games=1)))
    with pytest.raises(ValueError, match="outside the nano vocabulary in: .*unicorn_1"):
        tokenize(iter([replace(row, answer="take unicorn_1")]), nano_tokenizer("alfworld"))


def test_the_vocabulary_covers_published_games(real_games):
    assert len(real_games) == 100
    tokenizer = nano_tokenizer("alfworld")
    seen = set()
    for game in real_games:
        episode = RunningGame(game)
        start = now = observe(episode)
        trajectory = []
        texts = [PROMPTS.query(start)]
        for command in game.walkthrough:
            texts.append(PROMPTS.act(ActContext(start, "", len(trajectory), history_of(trajectory, 2), now)))
            texts += [compact(c) for c in now.admissible]
            trajectory.append((now.text, command))
            episode.step(command)
            now = observe(episode)
        assert episode.won
        texts.append(PROMPTS.distill(start, True, trajectory, None))
        unknown = {w for text in texts for w in text.split()} - tokenizer.get_vocab().keys()
        assert not unknown, (game.instruction, unknown)
        seen |= {w for text in texts for w in text.split()}
    assert len(seen) > 300


# -- warm start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"receptacles_low": 20, "receptacles_high": 12}, "receptacles_low must not be above .*receptacles_high"),
        ({"receptacles_low": 3}, "receptacles_low = 3: Input should be greater than or equal to 5"),
        ({"width": 100, "heads": 3}, "width must be a multiple of twice warm_start.heads"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        options(**changed)


def losses(model, row) -> tuple[list[float], list[float]]:
    """Next-token losses of a row's prompt and of its answer, from one unpadded forward pass."""
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        logp = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
    each = (-logp[torch.arange(len(ids[0]) - 1), ids[0, 1:]]).tolist()
    return each[: row["prompt"] - 1], each[row["prompt"] - 1 :]


def load(folder):
    return load_model(load_config("nano", overrides={"policy.model": str(folder)}).policy)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_loss_is_that_of_answers_plus_a_share_of_the_prompts(nano, share, tmp_path):
    model, tokenizer = load(nano)
    texts = [("<query> mug <write>", "mug here"), ("<act> put mug shelf <skill> none <write>", "look")]
    rows = []
    for prompt, answer in texts:
        ids = tokenizer.encode(prompt), tokenizer.encode(f"{answer} {END}")
        rows.append({"input_ids": ids[0] + ids[1], "prompt": len(ids[0]), "length": len(ids[0]) + len(ids[1])})
    prompts, answers = (np.concatenate(parts) for parts in zip(*(losses(model, row) for row in rows), strict=True))
    config = options(prompt_loss=share, prompt_sample=1.0)
    trainer = make_trainer(model, tokenizer, Dataset.from_list(rows), config, tmp_path)
    loss = trainer.compute_loss(model, collate(rows, tokenizer.pad_token_id))
    assert loss.item() == pytest.approx(np.mean(answers) + share * np.mean(prompts), rel=1e-5)


def test_muon_gets_the_blocks_matrices_and_adamw_all_else(nano):
    model, _ = load(nano)
    muon, adamw = MuonAdamW(model, 0.004).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    of_muon, of_adamw = ({names[id(p)] for p in group["params"]} for group in (muon, adamw))
    block = "model.layers.0."
    parts = "self_attn.q self_attn.k self_attn.v self_attn.o mlp.gate mlp.up mlp.down".split()
    assert of_muon == {f"{block}{part}_proj.weight" for part in parts}
    norms = {f"{block}input_layernorm.weight", f"{block}post_attention_layernorm.weight", "model.norm.weight"}
    biases = {f"{block}self_attn.{part}_proj.bias" for part in "qkv"}
    assert of_adamw == {"model.embed_tokens.weight"} | norms | biases
    assert {k: muon[k] for k in ("lr", "weight_decay", "momentum", "adjust_lr_fn")} == {
        "lr": 0.004, "weight_decay": 0.0, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"
    }  # fmt: skip
    assert (adamw["lr"], adamw["betas"], adamw["weight_decay"], adamw["fused"]) == (0.004, (0.9, 0.98), 0.01, True)


def test_a_step_is_that_of_either_optimizer_at_the_scheduled_rate(nano):
    (ours, _), (other, _) = load(nano), load(nano)
    optimizer, before = MuonAdamW(ours, 0.004), load(nano)[0].state_dict()
    for group in optimizer.param_groups:
        group["lr"] = 0.001  # as a scheduler does it
    apart = [
        torch.optim.Muon(
            [p for name, p in other.named_parameters() if name.endswith("_proj.weight")], lr=0.001, weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [p for name, p in other.named_parameters() if not name.endswith("_proj.weight")], lr=0.001,
            betas=(0.9, 0.98), weight_decay=0.01, fused=True,
        ),
    ]  # fmt: skip
    for model, steps in ((ours, [optimizer]), (other, apart)):
        model(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
        for each in steps:
            each.step()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) and not torch.equal(value, before[name]), name


def test_the_rate_rises_for_100_steps_and_falls_linearly_to_zero(nano, tmp_path):
    model, tokenizer = load(nano)
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "prompt": 1, "length": 3, "kind": "a"}])
    trainer = make_trainer(model, tokenizer, rows, options(learning_rate=0.004, epochs=2.5, rows_per_step=7), tmp_path)
    scheduler = trainer.create_scheduler(300, trainer.optimizer)
    rates = [scheduler.get_last_lr()]
    for _ in range(300):
        trainer.optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr())
    expected = [0.004 * min(step / 100, (300 - step) / 200) for step in range(301)]
    np.testing.assert_allclose(rates, np.stack([expected, expected], axis=1), rtol=1e-12)
    arguments = trainer.args
    assert isinstance(trainer.optimizer, MuonAdamW) and arguments.max_grad_norm == 1.0
    assert (arguments.num_train_epochs, arguments.per_device_train_batch_size) == (2.5, 7)
    assert (arguments.seed, arguments.gradient_accumulation_steps) == (options().seed, 1)
    assert (arguments.train_sampling_strategy, arguments.bf16) == ("group_by_length", False)


@pytest.mark.slow
def test_a_short_warm_start_lowers_the_loss_and_saves_a_model(nano, warm):
    config = options(games=3, seed=99)

    def loss(folder) -> float:
        model, tokenizer = load(folder)
        return float(np.mean([x for row in tokenize(demonstrations(config), tokenizer) for x in losses(model, row)[1]]))

    assert loss(nano) == pytest.approx(
        math.log(len(nano_tokenizer("alfworld"))), abs=0.5
    )  # uniform over the vocabulary
    assert loss(warm) < loss(nano) - 1.5
    scores = json.loads((warm / "warm_start.json").read_text())["held_out"]
    assert {"query", "distill", "search on", "treat", "first move, relevant skill"} <= scores.keys()
    assert all(0 <= of["right"] <= 1 and of["n"] > 0 for of in scores.values())


def test_held_out_answers_are_right_when_every_token_is(nano):
    """What the model itself would say is right; one token changed is not; of a ranking the first token decides."""
    model, tokenizer = load(nano)
    prompt = tokenizer.encode("<query> mug <write>")
    said = list(prompt)
    with torch.no_grad():
        for _ in range(3):
            said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
    other = said[:-1] + [(said[-1] + 1) % len(tokenizer)]
    first = said[: len(prompt)] + [(said[len(prompt)] + 1) % len(tokenizer)] + said[len(prompt) + 1 :]
    rows = [
        {"input_ids": ids, "prompt": len(prompt), "length": len(ids), "kind": kind}
        for kind, ids in (
            ("a", said),
            ("a", other),
            ("rerank", said),
            ("rerank", other),
            ("rerank", first),
            ("a", said),
        )
    ]
    scores = score(model, Dataset.from_list(rows), 4, tokenizer.pad_token_id)
    assert scores == {"a": {"right": 0.667, "n": 3}, "rerank": {"right": 0.667, "n": 3}}
