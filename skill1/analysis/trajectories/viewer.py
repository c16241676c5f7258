"""The trajectory viewer: look at what the policy did, in a notebook (`Explorer`) or in one file (`export`).

Both show the same: `trajectories` reads, `trajectory_html` writes. The file needs no kernel, network, script or other
file, and its bytes depend on the run and the arguments alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from skill1.analysis.scores import played_note
from skill1.analysis.trajectories.html import Prompts, case_view, episode_view, escape, fragment, page, rules, step_view
from skill1.analysis.trajectories.read import Case, Episode, Step, contrasts, episode_table, find_cases, load_step
from skill1.analysis.wording import task_word
from skill1.records import Turn
from skill1.stats import paired_difference
from skill1.store.journal import LibraryError
from skill1.store.run_directory import RunDirectory, RunError

_ALL = "all"


def prompt_reader(run: RunDirectory) -> Prompts:
    """Turn -> its full prompt, by the tokenizer of the last checkpoint (of the starting policy, if there is none).

    Raises:
        RunError: the tokenizer does not load.
    """
    latest = run.latest_checkpoint()
    tokenizer = _tokenizer(str(latest.path) if latest else run.config.policy.model)

    def read(turn: Turn) -> str:
        return tokenizer.decode(turn.prompt_ids)

    return read


@lru_cache(maxsize=4)
def _tokenizer(name: str) -> Any:
    from skill1.policy import load_tokenizer  # not at the top: whoever reads no prompts need not wait for transformers

    try:
        return load_tokenizer(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"no tokenizer at {name} to show prompts with ({reason}): restore it") from error


# -- in a notebook ----------------------------------------------------------------------------------------------------


class Explorer(widgets.VBox):
    """Controls and one view: run, training step, game and rollout, narrowed by filters.

    Where there are no widgets (GitHub, a converted notebook), the episode that it was opened on is shown.
    """

    def __init__(self, path: Path, step: int = 0, game: str = "", runs: Sequence[Path] = ()) -> None:
        """
        Args:
            path: run directory.
            step: training step; 0 = the last one stored.
            game: id of a game of the step; "" = the one whose group won and lost most evenly.
            runs: further run directories to choose from.

        Raises:
            RunError, LibraryError: see `trajectories.load_step`.
            ConfigError: the step has no such game (with the closest match).
        """
        loaded = load_step(path, step)
        group = loaded.group_of(game)
        offered = {str(p): p for p in (path, *runs)}
        slim, wide = widgets.Layout(width="13em"), widgets.Layout(width="auto")
        self.run = widgets.Dropdown(options=list(offered.items()), description="Run", layout=wide)
        steps = loaded.run.rollout_steps()
        self.step = widgets.SelectionSlider(
            options=steps, value=loaded.number, description="Step", continuous_update=False
        )
        self.outcome = widgets.Dropdown(options=[_ALL, "won", "lost"], description="Outcome", layout=slim)
        self.skill = widgets.Dropdown(options=[_ALL, "with skill", "without"], description="Skill", layout=slim)
        self.category = widgets.Dropdown(options=[_ALL], description="Category", layout=slim)
        self.actions = widgets.Dropdown(
            options=[_ALL, "some ill-formed", "some inadmissible"], description="Actions", layout=slim
        )
        self.game = widgets.Dropdown(layout=wide)
        self.rollout = widgets.ToggleButtons(description="Rollout", style={"button_width": "auto"})
        self.prompts = widgets.Checkbox(description="full prompts", indent=False, layout=slim)
        self.count = widgets.Label()
        self.view = widgets.HTML()
        self.current: Step = loaded
        self._quiet = False
        filters = widgets.HBox([self.outcome, self.skill, self.category, self.actions, self.prompts])
        filters.layout.flex_flow = "row wrap"
        super().__init__([widgets.HBox([self.run, self.step]), filters, self.count, self.game, self.rollout, self.view])
        with self._silently():
            self._offer_categories()
            self._offer_games()
            self.game.value = group
            self._offer_rollouts()
            self._draw()
        changes = [self._offer_steps, self._load, self._offer_games, self._offer_rollouts, self._draw]
        for control, first in (
            (self.run, 0),
            (self.step, 1),
            *((control, 2) for control in (self.outcome, self.skill, self.category, self.actions)),
            (self.game, 3),
            (self.rollout, 4),
            (self.prompts, 4),
        ):
            control.observe(lambda _, todo=tuple(changes[first:]): self._follow(todo), names="value")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.view.value}

    def _follow(self, todo: Sequence[Any]) -> None:
        """After a control changed: renew what hangs on it, in order."""
        if self._quiet:
            return
        with self._silently():
            try:
                for renew in todo:
                    renew()
            except (RunError, LibraryError) as error:  # a run can change on the disk while it is looked at
                self.view.value = fragment(f'<p class="lost">{escape(str(error))}</p>')

    @contextmanager
    def _silently(self) -> Iterator[None]:
        """Our own changes of the controls are not the user's."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _offer_steps(self) -> None:
        steps = RunDirectory.open(self.run.value).rollout_steps()
        if not steps:
            raise RunError(f"{self.run.value} has no rollouts yet")
        self.step.options = steps
        self.step.value = steps[-1]

    def _load(self) -> None:
        self.current = load_step(self.run.value, self.step.value)
        self._offer_categories()

    def _offer_categories(self) -> None:
        found = sorted({e.rollout.task.category for e in self.current.episodes})
        _offer(self.category, [(name, name) for name in (_ALL, *found)])

    def _offer_games(self) -> None:
        """The groups with an episode that passes the filters; the one at hand, if it still does."""
        self.game.description = task_word(self.current.run.config.environment.name).capitalize()
        matching = self.matching()
        self.count.value = f"{len(matching)} of the step's {len(self.current.episodes)} episodes match"
        options = []
        for number, members in self.current.groups.items():
            if any(e.rollout.group == number for e in matching):
                task = members[0].rollout
                label = f"{sum(e.won for e in members)}/{len(members)} won, {task.task.category}: {task.instruction}"
                options.append((f"{number}: {label}", number))
        _offer(self.game, options)

    def _offer_rollouts(self) -> None:
        options = [
            (f"{e.rollout.index} {'won' if e.won else 'lost'} {e.rollout.selected or 'no skill'}", e.rollout.index)
            for e in self.matching()
            if e.rollout.group == self.game.value
        ]
        _offer(self.rollout, options)

    def matching(self) -> list[Episode]:
        """The step's episodes that pass the filters."""
        return [e for e in self.current.episodes if self._passes(e)]

    def _passes(self, episode: Episode) -> bool:
        r = episode.rollout
        return (
            self.outcome.value in (_ALL, "won" if episode.won else "lost")
            and self.skill.value in (_ALL, "without" if r.selected is None else "with skill")
            and self.category.value in (_ALL, r.task.category)
            and {_ALL: True, "some ill-formed": r.invalid_actions > 0, "some inadmissible": r.inadmissible_actions > 0}[
                self.actions.value
            ]
        )

    def _draw(self) -> None:
        chosen = [
            e
            for e in self.current.episodes
            if (e.rollout.group, e.rollout.index) == (self.game.value, self.rollout.value)
        ]
        if not chosen:
            self.view.value = fragment("<p>No episode of this step passes the filters.</p>")
            return
        prompts = prompt_reader(self.current.run) if self.prompts.value else None
        self.view.value = fragment(episode_view(self.current, chosen[0], prompts))


