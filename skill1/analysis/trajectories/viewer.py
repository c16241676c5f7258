"""Look at what the policy did, in a notebook (`Explorer`) or in one file (`export`), by the templates of `views.html.jinja`.

The file needs no kernel, network, script or other file, and its bytes depend on the run and the arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skill1.analysis.scores import ceiling_note
from skill1.analysis.trajectories.cases import RULES, find_cases
from skill1.analysis.trajectories.read import Episode, Step, load_step
from skill1.errors import RunError, one_line
from skill1.records import Turn
from skill1.store.journal import LibraryError, replace_file
from skill1.store.run_directory import RunDirectory

Prompts = Callable[[Turn], str]  # the full prompt of a turn, decoded

_ALL = "all"
_FILTERS: dict[str, dict[str, Callable[[Episode], bool]]] = {
    "outcome": {"won": lambda e: e.won, "lost": lambda e: not e.won},
    "skill": {"with skill": lambda e: e.rollout.selected is not None, "without": lambda e: e.rollout.selected is None},
    "actions": {
        "some ill-formed": lambda e: e.rollout.invalid_actions > 0,
        "some inadmissible": lambda e: e.rollout.inadmissible_actions > 0,
    },
}


# HTML drops or refuses C0 controls (but tab and newline) and DEL: their pictures stand for them.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}


def visible(value: Any) -> Any:
    """Replace a text's control characters by their pictures; leave what is no text, or HTML already."""
    return value.translate(_PICTURES) if isinstance(value, str) and not hasattr(value, "__html__") else value


_VIEWS = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=visible,
).get_template("views.html.jinja")


def show(view: str, *parts: Any) -> str:
    """Fill in the macro `view` of `views.html.jinja`, which names its parts. The result is markup."""
    return getattr(_VIEWS.module, view)(*parts)


def prompt_reader(run: RunDirectory) -> Prompts:
    """Return what decodes a turn's full prompt, by the tokenizer of the last checkpoint, or of the starting policy.

    Raises:
        RunError: the tokenizer does not load.
    """
    latest = run.latest_checkpoint()
    tokenizer = _tokenizer(str(latest.path) if latest else run.config.policy.model)
    return lambda turn: tokenizer.decode(turn.prompt_ids)


@lru_cache(maxsize=4)
def _tokenizer(name: str) -> Any:
    from skill1.policy import load_tokenizer  # not at the top: whoever reads no prompts need not wait for transformers

    try:
        return load_tokenizer(name)
    except (OSError, ValueError) as error:
        raise RunError(f"no tokenizer at {name} to show prompts with ({one_line(error)}): restore it") from error


