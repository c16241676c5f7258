"""The game generator: its games load and are won in both engines, and its worlds are built as documented."""

from __future__ import annotations

import filecmp
import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.alfworld.game import Game
from skill1.envs.alfworld.generate import generate, make_games
from skill1.envs.alfworld.homes import NAMES, TASK_TYPES, WorldParameters, draw_homes, facts, player_names

SPLITS = dict(train=24, valid_seen=8, valid_unseen=6)
SPARE = dict(train=120, valid_seen=12, valid_unseen=6, homes=8, unseen_homes=2, receptacles=16, targets_per_home=4)
SMALL = dict(seed=3, **SPLITS, homes=3, unseen_homes=2, receptacles=8, objects=7, targets_per_home=4)


@pytest.fixture(scope="module")
def world():
    """The default world with fewer games: its parameters, homes, and games with what the engine parses from them."""
    sizes = dict(train=384, valid_seen=48, valid_unseen=36)
    parameters = WorldParameters(seed=11, **sizes)
    homes = {home.plan: home for home in draw_homes(parameters)}
    return parameters, homes, [(game, Game.parse(game.game_dict)) for game in make_games(11, **sizes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "games"
    generate(out, **SMALL)
    return out


def placements(parsed: Game) -> dict[str, list[str]]:
    """Lower-case object type -> names of the receptacles that its instances lie in at the start."""
    found = defaultdict(list)
    for receptacle, contents in zip(parsed.receptacles, parsed.start.contents, strict=True):
        for item in contents:
            found[parsed.items[item].kind].append(receptacle.name)
    return found


def play(episode, commands) -> list[bool]:
    won = [episode.won]
    for command in commands:
        assert command in episode.admissible, (command, episode.admissible)
        episode.step(command)
        won.append(episode.won)
    return won


def test_every_walkthrough_wins_with_its_last_command(world):
    _, _, games = world
    for game, parsed in games:
        won = play(RunningGame(parsed), game.game_dict["walkthrough"])
        assert won == [False] * (len(won) - 1) + [True], game.id
        assert len(won) - 1 <= 12


@pytest.mark.parametrize("receptacles, objects, targets, habit", [(5, 4, 1, 0.0), (8, 8, 6, 0.5), (12, 20, 3, 1.0)])
def test_walkthroughs_win_in_worlds_of_other_sizes(receptacles, objects, targets, habit):
    sizes = dict(receptacles=receptacles, objects=objects, targets_per_home=targets, habit=habit)
    for game in make_games(5, train=60, valid_seen=12, valid_unseen=12, homes=6, unseen_homes=3, **sizes):
        parsed = Game.parse(game.game_dict)
        assert len(parsed.items) == objects
        assert abs(len(parsed.receptacles) - receptacles) <= receptacles // 5
        assert play(RunningGame(parsed), game.game_dict["walkthrough"])[-1]


@pytest.mark.slow
def test_unmodified_alfworld_loads_the_games_and_the_walkthroughs_win_there(tmp_path, monkeypatch, capsys):
    alfred = pytest.importorskip("alfworld.agents.environment.alfred_tw_env", reason="alfworld is not installed")
    sizes = SMALL | dict(train=6, valid_seen=6, valid_unseen=4)
    report = generate(tmp_path / "games", **sizes)
    assert report.counts["train"] == dict.fromkeys(sorted(TASK_TYPES), 1)
    data = tmp_path / "games" / "json_2.1.1"
    config = {
        "dataset": {
            "data_path": str(data / "train"),
            "eval_id_data_path": str(data / "valid_seen"),
            "eval_ood_data_path": str(data / "valid_unseen"),
            "num_train_games": -1,
            "num_eval_games": -1,
        },
        "logic": {"domain": "unused", "grammar": "unused"},
        "env": {
            "task_types": [1, 2, 3, 4, 5, 6],
            "expert_type": "handcoded",
            "goal_desc_human_anns_prob": 0.0,
            "domain_randomization": False,
        },
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": 50}},
    }
    assert alfred.AlfredTWEnv(config, train_eval="eval_in_distribution").num_games == 6
    assert alfred.AlfredTWEnv(config, train_eval="eval_out_of_distribution").num_games == 4
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # TextWorld's translator overwrites it
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    env = alfred.AlfredTWEnv(config, train_eval="train").init_env(batch_size=1)
    played = set()
    for _ in range(6):
        observations, infos = env.reset()
        path = Path(infos["extra.gamefile"][0])
        played.add(path)
        game = json.loads(path.read_text())
        episode = RunningGame(Game.parse(game))
        for command in game["walkthrough"]:
            assert observations[0].strip() == episode.text.strip()
            assert sorted(infos["admissible_commands"][0]) == list(episode.admissible)
            assert not infos["won"][0]
            episode.step(command)
            observations, _, _, infos = env.step([command])
        assert infos["won"][0] and episode.won, path
    env.close()
    assert len(played) == 6
    capsys.readouterr()


def test_the_same_parameters_give_the_same_bytes(folder, tmp_path):
    generate(tmp_path / "again", **SMALL)
    files, again = (
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        for root in (folder, tmp_path / "again")
    )
    assert files == again
    assert len(files) == 2 * (24 + 8 + 6) + 3
    _, differing, unreadable = filecmp.cmpfiles(folder, tmp_path / "again", files, shallow=False)
    assert not differing and not unreadable


def test_games_in_memory_do_not_depend_on_the_process(world):
    script = (
        "import hashlib, json, sys\n"
        "from skill1.envs.alfworld.generate import make_games\n"
        "games = [(g.id, g.game_dict, g.traj_dict) for g in make_games(11, train=5, valid_seen=1, valid_unseen=1)]\n"
        "assert 'textworld' not in sys.modules\n"  # the layouts alone are enough: the package's wheel without extras
        "print(hashlib.sha256(json.dumps(games[:5]).encode()).hexdigest())\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    short = list(make_games(11, train=5, valid_seen=1, valid_unseen=1))
    assert [g.game_dict for g in short[:5]] == [g.game_dict for g, _ in world[2][:5]]  # whatever the split's size


def test_homes_of_a_seed_are_fixed_and_of_another_seed_are_not(world):
    _, homes, games = world
    rooms = defaultdict(set)
    for game, parsed in games:
        names = tuple(receptacle.name for receptacle in parsed.receptacles)
        rooms[game.home].add(names)
        assert names == tuple(r.name for r in homes[game.home].receptacles)
    assert set(rooms) == set(homes) and all(len(lists) == 1 for lists in rooms.values())
    kinds = [Counter(r.kind for r in home.receptacles) for home in homes.values()]
    differences = [((a - b) + (b - a)).total() for i, a in enumerate(kinds) for b in kinds[:i]]
    assert min(differences) >= 4  # a home is recognised by its receptacles
    other = {home.plan: home for home in draw_homes(WorldParameters(seed=12, homes=40))}
    common = set(homes) & set(other)
    assert len(common) >= 3
    for plan in common:
        assert {r.name for r in other[plan].receptacles} != {r.name for r in homes[plan].receptacles}


def test_homes_have_what_their_tasks_need(world):
    parameters, homes, games = world
    seen = [home for home in homes.values() if not home.unseen]
    assert len(seen) == parameters.homes and len(homes) - len(seen) == parameters.unseen_homes
    assert Counter(home.room for home in seen)["Kitchen"] == parameters.homes // 2
    held_out = {plan for plans in facts().unseen_plans.values() for plan in plans}
    for home in homes.values():
        kinds = Counter(r.kind for r in home.receptacles)
        assert 13 <= len(home.receptacles) <= 19
        assert len({r.location for r in home.receptacles}) == len(home.receptacles)
        assert (home.plan in held_out) == home.unseen
        assert len(home.targets) == len(set(home.targets)) == parameters.targets_per_home
        assert set(home.targets) <= set(home.kinds)
        if home.room == "Kitchen":
            assert kinds["Fridge"] == kinds["Microwave"] == 1 and kinds["SinkBasin"] >= 1
        if home.room == "Bathroom":
            assert kinds["SinkBasin"] >= 1
        assert bool(home.lamps) == (home.room in ("Bedroom", "LivingRoom"))
        for kind, habit in home.habits.items():
            assert habit in home.receptacles
            assert kind in home.lamps or kind in facts().holds[habit.kind]


def test_placements_follow_the_habits_at_the_asked_rate(world):
    parameters, homes, games = world
    expected = variance = observed = 0.0
    for game, parsed in games:
        home = homes[game.home]
        assert home.habits[game.target_type].name == game.habitual
        goal = game.traj_dict["pddl_params"]["parent_target"]
        by_name = {kind.lower(): kind for kind in (*home.kinds, *home.lamps)}
        for name, places in placements(parsed).items():
            kind = by_name[name]
            possible = [r for r in home.places(kind) if not (kind == game.target_type and r.kind == goal)]
            assert set(places) <= {r.name for r in possible}
            p = parameters.habit + (1 - parameters.habit) / len(possible)  # the random place may be the habitual one
            observed += places.count(home.habits[kind].name)
            expected += p * len(places)
            variance += p * (1 - p) * len(places)
    assert abs(observed - expected) < 4 * math.sqrt(variance)


@pytest.mark.parametrize("habit", [0.0, 1.0])
def test_habit_at_its_ends(habit):
    at_home = [
        place == game.habitual
        for game in make_games(2, habit=habit, train=150, valid_seen=0, valid_unseen=0)
        for place in placements(Game.parse(game.game_dict))[game.target_type.lower()]
    ]
    assert all(at_home) if habit else sum(at_home) < len(at_home) / 3  # a target has five or more possible places


def test_a_spare_lies_anywhere_and_in_the_open_where_things_are_tidy():
    kept, habits_closed = [], []
    for game in make_games(4, **SPARE | {"spares": 2, "tidy": 1.0, "habit": 1.0}):
        parsed = Game.parse(game.game_dict)
        open_able = {r.name: r.openable for r in parsed.receptacles}
        wanted = 2 if game.traj_dict["task_type"] == "pick_two_obj_and_place" else 1
        places = placements(parsed)[game.target_type.lower()]
        assert len(places) == wanted + 2 and places.count(game.habitual) >= wanted
        others = [place for place in places if place != game.habitual]
        kept += [open_able[place] for place in others]
        habits_closed.append(open_able[game.habitual])
        goal = game.traj_dict["pddl_params"]["parent_target"].lower()
        assert not [place for place in places if place.split()[0] == goal]
        assert play(RunningGame(parsed), parsed.walkthrough)[-1]
    # nearly every object fits into some closed and onto some open place
    assert len(kept) > 200 and sum(kept) / len(kept) < 0.1 and sum(habits_closed) / len(habits_closed) > 0.8


def test_what_moves_is_elsewhere_in_the_first_half_of_train():
    parameters = WorldParameters(seed=4, **SPARE | {"moved": 0.5, "habit": 1.0})
    homes = {home.plan: home for home in draw_homes(parameters)}
    moved = {(home.plan, kind) for home in homes.values() for kind in home.former}
    pairs = [(home.plan, kind) for home in homes.values() for kind in home.targets]
    assert 0.3 < len(moved) / len(pairs) < 0.7
    places = defaultdict(set)
    for number, game in enumerate(make_games(4, **SPARE | {"moved": 0.5, "habit": 1.0})):
        early = game.split == "train" and number < parameters.train // 2
        home, kind = homes[game.home], game.target_type
        expected = home.former.get(kind, home.habits[kind]) if early else home.habits[kind]
        assert game.habitual == expected.name
        assert set(placements(Game.parse(game.game_dict))[kind.lower()]) == {expected.name}
        places[game.home, kind].add(game.habitual)
    assert any(len(found) == 2 for found in places.values())
    assert all(len(found) == 1 for pair, found in places.items() if pair not in moved)


def test_a_home_has_one_name_which_its_tasks_say(world):
    _, homes, games = world
    assert len({home.name for home in homes.values()}) == len(homes) and {h.name for h in homes.values()} <= set(NAMES)
    for game, parsed in games:
        assert parsed.instruction.endswith(f" in the {homes[game.home].name} house.")


def test_games_state_their_task(world):
    _, homes, games = world
    assert len({game.id for game, _ in games}) == len(games)
    for game, parsed in games:
        traj, params = game.traj_dict, game.traj_dict["pddl_params"]
        split, task, trial = game.id.split("/")
        assert (split, trial) == (game.split, traj["task_id"])
        goal = params["parent_target"] or params["toggle_target"]
        assert task == f"{traj['task_type']}-{game.target_type}-None-{goal}-{game.home}"
        assert params["object_target"].lower() == parsed.goal.object and goal.lower() == parsed.goal.target
        assert game.target_type.lower() in parsed.instruction and goal.lower() in parsed.instruction
        home = homes[game.home]
        assert params["parent_target"] != home.habits[game.target_type].kind
        assert len(parsed.items) == 14
        counts = Counter(item.kind for item in parsed.items)
        two = traj["task_type"] == "pick_two_obj_and_place"
        assert counts[game.target_type.lower()] == (2 if two else 1)
        assert max(counts.values()) <= 3
        assert not parsed.at.get(parsed.start.location)  # nothing stands where the agent starts


def test_train_and_valid_seen_revisit_the_same_homes_for_the_same_targets(world):
    parameters, homes, games = world
    pairs = {split: Counter() for split in SPLITS}
    tasks = {split: Counter() for split in pairs}
    for game, _ in games:
        pairs[game.split][game.home, game.target_type] += 1
        tasks[game.split][game.traj_dict["task_type"]] += 1
    assert set(pairs["train"]) == {(h.plan, kind) for h in homes.values() if not h.unseen for kind in h.targets}
    assert min(pairs["train"].values()) >= 2
    assert set(pairs["valid_seen"]) <= set(pairs["train"])
    assert {plan for plan, _ in pairs["valid_unseen"]} == {h.plan for h in homes.values() if h.unseen}
    for split, counts in tasks.items():
        assert set(counts) == set(TASK_TYPES)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert counts.total() == getattr(parameters, split)
    problems = {game.game_dict["pddl_problem"].split("\n", 2)[2] for game, _ in games}  # without the trial's name
    assert len(problems) == len(games)


def test_valid_seen_stays_within_a_small_training_split():
    games = list(make_games(4, train=7, valid_seen=40, valid_unseen=0))
    trained = {(g.home, g.target_type) for g in games if g.split == "train"}
    assert {(g.home, g.target_type) for g in games if g.split == "valid_seen"} == trained


def test_numbers_count_down_over_sorted_ids():
    ids = ["Drawer|+01.00|+00.00|+00.00", "Drawer|-02.00|+00.00|+00.00", "Sink|+00.00|+00.00|+00.00|SinkBasin"]
    # "_minus_" sorts before "_plus_"
    assert player_names(ids) == {ids[1]: "drawer 2", ids[0]: "drawer 1", ids[2]: "sinkbasin 1"}


def test_written_games_are_the_ones_in_memory(folder):
    tree = GameTree(folder)
    sizes = {name: value for name, value in SMALL.items() if name != "seed"}
    for game in make_games(SMALL["seed"], **sizes):
        assert json.loads(tree.path(game.id).read_text()) == game.game_dict
        assert json.loads((tree.path(game.id).parent / "traj_data.json").read_text()) == game.traj_dict
    assert {split: len(tree.games(split)) for split in SPLITS} == SPLITS
    lines = [json.loads(line) for line in (folder / "homes.jsonl").read_text().splitlines()]
    homes = draw_homes(WorldParameters(**SMALL))
    assert [line["habits"] for line in lines] == [{k: r.name for k, r in h.habits.items()} for h in homes]
    assert "| habit | 0.9 |" in (folder / "DATACARD.md").read_text()


def test_an_existing_generation_is_kept_and_anything_else_refused(folder, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    report = generate(folder, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert {split: sum(found.values()) for split, found in report.counts.items()} == SPLITS
    assert sum(report.counts["train"].values()) == 24
    with pytest.raises(FileExistsError, match="another generation.*habit"):
        generate(folder, **SMALL | {"habit": 0.5})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="without a finished generation"):
        generate(tmp_path, **SMALL)


def test_a_generation_that_lost_games_is_refused(tmp_path):
    generate(tmp_path / "games", **SMALL)
    next((tmp_path / "games").rglob("game.tw-pddl")).unlink()
    with pytest.raises(FileExistsError, match="37 of 38 games"):
        generate(tmp_path / "games", **SMALL)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train": 0}, "train=0"),
        ({"valid_seen": -1}, "valid_seen=-1"),
        ({"valid_seen": 0}, "valid_seen=0"),
        ({"homes": 0}, "homes=0"),
        ({"homes": 97}, "homes=97.*96 floor plans"),
        ({"unseen_homes": 0}, "unseen_homes=0"),
        ({"unseen_homes": 25}, "unseen_homes=25.*24 floor plans"),
        ({"receptacles": 4}, "receptacles=4"),
        ({"receptacles": 60}, "receptacles=60"),
        ({"objects": 2}, "objects=2"),
        ({"objects": 200}, "objects=200"),
        ({"objects": 7.5}, "objects=7.5"),
        ({"targets_per_home": 0}, "targets_per_home=0"),
        ({"targets_per_home": 40}, "targets_per_home=40"),
        ({"habit": 1.1}, "habit=1.1"),
        ({"tidy": -0.1}, "tidy=-0.1"),
        ({"moved": 2}, "moved=2"),
        ({"spares": -1}, "spares=-1"),
        ({"spares": 5}, "objects=7"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "games", **SMALL | wrong)
    assert not (tmp_path / "games").exists()
