"""The participant flow (STARD 2015 item 19; methods R1): boxes whose numbers are exactly those of attrition."""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass

import polars as pl

from ospor_batch.report.display import grouped

LEVELS = ("file", "instance", "series", "person")
REFERENCE_LEVELS = ("export_row", "exam", "label")
CATALOG = "catalog"
IN_WINDOW = "label in the window"
UNKNOWN = ": unknown"  # what the name of a criterion's second step ends in: who could not be judged
NOUNS = {
    "file": "files found", "instance": "instances", "series": "series", "study": "studies", "person": "persons",
    "export_row": "rows of the exports", "exam": "exams", "label": "labels",
}  # fmt: skip
KEPT = {
    "file": "DICOM instances readable", "instance": "instances kept", "series": "index series", "study": "studies kept",
    "person": "persons eligible", "export_row": "rows read", "exam": "exams with a reference label", "label": "labels kept",
}  # fmt: skip
REGROUPED = {"series": "grouped by series", "person": "the same images, counted by person", "exam": "grouped by exam"}
ONE_TO_ONE = ("instance", "label")  # a file that was read is an instance, an exam with a class is a label
STAGE_KEPT = {"infer": "persons read by the predictor", "evaluate": "persons in a test partition, analysed"}
# sizes in units of the drawing, which is scaled to the page
WIDTH, LEFT, MAIN, GAP, SIDE, LINE, PAD, SPACE = 760, 10, 300, 40, 400, 18, 10, 26
CHARACTERS = {MAIN: 36, SIDE: 50}  # of 14 and 13 units that fit a line of the box


@dataclass(frozen=True)
class Exclusion:
    """Those who left at a step, for one reason."""

    step: str
    reason: str
    n: int


@dataclass(frozen=True)
class Box:
    """How many stand here, and who left before the next box."""

    level: str
    says: str
    n: int
    left: tuple[Exclusion, ...] = ()

    @property
    def n_left(self) -> int:
        return sum(exclusion.n for exclusion in self.left)


def flow(attrition: pl.DataFrame, *, recipe: str, reference_id: str, levels: tuple[str, ...] = LEVELS) -> tuple[Box, ...]:
    """Draw together the steps of the catalog and of one recipe, summed over the centers, in order.

    A person passes three milestones after the criteria: a label in the window, a prediction, a test partition.
    """
    mine = pl.col("recipe").is_in([CATALOG, recipe]) & pl.col("reference_id").is_in([CATALOG, reference_id])
    summed = (
        attrition.filter(mine, pl.col("level").is_in(list(levels)))
        .filter((pl.col("level") != "series") | pl.col("stage").is_in(["catalog", "match"]))  # images are read as persons below
        .with_columns(is_late=pl.col("recipe") != CATALOG)
        .group_by("level", "is_late", "step_number", "step", "stage", "reason")
        .agg(pl.col("n_in", "n_excluded", "n_out").sum())
        .sort("is_late", "step_number", "step", "reason")
    )
    boxes: list[Box] = []
    for level in levels:
        found = _level(summed.filter(pl.col("level") == level).to_dicts(), level)
        if found and boxes and level in ONE_TO_ONE and boxes[-1].n == found[0].n:
            boxes.pop()  # one box, not two
        boxes += found
    return tuple(boxes)


def described(boxes: tuple[Box, ...]) -> str:
    """Say the flow in words, for those who do not see it."""
    said = []
    for box in boxes:
        left = "".join(f"; {e.n} left at {e.step} ({e.reason})" for e in box.left)
        said.append(f"{box.n} {box.says}{left}")
    return ". ".join(said) + "."


def draw(boxes: tuple[Box, ...], *, title: str, name: str) -> str:
    """Draw the boxes as SVG, exclusions to the right; ids start with the name, so that pages may hold several."""
    parts: list[str] = []
    y = PAD
    for i, box in enumerate(boxes):
        main = _lines(f"{grouped(box.n)} {box.says}", CHARACTERS[MAIN])
        height = len(main) * LINE + 2 * PAD
        parts.append(_boxed(LEFT, y, MAIN, height, lines=main, kind="kept"))
        y += height
        middle = LEFT + MAIN / 2
        if box.left:
            side = _exclusion_lines(box)
            side_height = len(side) * LINE + 2 * PAD
            parts.append(_boxed(LEFT + MAIN + GAP, y + PAD, SIDE, side_height, lines=side, kind="left"))
            at = y + PAD + side_height / 2
            parts.append(
                f'<path class="flow-line" d="M{middle:g} {at:g}H{LEFT + MAIN + GAP:g}" marker-end="url(#{name}-tip)"/>'
            )
            room = side_height + 2 * PAD
        else:
            room = SPACE
        is_regrouped = i + 1 < len(boxes) and boxes[i + 1].level != box.level and boxes[i + 1].level in REGROUPED
        if is_regrouped:
            room += PAD
            parts.append(_regrouped(middle, y, room, says=REGROUPED[boxes[i + 1].level]))
        elif i + 1 < len(boxes):
            parts.append(f'<path class="flow-line" d="M{middle:g} {y:g}V{y + room:g}" marker-end="url(#{name}-tip)"/>')
        elif box.left:
            parts.append(f'<path class="flow-line" d="M{middle:g} {y:g}V{y + PAD + side_height / 2:g}"/>')
        y += room
    return _svg("\n".join(parts), height=y, title=title, says=described(boxes), name=name)


