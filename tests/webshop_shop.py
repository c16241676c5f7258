"""A small WebShop catalogue written by hand, in the original's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skill1.envs.webshop.data import Files, load_catalogue
from skill1.envs.webshop.engine import Shop
from skill1.envs.webshop.nouns import words


def product(asin: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "asin": asin, "name": name, "category": "garden", "query": "Table Lamps ", "pricing": "$12.50",
        "product_category": "Home & Kitchen › Lighting › Table Lamps", "full_description": "A lamp.", "images": ["x"],
        "small_description": ["Bright light. ", "Easy to clean. "], "customization_options": "", "average_rating": "",
    } | changes  # fmt: skip


def choices(*values: str) -> list[dict[str, Any]]:
    return [{"value": value, "is_selected": False, "image": None} for value in values]


LAMP = product(
    "B000000001", "Brass Desk Lamp",
    customization_options={"Color": choices("Navy Blue", " White "), "Size": choices("10/12 in", "x-large")},
)  # fmt: skip
RANGE = product("B000000002", "Oak Desk Lamp", pricing="$19.99 - $27.99", small_description="One bullet")
FREE = product(
    "B000000003", "Plain <b>Lamp</b> & More", pricing="", full_description="", small_description=["", " \n "],
    customization_options={"Shape": None},
)  # fmt: skip
TWICE = product(
    "B000000004", "Folding Chair", category="fashion", query="chairs", product_category="Seats › Chairs",
    full_description="Folds.",
    customization_options={"Frame": choices("oak", "description"), "Seat": choices("Oak", "next >")},
)  # fmt: skip
MORE = [product(f"B1000000{n:02d}", f"Lamp number {n}") for n in range(20)]
PRODUCTS = [LAMP, RANGE, FREE, TWICE, *MORE]
ATTRIBUTES = {
    "B000000001": {
        "attributes": ["easy clean", "bright light", "brass finish"],
        "instruction": "Find me easy clean table lamps",
        "instruction_attributes": ["easy clean", "bright light"],
    },
    "B000000002": {
        "attributes": ["easy clean"], "instruction": "Find me oak lamps", "instruction_attributes": ["easy clean"],
    },
    "B000000004": {"attributes": []},
}  # fmt: skip
HUMAN = {
    "B000000001": [
        {"instruction": "i want a lamp.", "instruction_attributes": ["bright light"], "instruction_options": ["white"]},
        {"instruction": "skipped", "instruction_attributes": [], "instruction_options": []},
    ],
    "B000000003": [{"instruction": "any lamp", "instruction_attributes": ["lamp"], "instruction_options": []}],
}


def write_files(folder: Path, products: Any = PRODUCTS, attributes: Any = ATTRIBUTES, human: Any = HUMAN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json")
    for name, content in zip(names, (products, attributes, human), strict=True):
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def open_shop(folder: Path, goals: str = "synthetic", **settings: Any) -> Shop:
    return Shop(load_catalogue(Files.find(folder)), goals, **({"nouns": words} | settings))