def _offer(control: widgets.Dropdown | widgets.ToggleButtons, options: list[tuple[str, Any]]) -> None:
    """Give `control` new options and keep its value if it is among them, else take the first (None without any)."""
    value = control.value
    control.options = options
    known = [option for _, option in options]
    control.value = value if value in known else next(iter(known), None)


# -- in a file, and in words ------------------------------------------------------------------------------------------


def export(
    path: Path, out: Path | None = None, *, step: int = 0, game: str = "", cases: int = 1, prompts: bool = False
) -> Path:
    """Write a step, every game and episode of it, and the run's case studies into one HTML file, and return its path.

    Args:
        path: run directory.
        out: the file, written whole or not at all; None = `trajectories_step_<step>.html` in the run directory.
        step: training step; 0 = the last one stored.
        game: the game that is unfolded; "" = the one whose group won and lost most evenly.
        cases: case studies of each kind.
        prompts: with the full prompt of every turn (several times the size).

    Raises:
        RunError, LibraryError: see `trajectories.load_step`; or the file cannot be written.
        ConfigError: the step has no such game (with the closest match).
    """
    shown = load_step(path, step)
    run, config = shown.run, shown.run.config
    reader = prompt_reader(run) if prompts else None
    title = f"Trajectories: {config.variant}, seed {config.train.seed}, step {shown.number}"
    about = (
        f"Run {run.name}, preset {config.preset}, policy {config.policy.model}. {_won(shown)} r is an episode's "
        "outcome, U and n are a skill's utility and count, A and w a call's advantage and its weight in the loss."
    )
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(text)}</p>" for text in (about, _ceiling(shown)) if text)]
    if found := find_cases(run, cases):
        body += ["<h2>Case studies</h2>", *_cases(path, found, shown)]
    body.append(step_view(shown, shown.group_of(game), reader))
    target = out or run.path / f"trajectories_step_{shown.number:06d}.html"
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page(title, "\n".join(body)), encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    return target


