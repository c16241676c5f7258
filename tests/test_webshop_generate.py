"""Generated catalogues: every goal can be met, the original's format, the promised difficulty, equal bytes."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest

from skill1.cli import main as cli
from skill1.envs.webshop.ceiling import Ceiling, ceiling
from skill1.envs.webshop.data import Files, load_catalogue
from skill1.envs.webshop.engine import Shop
from skill1.envs.webshop.generate import CatalogueParameters, generate, make_products
from skill1.envs.webshop.goods import STOCK
from skill1.envs.webshop.reward import COLOURS, alike, option_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("catalogue") / "data"
    generate(out, seed=0)
    return out


@pytest.fixture(scope="module")
def catalogue(folder):
    return load_catalogue(Files.find(folder))


@pytest.mark.parametrize("kind", ["synthetic", "human"])
def test_every_goal_can_be_met(folder, catalogue, kind):
    goals = json.loads((folder / "generation.json").read_text())["goals"][kind]
    assert ceiling(Shop(catalogue, kind, seed=1)) == Ceiling(goals, goals) and goals > 200


def test_every_word_of_the_vocabulary_can_be_met():
    """Whatever a catalogue of another size or seed draws."""
    for goods in STOCK.goods:
        assert len(set(goods.attributes)) == len(goods.attributes) >= 6 and goods.prices[0] < goods.prices[1]
        assert not [other for other in STOCK.goods if other is not goods and other.query == goods.query]
        for name, values in goods.options.items():
            assert len(set(values)) == len(values) >= 2 and name not in COLOURS
            for value in values:
                value = value.strip().replace("/", " | ").lower()
                assert alike(option_text(value), option_text((name, value))), value
                assert alike(option_text(value), option_text(value))


def test_it_is_built_as_documented(catalogue):
    products = catalogue.products
    assert len({product.asin for product in products}) == len(products) == 1000
    assert len(STOCK.goods) == 33 and len({goods.category for goods in STOCK.goods}) == 5
    assert {product.query for product in products} == {goods.query for goods in STOCK.goods}
    assert 0.40 < np.mean([not product.options for product in products]) < 0.50
    assert 0.06 < np.mean([product.prices == (100.0,) for product in products]) < 0.12
    assert 0.06 < np.mean([len(product.prices) == 2 for product in products]) < 0.12
    hidden = [any(a not in product.name.lower() for a in product.attributes) for product in products]
    assert 0.7 < np.mean(hidden) < 0.99  # some attributes only on other pages
    for product in products:
        assert 2 <= len(product.attributes) <= 5
        shown = " ".join([product.name, product.description, *product.bullets]).lower()
        assert all(attribute in shown for attribute in product.attributes)


def test_it_is_as_hard_as_the_original(catalogue):
    """Real small set, measured likewise: target first .53, in the top ten .92; first result, no options: .52 / .01."""
    shop = Shop(catalogue)
    first = ten = score = won = 0
    goals = [shop.goals[number] for number in range(0, len(shop.goals), 8)]
    for goal in goals:
        hits = shop.search(goal.text.split(", and price lower")[0].lower())
        first += hits[0] == goal.product
        ten += goal.product in hits[:10]
        outcome = shop.rate(hits[0], {}, goal)
        score, won = score + outcome.score, won + (outcome.score == 1.0)
    assert 0.4 < first / len(goals) < 0.65 and 0.85 < ten / len(goals) < 0.97
    assert 0.5 < score / len(goals) < 0.7 and won / len(goals) < 0.08


def test_equal_parameters_give_equal_bytes_and_other_sizes_the_same_products(folder, tmp_path):
    generate(tmp_path / "again", seed=0)
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 5
    assert filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False) == (names, [], [])
    large, small = list(make_products(4, 60)), list(make_products(4, 30))
    assert large[:30] == small and large != list(make_products(5, 60))


def test_other_sizes_take_the_full_sets_names(tmp_path):
    report = generate(tmp_path / "data", seed=2, products=40)
    assert Files.find(tmp_path / "data").products.name == "items_shuffle.json"
    shop = Shop(load_catalogue(Files.find(tmp_path / "data")))
    assert (len(shop.products), len(shop.goals)) == (40, report.counts["synthetic"])
    tiny = generate(tmp_path / "tiny", products=1)
    assert len(load_catalogue(Files.find(tmp_path / "tiny"))) == 1 and tiny.counts["human"] in (0, 1)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["generate", "webshop", "--out", "shop", *words])
        return ended.value.code or 0, *capsys.readouterr()

    for _ in range(2):
        status, out, _ = run("--products", "20")
        assert status == 0 and json.loads(out)["parameters"]["products"] == 20
        assert set(json.loads(out)["counts"]) == {"synthetic", "human"}
    status, _, err = run("--products", "21")
    assert status == 2 and "shop holds another generation" in err
    (Path("shop") / "items_human_ins.json").unlink()
    assert "shop lacks items_human_ins.json; delete it" in run("--products", "20")[2]
    (Path("shop") / "generation.json").unlink()
    assert "without a finished generation" in run()[2]
    status, _, err = run("--products", "0")
    assert (status, err) == (2, "error: products=0: must be an integer of at least 1\n")


def test_sizes_that_make_no_sense():
    for wrong in ({"products": 0}, {"seed": -1}, {"products": 2.5}, {"seed": True}):
        with pytest.raises(ValueError, match="must be an integer of at least"):
            CatalogueParameters(**wrong)
    for wrong in (0, -0.5, 1.5, True, "all"):
        with pytest.raises(ValueError, match="must be a share above 0 and at most 1"):
            CatalogueParameters(asked=wrong)


def test_fewer_products_can_be_asked_for():
    counts = {
        share: sum("instruction" in made.attributes for made in make_products(1, 300, share))
        for share in (0.1, 0.5, 1.0)
    }
    assert 15 < counts[0.1] < 50 and 120 < counts[0.5] < 180 and counts[1.0] == 300
