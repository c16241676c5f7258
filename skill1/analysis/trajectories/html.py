"""Trajectories as HTML: pure functions from what `trajectories` read to text.

Every text of a run is data: it is escaped, its line ends and control characters are kept visible, and its writing
direction cannot leave its element. Colours follow the JupyterLab theme in a notebook and `prefers-color-scheme` in a
page. Folding is <details>; there is no script.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from skill1.analysis.trajectories.read import RULES, Case, Episode, Step
from skill1.analysis.wording import task_word
from skill1.credit import distill_rewards
from skill1.methods.retroagent import intrinsic_of, judged_right, reflection_rewards
from skill1.records import STAGES, Row, Stage, Turn

Prompts = Callable[[Turn], str]  # the full prompt of a turn, decoded

# C0 controls (but tab, newline and carriage return) and DEL would be dropped or refused by HTML: show their pictures.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)} | {127: 0x2421, 13: "&#13;"}
_INLINE = 80  # characters of an answer shown beside what was parsed from it; longer ones are folded

_STYLE = """
.s1 { --fg: var(--jp-ui-font-color1, #1b1b1b); --dim: var(--jp-ui-font-color2, #5f6368); 
  --soft: var(--jp-layout-color2, #f4f5f7); --line: var(--jp-border-color2, #d7dadf); --won: #0b7a4b; --lost: #b3452c;
  --mark: #9a5b00; --now: rgba(1, 115, 178, 0.12);
  color: var(--fg); font: 14px/1.45 system-ui, sans-serif; }
[data-jp-theme-light="false"] .s1 { --won: #4cc38a; --lost: #ff9a7d; --mark: #f0b44c; --now: rgba(90, 170, 230, 0.2); }
.s1 h2, .s1 h3, .s1 h4 { line-height: 1.25; margin: 1.1em 0 0.4em; font-weight: 600; }
.s1 h2 { font-size: 1.35em; } .s1 h3 { font-size: 1.12em; } .s1 h4 { font-size: 1em; }
.s1 p { margin: 0.4em 0; max-width: 100ch; }
.s1 .t { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.s1 .box { display: block; background: var(--soft); border: 1px solid var(--line); border-radius: 4px;
  padding: 0.45em 0.7em; margin: 0.3em 0; max-height: 22em; overflow: auto; }
.s1 code, .s1 .raw { font-family: ui-monospace, monospace; font-size: 0.9em; }
.s1 .raw { color: var(--dim); }
.s1 .dim { color: var(--dim); } .s1 .won { color: var(--won); font-weight: 600; }
.s1 .lost { color: var(--lost); font-weight: 600; } .s1 .mark { color: var(--mark); font-weight: 600; }
.s1 .scroll { overflow-x: auto; }
.s1 table { border-collapse: collapse; margin: 0.3em 0; font-size: 0.95em; background: none; }
.s1 .wide { width: 100%; }
.s1 th, .s1 td { border: 0; border-bottom: 1px solid var(--line); padding: 0.3em 0.7em 0.3em 0; text-align: left;
  vertical-align: top; max-width: none; white-space: normal; }
.s1 th { font-weight: 600; color: var(--dim); white-space: nowrap; }
.s1 .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.s1 .id { white-space: nowrap; overflow-wrap: normal; }
.s1 tr.now { background: var(--now); }
.s1 td.words { min-width: 11em; }
.s1 td.observation { min-width: 14em; max-width: 52em; } .s1 td.answer { min-width: 11em; max-width: 40em; }
.s1 summary { cursor: pointer; padding: 0.25em 0; }
.s1 details.group, .s1 details.episode { border-top: 1px solid var(--line); padding: 0.15em 0; }
.s1 details.episode { margin-left: 1.2em; } .s1 details.episode > .body { margin-left: 1.1em; }
.s1 .pair { display: flex; flex-wrap: wrap; gap: 0 2.5em; } .s1 .pair > div { flex: 1 1 22em; min-width: 0; }
.s1 ol.trace { margin: 0.3em 0; padding-left: 2.2em; } .s1 ol.trace li { margin: 0.15em 0; }
""".strip()

# In a page nothing sets the notebook's colours: these stand in for JupyterLab's.
_PAGE_STYLE = """
:root { color-scheme: light dark; } body { margin: 0 auto; padding: 1em 1.5em 4em; max-width: 1200px; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; }
  .s1 { --fg: #e4e6ea; --dim: #a2a8b2; --soft: #21242a; --line: #3a3f48; --won: #4cc38a; --lost: #ff9a7d;
    --mark: #f0b44c; --now: rgba(90, 170, 230, 0.2); }
}
""".strip()
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # whatever a text holds, the page loads and runs nothing


def escape(text: str) -> str:
    """`text` as HTML that shows it, control characters included."""
    return html.escape(text, quote=True).translate(_PICTURES)


def fragment(body: str) -> str:
    """`body` with its style, for a notebook."""
    return f'<style>{_STYLE}</style><div class="s1">{body}</div>'


def page(title: str, body: str) -> str:
    """`body` as a file that needs nothing else."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n{_PAGE_STYLE}\n</style>\n</head>\n"
        f'<body class="s1">\n{body}\n</body>\n</html>\n'
    )


# -- one episode ------------------------------------------------------------------------------------------------------


def episode_view(step: Step, episode: Episode, prompts: Prompts | None = None) -> str:
    """Everything about one episode, and its group beside it.

    Args:
        prompts: also show each turn's full prompt, folded.
    """
    members = step.groups[episode.rollout.group]
    group = f"<h4>The group: {sum(e.won for e in members)} of {len(members)} won</h4>{group_table(members, episode)}"
    return "\n".join([_title(episode, len(members)), episode_body(step, episode, prompts), group])


def episode_body(step: Step, episode: Episode, prompts: Prompts | None = None) -> str:
    """Facts, query, candidates, skill, turns, lesson and credit of one episode."""
    r = episode.rollout
    parts = [_facts(episode)]
    if r.turns_of("query"):
        parts += ["<h4>Query</h4>", _box(r.query, "query")]
    if r.candidates:
        parts += ["<h4>Candidates</h4>", _candidates(step, episode)]
    if r.skill:
        parts += ["<h4>Skill in the act prompts</h4>", _box(r.skill, "skill")]
    parts += ["<h4>Turns</h4>", _turns(episode, prompts), "<h4>Lesson</h4>", _lesson(episode)]
    return "\n".join([*parts, "<h4>Credit</h4>", _credit(step, episode)])


def _title(episode: Episode, size: int) -> str:
    r = episode.rollout
    return f"<h3>Rollout {r.index} of {size}: {_outcome(episode)} after {r.steps} actions</h3>"


def _facts(episode: Episode) -> str:
    r = episode.rollout
    facts = [
        ("Task", _text(r.instruction, "instruction")),
        (
            _capital(task_word(r.task.environment)),
            f"{_text(r.task.game, 'game')} ({_text(r.task.category, 'category')}, {_text(r.task.split)})",
        ),
        ("Outcome", f'r = <span class="outcome">{r.outcome:g}</span>, score {r.score:g}'),
        ("Actions", f"{r.steps}; ill-formed {r.invalid_actions}, inadmissible {r.inadmissible_actions}"),
    ]
    if not math.isnan(r.skill_similarity):
        facts.append(("Task and skill", f'cosine <span class="similarity">{r.skill_similarity:.3f}</span>'))
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts)
    return f'<table class="facts">{rows}</table>'


def _candidates(step: Step, episode: Episode) -> str:
    """In retrieval order, with the place the policy gave each."""
    r = episode.rollout
    place = {position: rank for rank, position in enumerate(r.ranking, start=1)}
    rows = []
    for i, candidate in enumerate(r.candidates):
        skill = step.skills[candidate.skill]
        rows.append(
            f'<tr class="candidate{" now" if candidate.skill == r.selected else ""}">'
            f'<td class="n">{i + 1}</td><td class="n place">{place[i]}</td><td class="id">{_text(candidate.skill)}</td>'
            f'<td class="n utility">{candidate.utility:.3f}</td><td class="n">{skill.count}</td>'
            f'<td class="n">{candidate.similarity:.3f}</td><td class="n score">{candidate.score:.3f}</td>'
            f'<td class="words">{_text(skill.desc)}</td><td class="words">{_text(skill.strategy)}</td></tr>'
        )
    if not r.turns_of("rerank"):
        ranked = "There was no ranking call: retrieval order."
    elif r.ranking_parsed:
        ranked = f"The policy ranked them {_text(','.join(str(i + 1) for i in r.ranking), 'ranking')}."
    else:
        ranked = '<span class="mark">The ranking did not parse</span>: retrieval order.'
    agreement = "" if math.isnan(episode.ndcg) else f' NDCG <span class="ndcg">{episode.ndcg:.4f}</span>.'
    head = ["#", "policy's place", "skill", "U", "n", "cosine", "score", "description", "strategy"]
    return (
        f'<div class="scroll"><table>{_head(head, numbers=(0, 1, 3, 4, 5, 6))}{"".join(rows)}</table></div>'
        f'<p>{ranked}{agreement} U&#770; = <span class="uhat">{episode.u_hat:.4f}</span>. '
        f'<span class="dim">U and n as they were when retrieved.</span></p>'
    )


def _turns(episode: Episode, prompts: Prompts | None) -> str:
    rows, seen = [], None
    for number, (turn, row) in enumerate(zip(episode.rollout.turns, episode.rows, strict=True), start=1):
        observation = '<span class="dim">as above</span>' if turn.observation == seen else _text(turn.observation)
        seen = turn.observation
        rows.append(
            f'<tr class="turn"><td class="n">{number}</td><td class="stage">{turn.stage}</td>'
            f'<td class="observation">{observation}</td>'
            f'<td class="answer">{_answer(turn)}</td><td class="marks">{_marks(turn)}</td>{_row_cells(row)}</tr>'
        )
        if prompts is not None:
            full = _folded(f"prompt, {len(turn.prompt_ids)} tokens", _box(prompts(turn), "prompt raw"))
            rows.append(f'<tr><td></td><td></td><td colspan="5">{full}</td></tr>')
    head = _head(["#", "stage", "observation", "answer", "marks", "A", "A w"], numbers=(0, 5, 6))
    return f'<div class="scroll"><table class="wide">{head}{"".join(rows)}</table></div>'


def _answer(turn: Turn) -> str:
    """What the parser took, and what was written where that is something else."""
    value = _text(turn.value, "value")
    if turn.text == turn.value:
        return value
    written = _text(turn.text, "raw")
    if len(turn.text) <= _INLINE and "\n" not in turn.text:
        return f"{value}<br>{written}"
    return value + _folded("as written", written)


def _marks(turn: Turn) -> str:
    marks = []
    if not turn.well_formed:
        marks.append('<span class="mark">ill-formed</span>')
    if not turn.admissible:
        marks.append('<span class="mark">inadmissible</span>')
    return "<br>".join(marks)


def _row_cells(row: Row | None) -> str:
    if row is None:
        return '<td class="n dim">not trained</td><td></td>'
    return f'<td class="n advantage">{row.advantage:+.3f}</td><td class="n">{row.advantage * row.weight:+.3f}</td>'


def _lesson(episode: Episode) -> str:
    lesson = episode.rollout.lesson
    shown = ""
    if lesson is not None:
        shown = (
            f'<p class="dim">When it helps</p>{_box(lesson.desc, "desc")}'
            f'<p class="dim">Strategy</p>{_box(lesson.strategy, "strategy")}'
        )
    return f'{shown}<p class="fate">{_capital(escape(str(episode.fate)))}.</p>'


_REFLECTION_REWARDS = {
    "judged": "1 if the outcome was judged right",
    "judged_won": "r if the outcome was judged right",
    "intrinsic": "R<sub>int</sub>",
}


def _credit(step: Step, episode: Episode) -> str:
    """Per stage: the reward, its advantage and the weight of all its rows."""
    r, config = episode.rollout, step.run.config.credit
    rewards: dict[Stage, tuple[str, float]] = dict.fromkeys(STAGES, ("R", episode.returned))
    if config.estimator == "return_to_go":
        rewards["act"] = ("R, discounted to each action", episode.returned)
    if config.estimator != "gigpo":  # it gives all stages the episode's return
        if config.distill_reward == "surplus":
            one = (np.array([r.outcome]), np.array([episode.u_hat]), np.array([r.lesson is not None]))
            unparsed = "0" if config.unparsed_distill == "zero" else "-U&#770;"
            reward = float(distill_rewards(*one, config.unparsed_distill)[0])
            rewards["distill"] = (f"r - U&#770;, {unparsed} if it did not parse", reward)
        else:
            one = (np.array([r.outcome]), np.array([judged_right(r)]), np.array([intrinsic_of(r)]))
            reward = float(reflection_rewards(*one, config.distill_reward)[0])
            rewards["distill"] = (_REFLECTION_REWARDS[config.distill_reward], reward)
        if config.rerank_credit == "loss":
            rewards["rerank"] = ("NDCG", episode.ndcg)
    rows = []
    for stage in STAGES:
        turns = [row for turn, row in zip(r.turns, episode.rows, strict=True) if turn.stage == stage]
        if not turns:
            continue
        trained = [row for row in turns if row is not None]
        advantages = sorted({f"{row.advantage:+.3f}" for row in trained}, key=float)
        span = " to ".join(advantages[:: max(len(advantages) - 1, 1)]) or "not trained"
        name, reward = rewards[stage]
        weight = sum(row.weight for row in trained)
        rows.append(
            f'<tr class="credit"><td>{stage}</td><td>{name}</td><td class="n">{reward:.3f}</td>'
            f'<td class="n">{span}</td><td class="n">{len(turns)}</td><td class="n">{weight:.3f}</td></tr>'
        )
    head = _head(["stage", "its reward", "value", "advantage A", "calls", "sum of weights w"], numbers=(2, 3, 4, 5))
    return f"<table>{head}{''.join(rows)}</table>"


# -- a group, a step, a case ------------------------------------------------------------------------------------------


def group_table(members: Sequence[Episode], now: Episode | None = None) -> str:
    """Who won with which skill; `now` is highlighted."""
    rows = []
    for e in members:
        r = e.rollout
        acts = [row for turn, row in zip(r.turns, e.rows, strict=True) if turn.stage == "act" and row is not None]
        advantage = f"{acts[0].advantage:+.3f}" if acts else ""
        rows.append(
            f'<tr class="member{" now" if e is now else ""}"><td class="n">{r.index}</td><td>{_outcome(e)}</td>'
            f'<td class="n">{r.steps}</td><td class="id">{_skill_name(e)}</td><td class="words">{_text(r.query)}</td>'
            f'<td class="n">{advantage}</td><td class="words">{escape(str(e.fate))}</td></tr>'
        )
    head = _head(["rollout", "outcome", "actions", "skill", "query", "A of act", "lesson"], numbers=(0, 2, 5))
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def step_view(step: Step, opened: int, prompts: Prompts | None = None) -> str:
    """All groups of a step, folded but for group `opened`, and every episode within them."""
    parts = [f"<h2>All {task_word(step.run.config.environment.name)}s of step {step.number}</h2>"]
    for number, members in step.groups.items():
        r = members[0].rollout
        parts.append(
            f'<details class="group" id="group-{number}"{" open" if number == opened else ""}><summary>'
            f"<b>{sum(e.won for e in members)} of {len(members)} won</b> · {_text(r.task.category)} · "
            f"{_text(r.instruction)}</summary>\n{group_table(members)}"
        )
        for e in members:
            parts.append(
                f'<details class="episode" id="group-{number}-rollout-{e.rollout.index}"><summary>Rollout '
                f"{e.rollout.index}: {_outcome(e)} after {e.rollout.steps} actions · {_skill_name(e)}</summary>"
                f'<div class="body">\n{episode_body(step, e, prompts)}\n</div></details>'
            )
        parts.append("</details>")
    return "\n".join(parts)


def case_view(case: Case, step: Step) -> str:
    """A case study: the skill with utility and count, and the action trace of the episodes. `step` is the case's."""
    members = step.groups[case.group]
    chosen = [members[i] for i in (case.shown, case.against) if i is not None]
    skill = case.skill
    sides = "".join(
        f"<div><h4>Rollout {e.rollout.index}: {_outcome(e)} with {_skill_name(e)}</h4>{_trace(e)}</div>" for e in chosen
    )
    title = {"ahead": "Ahead of its group", "behind": "Behind its group", "relied on": "Relied on"}[case.kind]
    return (
        f'<section class="case"><h3>{title}: skill {_text(skill.id)}</h3><p>{escape(case.why)}</p>'
        f"<p>Step {case.step}, group {case.group}: {_text(chosen[0].rollout.instruction)}</p>"
        f"{_box(skill.strategy, 'strategy')}"
        f'<p class="dim">{_text(skill.desc)}<br>When retrieved: U = {skill.utility:.3f}, n = {skill.count}. '
        f"Admitted in step {skill.admitted} from the task {_text(skill.task)}</p>"
        f'<div class="pair">{sides}</div></section>'
    )


def rules() -> str:
    """How the case studies are chosen, for the reader."""
    return "".join(f"<p><b>{_capital(kind)}.</b> {escape(rule)}</p>" for kind, rule in RULES.items())


def _trace(episode: Episode) -> str:
    """Action after action, with what the environment said next."""
    acts, after = episode.rollout.turns_of("act"), episode.rollout.turns_of("distill")
    answers = [turn.observation for turn in (*acts, *after)][1:]  # without a distill call the last one is not stored
    steps = []
    for turn, answer in zip_longest(acts, answers):
        marks = _marks(turn).replace("<br>", " ")
        said = f'<br><span class="dim">{_text(answer)}</span>' if answer is not None else ""
        steps.append(f"<li>{_text(turn.value)} {marks}{said}</li>")
    return f'<ol class="trace">{"".join(steps)}</ol><p>{_outcome(episode)}</p>'


# -- parts ------------------------------------------------------------------------------------------------------------


def _text(text: str, name: str = "") -> str:
    return f'<span class="t{f" {name}" if name else ""}">{escape(text)}</span>'


def _box(text: str, name: str) -> str:
    return f'<span class="t box {name}">{escape(text)}</span>'


def _folded(title: str, body: str) -> str:
    return f'<details><summary class="dim">{title}</summary>{body}</details>'


def _head(names: Sequence[str], numbers: Sequence[int] = ()) -> str:
    kinds = [' class="n"' if i in numbers else "" for i in range(len(names))]
    cells = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, names, strict=True))
    return f"<tr>{cells}</tr>"


def _outcome(episode: Episode) -> str:
    return '<span class="won">won</span>' if episode.won else '<span class="lost">lost</span>'


def _skill_name(episode: Episode) -> str:
    r = episode.rollout
    return "no skill" if r.selected is None else f"skill {_text(r.selected, 'id')}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