def cases_html(path: Path, count: int = 1) -> str:
    """The run's case studies, at most `count` of each kind, for a notebook; see `trajectories.find_cases`."""
    found = find_cases(RunDirectory.open(path), count)
    if not found:
        return fragment("<p>No case fits the rules: the run has no library, or no episode of it selected a skill.</p>")
    return fragment("\n".join(_cases(path, found)))


def _cases(path: Path, cases: Sequence[Case], loaded: Step | None = None) -> list[str]:
    """How they were chosen, and each of them; every step is read once."""
    steps = {loaded.number: loaded} if loaded else {}
    for number in {case.step for case in cases} - set(steps):
        steps[number] = load_step(path, number)
    return [rules(), *(case_view(case, steps[case.step]) for case in cases)]


def summary(step: Step) -> pd.DataFrame:
    """One row per group of the step: its task, who won, with how many skills, and what was learnt."""
    rows = []
    for number, members in step.groups.items():
        rollouts = [e.rollout for e in members]
        fates = [e.fate.kind for e in members]
        rows.append(
            {
                "group": number,
                "category": rollouts[0].task.category,
                "task": rollouts[0].instruction,
                "won": f"{sum(e.won for e in members)}/{len(members)}",
                "with a skill": sum(r.selected is not None for r in rollouts),
                "different skills": len({r.selected for r in rollouts} - {None}),
                "ill-formed actions": sum(r.invalid_actions for r in rollouts),
                "inadmissible actions": sum(r.inadmissible_actions for r in rollouts),
                "lessons admitted": fates.count("admitted"),
                "merged": fates.count("merged"),
            }
        )
    return pd.DataFrame(rows).set_index("group")


def reading(step: Step) -> str:
    """A short reading (Markdown) of the step, and of what skills went with over the whole run."""
    groups = list(step.groups.values())
    even = sum(len({e.won for e in members}) == 1 for members in groups)
    acts = [turn for e in step.episodes for turn in e.rollout.turns_of("act")]
    ill, inadmissible = sum(not turn.well_formed for turn in acts), sum(not turn.admissible for turn in acts)
    limit = f"{ceiling} " if (ceiling := _ceiling(step)) else ""
    text = (
        f"* {_won(step)} {limit}In {even} groups all outcomes are equal: there the query and act calls get an "
        f"advantage from invalid actions at most.\n* Of {len(acts)} actions {ill} were ill-formed and {inadmissible} "
        "inadmissible.\n"
    )
    if not step.run.config.library.enabled:
        return text + f"* Variant {step.run.config.variant} has no library: there are no skills to follow."
    fates = [e.fate.kind for e in step.episodes]
    skilled = [e for e in step.episodes if e.rollout.selected is not None]
    return (
        f"{text}* {len(skilled)} episodes had a skill, {sum(e.won for e in skilled)} of them won. Of the lessons the "
        f"library admitted {fates.count('admitted')} and merged {fates.count('merged')}; {fates.count('unparsed')} did "
        f"not parse.\n{_within_groups(step.run)}"
    )


def _won(step: Step) -> str:
    won, played = sum(e.won for e in step.episodes), len(step.episodes)
    share = 100 * won / played
    return f"In step {step.number}, {won} of {played} episodes of {len(step.groups)} groups won ({share:.1f} %)."


def _ceiling(step: Step) -> str:
    """How many of the step's goals can be met at all; "" where all tasks can."""
    return played_note(step.run.config.environment, (e.rollout.task.game for e in step.episodes))


def _within_groups(run: RunDirectory) -> str:
    """With a skill against without, in the groups of the run that hold both."""
    episodes = episode_table(run)
    table = contrasts(episodes)
    ahead, behind = (table["difference"] > 0).sum(), (table["difference"] < 0).sum()
    tally = f"A skill did better than the rest of its group {ahead} times and worse {behind} times."
    skilled = episodes.assign(skilled=episodes["selected"].notna())
    rates = skilled.groupby(["step", "group", "skilled"])["won"].mean().unstack()  # (groups, without and with a skill)
    both = rates.dropna().astype(float) if rates.shape[1] == 2 else rates.iloc[:0]
    lead = (
        f"* Over all {episodes['step'].nunique()} stored steps, {len(both)} of {len(rates)} groups hold episodes with "
        "and without a skill"
    )
    if len(both) < 2:
        return f"{lead}: too few to compare them. {tally}"
    gain = paired_difference(*(both[side].reset_index(drop=True) for side in (True, False)))
    value, low, high = (f"{100 * x:+.1f}" for x in (gain.value, gain.low, gain.high))
    return (
        f"{lead}. Within these, the success of episodes with one less that of the others is {value} points "
        f"[{low}, {high}] (bootstrap over groups, 95 %). This compares what the policy's own queries led to; it is no "
        f"experiment. {tally}"
    )
