"""The nano world of ALFWorld: generated homes, each with habits of its own."""

from skill1.envs.alfworld.generate import generate
from skill1.nano.alfworld.demonstrator import HomeDemonstrator
from skill1.nano.alfworld.facts import draw_arms, followed, mistakes, principles, right
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.world import NanoWorld

NANO = NanoWorld(
    folder="nano-world",
    generate=generate,
    # 48 things to know, each met in ten training games; what is found by chance is right half of the time
    sizes={
        "train": 480,
        "valid_seen": 120,
        "valid_unseen": 72,
        "homes": 12,
        "unseen_homes": 6,
        "targets_per_home": 4,
        "receptacles": 24,
        "objects": 15,
        "habit": 0.95,
        "spares": 1,
        "tidy": 0.8,
    },
    prompts=CompactPrompts,
    demonstrator=HomeDemonstrator,
    draw_arms=draw_arms,
    right=right,
    followed=followed,
    principles=principles,
    mistakes=mistakes,
    title="Nano policy",
    places="household games",
    about="""It follows a skill that names the task's object and this home, and ignores those of other homes. Those of
another object in this home it follows as if they were right: `skill1 probe` measures it. It knows nothing about the
homes it is trained on later.""",
    use="Not useful for anything but this project's text games. Facts of the games: the alfworld package (MIT).",
    knows_published_games=True,
)
