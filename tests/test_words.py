"""Words that must not come back: each has a pattern, what to say instead, a sentence it finds and one it leaves alone.

Checked are the prose, comments and strings of notebooks, the pages, the docstrings, comments and messages of the
packages, and the text of the figures; code in `backticks`, formulas and addresses are not. A failure names file, cell
or line, word and replacement.
"""

import ast
import io
import json
import re
import textwrap
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).resolve().parents[1]


class Word(NamedTuple):
    pattern: str  # `^` is the beginning of a paragraph, list item, table row or string
    instead: str
    found: str
    left: str

    def hits(self, text: str) -> list[re.Match]:
        return list(re.finditer(self.pattern, text, re.IGNORECASE))


SENTENCE = r"(?:^[\W\d]*|(?<=[.:;?!] )[*_]*)"  # what may be before its first word
WORDS = [
    # initialisation
    Word(
        r"\brandom starts?\b", "random initialisation, from scratch", "as good as a random start", "random crops start"
    ),
    Word(
        r"\b(?:pretrained|trained|every|each|either|two|three|both|same|other) starts?\b"
        r"(?! (?:with|from|at|in|on|as|by|to|after|before|again|here|higher|lower|over|its|a|the)\b)",
        "initialisation, init",
        "The pretrained start is better.",
        "Both start from scratch.",
    ),
    Word(r"\bstarts? and controls?\b", "inits and controls", "names of starts and controls", "starts a control run"),
    # clusters
    Word(r"\bheaps?\b", "cluster", "a heap of voxels", "cheap"),
    Word(
        r"\bnam(?:e|es|ed|ing) (?:the )?kinds?\b",
        "predicting cluster pseudo-labels",
        "naming kinds helps",
        "kinds of name",
    ),
    Word(
        r"\bnaming (?:helps?|brings?|moves?|beats?|gains?|and drawing)\b",
        "predicting clusters",
        "Naming helps.",
        "naming two of them is not enough",
    ),
    Word(r"\bpixel[ -]clusters?\b", "voxel clusters", "pixel clusters", "pixel-level clustering of slices"),
    Word(
        r"\bK kinds\b|\bkinds? of (?:a|every|each|the) voxels?\b",
        "cluster",
        "the kind of every voxel",
        "two kinds of errors",
    ),
    Word(
        r"\b(?:Lloyd rounds?|rounds? of Lloyd|rounds? of k-means)\b",
        "Lloyd iteration",
        "a Lloyd round",
        "a round number",
    ),
    Word(
        r"\bk-means (?:is told|sees|looks at|knows)\b",
        "input features of k-means",
        "what k-means is told",
        "k-means is run",
    ),
    Word(
        r"\bentropy (?:that is |is )?given away\b", "homogeneity", "entropy given away by clusters", "given the entropy"
    ),
    Word(
        r"\bpla(?:ce|ces) alone\b|\b(?:by|without|value and) place\b",
        "position, position-only baseline",
        "above what the place alone tells",
        "by placing it there; in place of a loss",
    ),
    # pretext tasks and their baselines
    Word(
        r"\b(?:draw|draws|drawn|drawing) (?:the )?(?:grey )?(?:intensit(?:y|ies)|values)\b",
        "reconstructing intensities, masked image modelling",
        "tasks drawing intensities",
        "plot the intensities; draw a curve",
    ),
    Word(r"\bin-?fill(?:ing|ed|s)?\b", "interpolation baseline", "below in-filling", "fill in the mask; filling"),
    Word(
        r"\b(?:that|which|who) learnt nothing\b(?! else)",
        "trivial baselines, not trained",
        "a baseline that learnt nothing",
        "the encoder learnt nothing",
    ),
    Word(
        r"\b(?:know|knows|knew) (?:nothing|more than)\b",
        "say what it was given, or how it scores",
        "it knows nothing",
        "it is known",
    ),
    Word(
        r"\b(?:the|voxel|image) contrast\b(?! (?:phase|agent|medium|media|enhance|of|between|in|to)\b)",
        "the contrastive loss",
        "The contrast helps.",
        "in the contrast phase; the contrast of a T1 image; the contrastive loss",
    ),
    Word(
        r"\bwith(?:out)?(?: and without)? the contrast\b|\brestoration with\S* contrast\b",
        "contrastive loss",
        "with the contrast",
        "CT with contrast medium",
    ),
    Word(
        r"(?<!free of )(?<!in )\bcharg(?:e|es|ed|ing)\b(?! the whole)",
        "compute the loss on, penalise",
        "Only hidden voxels are charged.",
        "free of charge; a run is charged the whole pretraining",
    ),
    Word(r"\brivals?\b", "baseline", "a strong rival", "arrival"),
    Word(r"\blikeness(?:es)?\b", "task similarity", "the likeness of the tasks", "likely"),
    Word(
        r"\ba (?:real |hard |true |good )?lesson\b|\b(?:is|be) the lesson\b",
        "non-trivial pretext task; or say what was found",
        "That is the lesson here.",
        "the lessons of a term",
    ),
    Word(
        r"\b(?:no|little|more|the) room (?:above|to (?:gain|improve))\b",
        "headroom",
        "no room to improve",
        "no room for _ bytes",
    ),
    Word(r"\brooms\b", "subpackage", "the rooms of the package", "no room on the disk"),
    # data and runs
    Word(
        r"\b(?:label|other|another|nested|repeated|one|two|three|four|nine|every|each|single|several|same) draws?\b"
        r"(?! (?:a|an|the|on|one|with|its|what|it|numbers|from|in|for|of an?)\b)"
        r"|\bdraws? (?:and|or|of labels|times) seeds?\b|\bdraws?: \d|\b(?:within|between) (?:a )?draws?\b",
        "label subset",
        "three draws and three seeds",
        "We draw a curve; each draws a mask.",
    ),
    Word(
        r"\b(?:training|train|validation|test|pool|labelled|unlabelled|scored|pretraining)[ -]sides?\b",
        "split: training set, validation set, test set",
        "a case of the test side",
        "the left side of the test image",
    ),
    Word(r"\binner validation\b", "validation set", "the inner validation cases", "the inner loop validates"),
    Word(
        r"(?<!standard )(?<!absolute )(?<!squared )\b(?<!-)deviations?\b(?! from)",
        "standard deviation",
        "a normal deviation of 0.1",
        "two standard deviations; a deviation from the plan",
    ),
    Word(
        r"\bchance of (?:the )?(?:test patients|patients|pretraining|training|draws?|subsets|seeds)\b",
        "variation between patients, subsets, seeds",
        "no interval includes the chance of pretraining",
        "the chance of a tie; by chance",
    ),
    Word(
        r"\b(?:one|every|each|last|per) look\b(?! (?:at|like|as|more|better|right|the|into|for)\b)",
        "evaluation, measurement",
        "a row per look",
        "the more often one looks; a look at the data",
    ),
    # errors
    Word(
        r"(?<!segmentation )\bfaults?\b(?!-tolerant)",
        "error, mistake, bug",
        "a fault in the file",
        "a segmentation fault; default",
    ),
    Word(r"\bmend(?:s|ed|ing)?\b", "fix, correct", "this mends the header", "recommended; amend"),
    Word(r"\bcur(?:e|es|ed)\b", "fix", "one line with the cure", "secure, curved"),
    Word(
        r"\brefus(?:e|es|ed) in (?:one|a) line\b",
        "rejected with a one-line fix",
        "refused in one line",
        "refused, in red",
    ),
    Word(r"\bsays? the (?:cure|fix|reason)\b", "names the fix", "a line that says the fix", "says a word"),
    Word(
        r"\bgo(?:es)? on (?:where|with the same|from there)\b",
        "resumes",
        "it goes on where it stopped",
        "goes on to say",
    ),
    # English
    Word(r"\blevers?\b", "optimisation, option", "the strongest lever", "leverage; clever"),
    Word(
        r"\b(?:too|very|as|more|less|is|are|how|so) dear\b|\bdearer\b",
        "expensive",
        "a step is dear",
        "endear; dear reader",
    ),
    Word(r"\bfor want of\b", "out of, without", "killed for want of memory", "we want of course"),
    Word(r"\bmanieth\b", "every n-th", "every so manieth step", "many"),
    Word(r"\bafresh\b", "again, from the beginning", "starts afresh", "a fresh start"),
    Word(r"\bwho(?:ever|soever)\b", "if you, a reader who", "whoever looks", "who saw it"),
    Word(r"\bwithout a person\b", "unattended, headless", "executed without a person", "without a personal account"),
    Word(
        r"\b(?:is|are|was|were|be|been) told (?!to\b|apart\b|from\b)",
        "is given, receives",
        "The network is told where the holes are.",
        "You are told to wait.",
    ),
    Word(r"\b(?:is|are|be) told from\b", "distinguish", "cannot be told from chance", "to tell them apart"),
    Word(r"\b(?:bring|brings|brought) (?:no|nothing|far|little)\b", "give, gain", "it brings no gain", "bring a file"),
    Word(
        r"\bstands? (?:in|beside|under|once|there|above|at)\b(?! for\b)",
        "is in, is beside",
        "the name stands in the file",
        "stand-alone; it stands in for a patch",
    ),
    Word(r"\bholds? (?:no|what)\b", "contains, includes", "the folder holds no volume", "holds a lock"),
    Word(r"\bspeaks? of\b", "refers to, concerns", "p speaks of the patients", "to speak softly"),
    Word(r"\bhanded back\b", "identity baseline", "the input handed back", "a hand on the back"),
    Word(r"\bworth nothing\b", "gave no gain", "it is worth nothing", "worth something"),
    Word(r"\boftener\b", "more often", "the oftener", "the more often"),
    Word(r"\bcan not\b", "cannot", "What this can not say", "it cannot say"),
    Word(
        r"\bwhat (?:it|this|they|one) (?:can ?not|do(?:es)? not) (?:say|tell)\b",
        "Limitations",
        "What it cannot say",
        "what it says",
    ),
    Word(
        r"\bnothing (?:with|against|from) nothing\b",
        "true-null comparisons",
        "comparisons of nothing with nothing",
        "nothing within",
    ),
    Word(
        r"\bno (?:image|picture|file|number|table) (?:tells?|says?|knows?)\b",
        "some ... are arbitrary, are not recorded",
        "a border that no image tells",
        "no image shown",
    ),
    # sentences
    Word(
        SENTENCE + r"(?-i:Who) [^.?!;]*[.;!]",
        "if you ..., patients who ...",
        "Who has time needs no pretraining.",
        "Who saw it? Whole volumes. Patients who move.",
    ),
    Word(
        SENTENCE + r"(?-i:Nor) (?:do|does|did|is|are|was|were|has|have|can|could|will|would)\b",
        "a main clause: It does not ... either",
        "It fails. Nor does it say so.",
        "neither this nor that; Normal is",
    ),
    Word(
        r"(?<!there )(?<!\d )\bis no (?!longer|more\b|better|worse|less)[a-z]+(?: either)?[.;!]",
        "a plain statement, or leave it out",
        "A slow fall is no alarm.",
        "There is no mask. 0 is no overlap.",
    ),
    Word(r"\bRead it\.", "Read the table, the picture; or nothing", "**Read it.** Three rows.", "Read its table."),
    Word(
        SENTENCE + r"Learnt it is\b|" + SENTENCE + r"Not (?:so|that) \w+ is\b",
        "a plain main clause",
        "Learnt it is: see.",
        "It is learnt.",
    ),
]
SENTENCES = [  # a reviewer's examples: each must be found by some pattern
    "It brings no gain here that repeats.",
    "The course goes on where it stopped.",
    "Who has the minutes to fine-tune to the end needs no pretraining.",
    "What this can not say",
    "A bad file is refused in one line that says the cure.",
    "Some borders are there, but no image tells where they are.",
    "These are comparisons of nothing with nothing.",
    "Nor does the network. Learnt it is: see the probe.",
]
NAMES = {  # names of variables, arguments and functions in notebooks and packages
    "kinds": "clusters, layouts, ...: what they are",
    "told": "features, message, ...: what it is",
    "asked": "queries, options, ...: what it is",
    "says": "caption, sentences, ...: what it is",
    "mine": "what it is",
    "found": "results, matches, ...: what it is",
    "far": "distance",
    "place": "position, bounds",
    "starts": "inits",
    "where": "setup, options, ...: what it is",
}
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"`[^`\n]+`|\$[^$\n]+\$|(?<=\])\([^)\s]+\)|https?://\S+|<!--.*?-->|\{[^{}\n]*\}", re.DOTALL)
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[|*>#-]|\d+\.)\s)")


class Text(NamedTuple):
    place: str  # cell of a notebook, or nothing
    line: int  # of its beginning
    text: str


def of_python(source: str, place: str = "", line: int = 1) -> Iterator[Text]:
    """Docstrings, strings (values of f-strings left out), and comments, those of neighbouring lines as one text."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # lines out of a table or a function, shown on a page
        yield Text(place, line, source)
        return
    exports = [node for node in tree.body if ast.unparse(node).startswith("__all__ ")]
    names = {child for node in exports for child in ast.walk(node)}
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node, parent in parents.items():
        if isinstance(parent, ast.JoinedStr) or node in names:
            continue
        if isinstance(node, ast.JoinedStr) and not isinstance(parent, ast.FormattedValue):
            text = "".join(part.value if isinstance(part, ast.Constant) else "_" for part in node.values)
            yield Text(place, line + node.lineno - 1, text)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(place, line + node.lineno - 1, node.value)
    last, comment = -1, ""
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline):
        if token.type == tokenize.COMMENT:
            row = line + token.start[0] - 1
            if row != last + 1 or not token.line.lstrip().startswith("#"):
                if comment:
                    yield Text(place, last - comment.count("\n"), comment)
                comment = token.string.lstrip("# ")
            else:
                comment += "\n" + token.string.lstrip("# ")
            last = row
    if comment:
        yield Text(place, last - comment.count("\n"), comment)


def of_markdown(text: str, place: str = "", line: int = 1) -> Iterator[Text]:
    for block in CODE.finditer(text):
        if block[1] == "python":
            yield from of_python(block[2], place, line + text.count("\n", 0, block.start(2)))
    yield Text(place, line, CODE.sub(lambda block: "\n" * block[0].count("\n"), text))


def of_notebook(path: Path) -> Iterator[Text]:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        reader = of_python if cell["cell_type"] == "code" else of_markdown
        yield from reader("".join(cell["source"]), f"cell {cell['id']}, ")


def of_figure(path: Path) -> Iterator[Text]:
    text = path.read_text(encoding="utf-8")
    for node in re.finditer(r"<(title|desc|text|tspan)\b[^>]*>([^<]*)", text):
        yield Text("", text.count("\n", 0, node.start(2)) + 1, node[2])


def texts(path: Path) -> Iterator[Text]:
    if path.suffix in (".ipynb", ".svg"):
        yield from (of_notebook if path.suffix == ".ipynb" else of_figure)(path)
    else:
        yield from (of_python if path.suffix == ".py" else of_markdown)(path.read_text(encoding="utf-8"))


def blocks(text: Text) -> Iterator[tuple[list[tuple[int, int]], str]]:
    """Paragraphs, list items and table rows on one line each, with (position, line) of every word."""
    shown, start = HIDDEN.sub(lambda hidden: "_" + "\n" * hidden[0].count("\n"), text.text), 0
    for end in [*(gap.start() for gap in BLOCK.finditer(shown)), len(shown)]:
        words, flat = [], ""
        for word in re.finditer(r"\S+", shown[start:end]):
            flat += " " * bool(flat)
            words.append((len(flat), text.line + shown.count("\n", 0, start + word.start())))
            flat += word[0]
        if flat:
            yield words, flat
        start = end


def hits(path: Path) -> list[tuple[Word, str]]:
    """(Word, where and what) of everything in a file that should be said in another way."""
    results = []
    for text in texts(path):
        for words, flat in blocks(text):
            for word in WORDS:
                for match in word.hits(flat):
                    line = words[bisect_right(words, (match.start(), 10**9)) - 1][1]
                    about = flat[max(0, match.start() - 30) : match.end() + 30]
                    shown = (
                        f"{path.relative_to(PROJECT)}, {text.place}line {line}: {match[0].strip()!r} in ...{about}..."
                    )
                    results.append((word, f"{shown}\n    say: {word.instead}"))
    return results


def named(source: str) -> Iterator[tuple[int, str]]:
    """(Line, name) of the variables, arguments, functions and keywords that a source defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def sources(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".py":
        yield "", path.read_text(encoding="utf-8")
    else:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield f"cell {cell['id']}, ", "".join(cell["source"])


NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PACKAGES = [path for folder in ("ssl_utils", "course") for path in sorted((PROJECT / folder).rglob("*.py"))]
PAGES = [PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES += sorted((PROJECT / "docs").rglob("*.md"))
FIGURES = sorted((PROJECT / "figures").glob("*.svg"))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(PROJECT).as_posix())


@each([*NOTEBOOKS, *PAGES, *PACKAGES, *FIGURES])
def test_words(path):
    wrong = [shown for _, shown in hits(path)]
    assert not wrong, f"{len(wrong)} to be said in the words of the papers:\n" + "\n".join(wrong)


@each([*NOTEBOOKS, *PACKAGES])
def test_names(path):
    wrong = [
        f"{path.relative_to(PROJECT)}, {place}line {line}: {name}: {NAMES[name]}"
        for place, source in sources(path)
        for line, name in named(source)
        if name in NAMES
    ]
    assert not wrong, f"{len(wrong)} names that do not say what a thing is:\n" + "\n".join(wrong)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.instead[:30])
def test_a_pattern_finds_its_sentence_and_leaves_the_other(word):
    assert word.hits(word.found), f"{word.pattern} does not find: {word.found}"
    assert not word.hits(word.left), f"{word.pattern} should leave alone: {word.left}"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_examples_of_the_review_are_found(sentence):
    assert any(word.hits(sentence) for word in WORDS)


def test_a_hit_is_named_by_cell_line_word_and_replacement(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PROJECT", tmp_path)
    cells = [
        {
            "cell_type": "markdown",
            "id": "idea",
            "source": ["# Title\n", "\n", "Better than a random\n", "start, `heap`."],
        },
        {
            "cell_type": "code",
            "id": "use",
            "source": ['x = f"{heap} is"\n', "# one\n", 'y = f"a {x:.2f} heap"  # cure'],
        },
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    shown = [shown for _, shown in hits(path)]
    assert len(shown) == 3
    assert shown[0].startswith("a.ipynb, cell idea, line 3: 'random start' in ...")
    assert shown[0].endswith("say: random initialisation, from scratch")
    assert "cell use, line 3: 'heap'" in shown[1] and "cell use, line 3: 'cure'" in shown[2]


def test_comments_of_neighbouring_lines_are_one_text():
    source = "# a random\n# start\nx = 1  # fine\n\n\ndef f():\n    # alone\n    return x\n"
    assert [text[1:] for text in of_python(source)] == [(1, "a random\nstart"), (3, "fine"), (7, "alone")]


def test_names_in_all_are_no_text():
    assert not list(of_python('__all__ = ["faults"]\n__all__ += ["heap"]\n'))


@pytest.mark.parametrize(
    ("source", "names"), [("told = 1", ["told"]), ("def f(told): ...", ["f", "told"]), ("told", [])]
)
def test_names_that_are_defined(source, names):
    assert [name for _, name in named(source)] == names
