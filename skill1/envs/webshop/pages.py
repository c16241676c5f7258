"""A session's state and how it looks: pages as text nodes, what can be clicked, observations.

The original renders HTML and reads its text nodes back; here the nodes are made directly, with the parser's rule for
blank ones. `text` joins them; `text_rich` has one a line and marks what can be clicked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from skill1.envs.webshop.catalogue import Product, Products
from skill1.envs.webshop.reward import Outcome

Page = Literal["index", "results", "item", "sub", "done"]
Mode = Literal["text", "text_rich"]
MODES: tuple[Mode, ...] = ("text", "text_rich")
SEARCH, BACK, PREVIOUS, NEXT, BUY = "Search", "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
SEPARATOR = " [SEP] "
PER_PAGE = 10
_BEFORE = {"button": "", "option": "  ", "product": "\n"}  # what precedes a node in text_rich
_BLANK = dict.fromkeys(map(ord, " \t\n\f\r"))


@dataclass(frozen=True, slots=True)
class State:
    """Where a session is. Products are positions in the catalogue."""

    page: Page = "index"
    query: str = ""
    hits: tuple[int, ...] = ()  # of the query, best first
    number: int = 1  # results page
    product: int = -1  # on item, sub and done
    options: tuple[tuple[str, str], ...] = ()  # chosen (name, value), in the order of first choice
    sub: str = ""  # lower-cased name of the sub page
    seen: frozenset[int] = frozenset()  # products opened since the index page
    outcome: Outcome | None = None  # on done

    @property
    def shown(self) -> tuple[int, ...]:
        """Return the products of the current results page; none past the last."""
        return self.hits[(self.number - 1) * PER_PAGE : self.number * PER_PAGE]


class Node(NamedTuple):
    """One text of a page."""

    text: str
    kind: Literal["text", "button", "option", "product"] = "text"


def clickables(state: State, products: Products) -> tuple[str, ...]:
    """List what can be clicked, in lower case: buttons and products in page order, then option values; each once."""
    listed = sorted(nodes(state, "", products), key=lambda node: node.kind == "option")
    return tuple(dict.fromkeys(node.text.lower() for node in listed if node.kind != "text"))


def render(state: State, instruction: str, products: Products, mode: Mode = "text") -> str:
    """Write the observation of a goal with that sentence."""
    found = [_parsed(node) for node in nodes(state, instruction, products) if _visible(node.text)]
    return _rich(found, state, products) if mode == "text_rich" else SEPARATOR.join(node.text.strip() for node in found)


def nodes(state: State, instruction: str, products: Products) -> list[Node]:
    """List all text nodes of the page, blank ones included."""
    if state.page == "index":
        return [Node("WebShop"), Node("Instruction: "), Node(instruction), Node(SEARCH, "button")]
    if state.outcome:
        return [Node(text) for text in _receipt(state, state.outcome, products[state.product])]
    page = [Node("Instruction:"), Node(instruction), Node(BACK, "button")]
    if state.page == "results":
        page.append(Node(f"Page {state.number} (Total results: {len(state.hits)})"))
        page += [Node(PREVIOUS, "button")] if state.number > 1 else []
        page.append(Node(NEXT, "button"))
        for product in (products[position] for position in state.shown):
            page += [Node(product.asin, "product"), Node(product.name), Node(product.price_tag)]
        return page
    page.append(Node(PREVIOUS, "button"))
    product = products[state.product]
    if state.page == "item":
        for name, values in product.options.items():
            page += [Node(name), *(Node(value, "option") for value in values)]
        page += [Node(product.name), Node(f"Price: {product.price_tag}"), Node("Rating: N.A.")]
        page += [Node(name, "button") for name in (*SUB_PAGES, BUY)]
    elif state.sub == "description":
        page.append(Node(product.description))
    elif state.sub == "features":
        page += [Node(f" {bullet}") for bullet in product.bullets]
    return page


def _visible(text: str) -> bool:
    """Empty nodes do not exist, blank ones with a line break are not shown."""
    return bool(text) and ("\n" not in text or bool(text.translate(_BLANK)))


def _parsed(node: Node) -> Node:
    """The HTML parser makes a single blank of a blank node."""
    return node if node.text.translate(_BLANK) else Node(" ", node.kind)


def _rich(found: Sequence[Node], state: State, products: Products) -> str:
    # The original looks for the quoted value in the page's address, which holds the query and the options as JSON.
    address = f"{state.query.replace(' ', '+')}/{state.number}/{json.dumps(dict(state.options))}"
    seen = {products[position].asin for position in state.seen}
    head, lines = "", ""
    for text, kind in found:
        chosen = (kind == "option" and f'"{text}"' in address) or (kind == "product" and text in seen)
        if chosen and kind == "option":
            head = f"You have clicked {text}.\n{head}"
        button = "clicked button" if chosen else "button"
        lines += f"{text}\n" if kind == "text" else f"{_BEFORE[kind]}[{button}] {text} [{button}_]\n"
    return head + lines


def _receipt(state: State, outcome: Outcome, product: Product) -> list[str]:
    """The page after the purchase. Its fields for crowd work are "None" or empty in the text environment."""
    options = json.dumps(dict(state.options), sort_keys=True)
    for character in "<>&'":
        options = options.replace(character, f"\\u{ord(character):04x}")
    bought = ["asin", product.asin, "options", options]
    bought += [part for name in ("attrs", "category", "query", "product category") for part in (name, "None")]
    target = ["asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query"]
    reward = ["Your score (min 0.0, max 1.0)", str(outcome.score), "Reward Details ", "None"]
    return [
        "Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)",
        "Purchased", *bought, "Target", *target, "Goal ", "None", "Reward", *reward,
    ]  # fmt: skip
