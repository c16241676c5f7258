"""The nano world of WebShop: a generated shop, whose brands are invented words."""

from collections import Counter

from skill1.envs.webshop.generate import generate
from skill1.nano.webshop.demonstrator import ShopDemonstrator
from skill1.nano.webshop.facts import draw_arms, followed, principles, right
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.world import NanoWorld

NANO = NanoWorld(
    folder="nano-shop",
    generate=generate,
    # A tenth of the products is asked for, so that a run meets each several times: some 550 goals about 90 products.
    sizes={"products": 1000, "asked": 0.1},
    prompts=CompactShopPrompts,
    demonstrator=ShopDemonstrator,
    draw_arms=draw_arms,
    right=right,
    followed=followed,
    principles=principles,
    mistakes=lambda episodes: Counter(),  # no word says what not to do
    title="Nano policy for WebShop",
    places="shops",
    about="""It searches for the brand that a skill names if the skill is about the words of the task, and ignores it
otherwise. It knows nothing about the products of the shops it is trained on later.""",
    use="Not useful for anything but this project's generated shops, whose words are invented.",
)