def _level(rows: list[dict[str, object]], level: str) -> list[Box]:
    """The first box of a level with all who left before its first milestone, then a box for each milestone."""
    if not rows:
        return []
    boxes, says, n, left = [], NOUNS[level], int(str(rows[0]["n_in"])), list[Exclusion]()
    last = len(rows) - 1
    for i, row in enumerate(rows):
        if row["n_excluded"]:
            left.append(Exclusion(str(row["step"]), str(row["reason"]), int(str(row["n_excluded"]))))
        if i == last or _milestone(rows[i + 1], level) != _milestone(row, level):
            boxes.append(Box(level, says, n, tuple(left)))
            says, n, left = _milestone(row, level), int(str(row["n_out"])), []
            if i < last and rows[i + 1]["stage"] == "evaluate" and row["stage"] != "infer":
                boxes.append(Box(level, says, n))  # nobody was refused: infer has no step, but everybody was read
                says = STAGE_KEPT["infer"]
    return [*boxes, Box(level, says, n)]


def _milestone(row: dict[str, object], level: str) -> str:
    """What those are called who pass the step."""
    if level == "person" and row["stage"] in STAGE_KEPT:
        return STAGE_KEPT[str(row["stage"])]
    if level == "person" and row["step"] == IN_WINDOW:
        return "persons with a label in the window"
    if level == "series" and row["step"] != "index series":
        return "series kept"
    return KEPT[level]


def _exclusion_lines(box: Box) -> list[str]:
    lines = [f"{grouped(box.n_left)} left"]
    for exclusion in box.left:
        lines += _lines(f"{grouped(exclusion.n)}  {_why(exclusion)}", CHARACTERS[SIDE])
    return lines


def _why(exclusion: Exclusion) -> str:
    """Say why they left; a criterion of the study names who stays, which is not what those who leave are."""
    step, reason = exclusion.step.lower(), exclusion.reason.replace("_", " ")
    if re.sub(r"[^0-9a-z]+", " ", step).strip() == reason:
        return exclusion.step if step.endswith(UNKNOWN) else f"not kept by: {exclusion.step}"
    return reason if reason in step else f"{reason} (at: {exclusion.step})"


def _lines(said: str, width: int) -> list[str]:
    return textwrap.wrap(said, width, subsequent_indent="    ", break_long_words=True) or [""]


def _boxed(x: float, y: float, width: float, height: float, *, lines: list[str], kind: str) -> str:
    said = [f'<rect class="flow-{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>']
    for i, line in enumerate(lines):
        indent = 14 if line.startswith("    ") else 0
        weight = ' font-weight="600"' if i == 0 else ""
        at = f'x="{x + PAD + indent:g}" y="{y + PAD + LINE * (i + 0.75):g}"'
        said.append(f'<text class="flow-text-{kind}" {at}{weight}>{html.escape(line.strip())}</text>')
    return "\n".join(said)


def _regrouped(x: float, y: float, room: float, *, says: str) -> str:
    """A dashed line without a tip: nobody left here, what is counted changes."""
    line = f'<path class="flow-line" stroke-dasharray="4 4" d="M{x:g} {y:g}V{y + room:g}"/>'
    at = f'x="{x + PAD:g}" y="{y + room / 2 + 4:g}"'
    return f'{line}\n<text class="flow-text-left" font-style="italic" {at}>{html.escape(says)}</text>'


def _svg(body: str, *, height: float, title: str, says: str, name: str) -> str:
    tip = f'<marker id="{name}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    # colours: Okabe and Ito's blue and vermillion, told apart also by place and by the word "left"
    style = (
        ".flow text{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1a1a1a}"
        ".flow-text-kept{font-size:14px}.flow-text-left{font-size:13px}"
        ".flow-kept{fill:#eef5fa;stroke:#0072b2;stroke-width:1.5}.flow-left{fill:#fdf3ee;stroke:#d55e00;stroke-width:1.2}"
        ".flow-line{fill:none;stroke:#555;stroke-width:1.3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flow" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" '
        f'role="img" aria-labelledby="{name}-title {name}-desc">\n'
        f'<title id="{name}-title">{html.escape(title)}</title>\n<desc id="{name}-desc">{html.escape(says)}</desc>\n'
        f"<style>{style}</style>\n<defs>{tip}"
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>\n'
        f"{body}\n</svg>\n"
    )
