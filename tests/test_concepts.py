"""Concept figures: they stand alone, and no font of the list, the widest included, makes a text leave its box."""

import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

CONCEPTS = sorted((Path(__file__).parents[1] / "figures").glob("concept_*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
SIDE, ABOVE = 4, 1  # px between a text and the edge of its box, or of a box beside it
Box = tuple[float, float, float, float]  # left, top, right, bottom


def box_of_text(node: ElementTree.Element) -> Box:
    """The text in DejaVu Sans, the widest font of the list: browsers take it where Helvetica and Arial are missing."""
    font = FontProperties(family="DejaVu Sans", size=float(node.get("font-size")))
    font.set_weight(node.get("font-weight", "normal"))
    if any(part.get("font-weight") for part in node):
        font.set_weight("bold")
    width, height, descent = TextToPath().get_text_width_height_descent("".join(node.itertext()), font, ismath=False)
    x, y = float(node.get("x")), float(node.get("y"))
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[node.get("text-anchor", "start")]
    return left, y - height + descent, left + width, y + descent


def box_of_rect(node: ElementTree.Element) -> Box:
    x, y, width, height = (float(node.get(key, 0)) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def inside(box: Box, outer: Box) -> bool:
    left, top, right, bottom = (a - b for a, b in zip(box, outer, strict=True))
    return left >= SIDE and right <= -SIDE and top >= ABOVE and bottom <= -ABOVE


def apart(box: Box, other: Box, side: float = SIDE) -> bool:
    beside = box[0] >= other[2] + side or other[0] >= box[2] + side
    return beside or box[1] >= other[3] or other[1] >= box[3]


def covers(shape: ElementTree.Element, text: Box) -> bool:
    """A filled box around the text hides what was drawn before it."""
    filled = shape.get("fill") not in (None, "none") and shape.get("fill-opacity") is None
    return shape.tag == f"{SVG}rect" and filled and inside(text, box_of_rect(shape))


def strokes(shape: ElementTree.Element) -> list[tuple[float, float]]:
    """Points, a pixel apart, on a line or on a path of straight pieces; none on faint ones, which are decoration."""
    if float(shape.get("stroke-opacity", 1)) < 0.5 or shape.get("stroke") is None:
        return []
    if shape.tag == f"{SVG}line":
        corners = [tuple(float(shape.get(f"{axis}{end}")) for axis in "xy") for end in "12"]
    elif shape.tag == f"{SVG}path" and set(re.findall("[A-Za-z]", shape.get("d"))) <= {"M", "L"}:
        numbers = [float(number) for number in re.findall(r"[-.\d]+", shape.get("d"))]
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    else:
        return []
    pieces = [np.linspace(a, b, int(np.hypot(*np.subtract(a, b))) + 2) for a, b in pairwise(corners)]
    return np.concatenate(pieces).tolist()


def crossed(text: Box, shape: ElementTree.Element) -> bool:
    if shape.tag == f"{SVG}rect":
        return not inside(text, box_of_rect(shape)) and not apart(text, box_of_rect(shape))
    return any(not apart(text, (x, y, x, y), side=1) for x, y in strokes(shape))


def touching(root: ElementTree.Element) -> list[str]:
    """Every text that leaves its box, lies close to another one or on a line, or runs into another text."""
    texts = [(node, box_of_text(node)) for node in root.findall(f"{SVG}text") if not node.get("transform")]
    shapes, faults = [node for node in root if node.tag != f"{SVG}text"], []
    for node, box in texts:
        first = max((i for i, shape in enumerate(shapes) if covers(shape, box)), default=0)
        words = f"{''.join(node.itertext())!r} {tuple(map(round, box))}"
        faults += [f"{words} touches {shape.attrib}" for shape in shapes[first:] if crossed(box, shape)]
    return faults + [
        f"{''.join(one.itertext())!r} runs into {''.join(two.itertext())!r}"
        for (one, box), (two, other) in combinations(texts, 2)
        if not apart(box, other, side=0)
    ]


def drawn(*shapes: str) -> ElementTree.Element:
    return ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>')


LONG, BOX = "a sentence that is longer than its box", '<rect x="10" y="10" width="100" height="40" fill="#ffffff"/>'


@pytest.mark.parametrize(
    ("shapes", "fault"),
    [
        ((BOX, f'<text x="20" y="34" font-size="12">{LONG}</text>'), "touches"),
        ((BOX, '<text x="11" y="34" font-size="12">edge</text>'), "touches"),
        ((BOX, '<text x="113" y="34" font-size="12">beside</text>'), "touches"),
        (('<path d="M0 30 L90 30" stroke="#444444"/>', '<text x="20" y="34" font-size="12">on it</text>'), "touches"),
        (('<text x="0" y="34" font-size="12">one</text>', '<text x="9" y="34" font-size="12">two</text>'), "runs into"),
        ((BOX, '<text x="20" y="34" font-size="12">inside</text>'), None),
        (('<path d="M0 30 L90 30" stroke="#444444"/>', BOX, '<text x="20" y="34" font-size="12">over</text>'), None),
    ],
)
def test_what_counts_as_touching(shapes, fault):
    faults = touching(drawn(*shapes))
    assert bool(faults) == bool(fault) and all(fault in line for line in faults)


@pytest.mark.parametrize("path", CONCEPTS, ids=lambda path: path.stem)
def test_no_text_leaves_its_box(path):
    assert not touching(ElementTree.parse(path).getroot())


@pytest.mark.parametrize("path", CONCEPTS, ids=lambda path: path.stem)
def test_a_concept_figure_stands_alone(path):
    root = ElementTree.parse(path).getroot()
    assert root.get("width") == "900" and root.find("{*}title").text and root.find("{*}desc").text
    references = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
    assert set(references) <= {"#slice"} and root.find(".//{*}image") is None and root.find(".//{*}text") is not None
