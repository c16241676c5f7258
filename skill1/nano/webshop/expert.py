"""A scripted WebShop player with partial information, the teacher of the WebShop warm start. Ours, not the paper's.

It sees what the policy sees: its page, taken apart (`webshop.reading`). It searches for the words of the task,
opens the product whose title shows most of them within the price, chooses the wanted values and buys; a product that
does not come in them is left for the next. It never looks for attributes that a title leaves out, so it is often taken
in by a look-alike. A hint (the brand that a relevant skill names) is searched for first.
"""

from __future__ import annotations

import random

from skill1.envs.base import Observation
from skill1.nano.webshop.reading import ShopPage, read_page, read_wish


class ShopExpert:
    """Plays one episode in compact answers: `act(observation)` gives the next, `moved(answer)` what was really done.

    Args:
        start: first observation.
        hint: brand tokens to search for first ("~ber +den"), or None.
    """

    def __init__(self, start: Observation, hint: str | None = None) -> None:
        self._wish = read_wish(start.instruction)
        self._hint = hint
        self.doing = "search"  # what the last answer of `act` was for
        self.found: str | None = None  # brand of the product whose page was answered last

    def act(self, now: Observation) -> str:
        page = read_page(now.text, now.instruction)
        match page.kind:
            case "index":
                self.doing = "search by skill" if self._hint else "search"
                return f"search {self._hint or ' '.join(self._wish.terms)}"
            case "results":
                return self._open(page)
            case "item":
                self.found = page.items[0].brand
                return self._handle(page)
        self.doing = "return"
        return "prev"

    def moved(self, answer: str, now: Observation) -> None:
        """Update the memory after `answer` was executed (its own or a slip's) and `now` was seen."""
        if answer == "back":
            self._hint = None  # it led nowhere

    def slip(self, now: Observation, rng: random.Random) -> str:
        """Draw a noisy answer: something that the page offers, whatever the task."""
        page = read_page(now.text, now.instruction)
        match page.kind:
            case "results":
                return rng.choice([*(f"open {n}" for n in range(1, len(page.items) + 1)), "back", "next"])
            case "item":
                return rng.choice([*(f"choose {value}" for value in page.offered), "features", "description", "prev"])
            case "sub":
                return "back"
        return f"search {rng.choice(self._wish.terms or ('none',))}"

    def _open(self, page: ShopPage) -> str:
        unseen = [(number, item) for number, item in enumerate(page.items, start=1) if not item.seen]
        if not unseen:
            self.doing = "give up"
            return "back" if self._hint else "next" if page.items else "back"
        number, _ = max(unseen, key=lambda pair: (pair[1].cheap, len(pair[1].terms), -pair[0]))
        self.doing = "open"
        return f"open {number}"

    def _handle(self, page: ShopPage) -> str:
        if page.missing:
            self.doing = "return"
            return "prev"
        self.doing = "choose" if page.offered else "buy"
        return f"choose {page.offered[0]}" if page.offered else "buy"