class Explorer(widgets.VBox):
    """Controls and one view: run, training step, game and rollout, narrowed by filters.

    Where there are no widgets (GitHub, a converted notebook), the episode that it was opened on is shown.
    """

    def __init__(self, path: Path, step: int = 0, game: str = "", runs: Sequence[Path] = ()) -> None:
        """Open a run directory.

        Args:
            step: training step; 0 = the last one stored.
            game: id of a game of the step; "" = the one whose group won and lost most evenly.
            runs: further run directories to choose from.

        Raises:
            RunError, LibraryError: see `load_step`.
            ConfigError: the step has no such game (with the closest match).
        """
        self.current: Step = load_step(path, step)
        group = self.current.group_of(game)
        slim, wide = widgets.Layout(width="13em"), widgets.Layout(width="auto")
        offered = {str(p): p for p in (path, *runs)}
        self.run = widgets.Dropdown(options=list(offered.items()), description="Run", layout=wide)
        stored, number = self.current.run.rollout_steps(), self.current.number
        self.step = widgets.SelectionSlider(options=stored, value=number, description="Step", continuous_update=False)
        self.filters = {
            name: widgets.Dropdown(options=[_ALL, *choices], description=name.capitalize(), layout=slim)
            for name, choices in _FILTERS.items()
        }
        self.category = widgets.Dropdown(options=[(_ALL, _ALL)], description="Category", layout=slim)
        self.prompts = widgets.Checkbox(description="full prompts", indent=False, layout=slim)
        self.count = widgets.Label()
        self.game = widgets.Dropdown(layout=wide)
        self.rollout = widgets.ToggleButtons(description="Rollout", style={"button_width": "auto"})
        self.view = widgets.HTML()
        narrow = widgets.HBox([*self.filters.values(), self.category, self.prompts])
        narrow.layout.flex_flow = "row wrap"
        super().__init__([widgets.HBox([self.run, self.step]), narrow, self.count, self.game, self.rollout, self.view])
        self._update()
        self.game.value = group
        self._update()
        self._busy = False
        for control in (self.run, self.step, *narrow.children, self.game, self.rollout):
            control.observe(self._follow, names="value")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.view.value}

    def matching(self) -> list[Episode]:
        """Return the step's episodes that pass the filters."""
        tests = [_FILTERS[name][f.value] for name, f in self.filters.items() if f.value != _ALL]
        here = [e for e in self.current.episodes if self.category.value in (_ALL, e.rollout.task.category)]
        return [e for e in here if all(test(e) for test in tests)]

    def _follow(self, _: Any) -> None:
        """Update everything after the user changed a control; what that changes itself starts no other update."""
        if self._busy:
            return
        self._busy = True
        try:
            self._update()
        except (RunError, LibraryError) as error:  # a run can change on the disk while it is looked at
            self.view.value = show("fragment", show("message", str(error)))
        finally:
            self._busy = False

    def _update(self) -> None:
        if self.run.value != self.current.run.path:
            self.current = load_step(self.run.value)
            self.step.options = self.current.run.rollout_steps()
            self.step.value = self.current.number
        elif self.step.value != self.current.number:
            self.current = load_step(self.run.value, self.step.value)
        categories = sorted({e.rollout.task.category for e in self.current.episodes})
        _offer(self.category, [(name, name) for name in (_ALL, *categories)])

        matching = self.matching()
        self.count.value = f"{len(matching)} of the step's {len(self.current.episodes)} episodes match"
        games = []
        for number in dict.fromkeys(e.rollout.group for e in matching):
            members = self.current.groups[number]
            r = members[0].rollout
            wins = f"{sum(e.won for e in members)}/{len(members)} won"
            games.append((f"{number}: {wins}, {r.task.category}: {r.instruction}", number))
        self.game.description = self.current.task_word.capitalize()
        _offer(self.game, games)
        there = {e.rollout.index: e for e in matching if e.rollout.group == self.game.value}
        won = {True: "won", False: "lost"}
        _offer(self.rollout, [(f"{i} {won[e.won]} {e.rollout.selected or 'no skill'}", i) for i, e in there.items()])
        content = show("message", "No episode of this step passes the filters.")
        if there:
            prompts = prompt_reader(self.current.run) if self.prompts.value else None
            content = show("episode", self.current, there[self.rollout.value], prompts)
        self.view.value = show("fragment", content)


def _offer(control: widgets.Dropdown | widgets.ToggleButtons, options: list[tuple[str, Any]]) -> None:
    """Give `control` new options and keep its value if it is among them, else take the first (None without any)."""
    value = control.value
    control.options = options
    known = [option for _, option in options]
    control.value = value if value in known else next(iter(known), None)


def export(path: Path, out: Path, *, step: int = 0, game: str = "", cases: int = 1, prompts: bool = False) -> Path:
    """Write a step, every game and episode of it, and the run's case studies into one HTML file, and return its path.

    Args:
        path: run directory.
        out: the file, written whole or not at all; in a folder it is `trajectories_step_<step>.html`.
        step: training step; 0 = the last one stored.
        game: the game that is unfolded; "" = the one whose group won and lost most evenly.
        cases: case studies of each kind.
        prompts: with the full prompt of every turn (several times the size).

    Raises:
        RunError, LibraryError: see `load_step`; or the file cannot be written.
        ConfigError: the step has no such game (with the closest match).
    """
    shown = load_step(path, step)
    run, config = shown.run, shown.run.config
    title = f"Trajectories: {config.variant}, seed {config.train.seed}, step {shown.number}"
    notes = [
        f"Run {run.name}, preset {config.preset}, policy {config.policy.model}. {won_note(shown)}",
        "r is an episode's outcome, U and n are a skill's utility and count, A and w a call's advantage and its weight "
        "in the loss.",
    ]
    reader = prompt_reader(run) if prompts else None
    content = cases_view(path, cases) + show("whole_step", shown, shown.group_of(game), reader)
    target = out if out.suffix == ".html" else out / f"trajectories_step_{shown.number:06d}.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, show("page", title, notes, content).encode())
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    return target


def cases_view(path: Path, count: int = 1) -> str:
    """Show the run's case studies, at most `count` of each kind (`find_cases`), and the rules they are chosen by."""
    found = find_cases(RunDirectory.open(path), count)
    steps = {number: load_step(path, number) for number in {case.step for case in found}}
    return show("cases", RULES, [(case, steps[case.step]) for case in found])


def won_note(step: Step) -> str:
    """Say how many episodes of the step won and, where the environment has a ceiling, how many could have."""
    won, played = sum(e.won for e in step.episodes), len(step.episodes)
    share = f"{won} of {played} episodes of {len(step.groups)} groups won ({100 * won / played:.1f} %)"
    limit = ceiling_note(step.run.config.environment, (e.rollout.task.game for e in step.episodes))
    return f"In step {step.number}, {share}. {limit}".strip()
