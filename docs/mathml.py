"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, nothing from outside."""

from html import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.Node, display: str) -> str:
    """MathML of a formula; a warning where it cannot be drawn, and its LaTeX in its place."""
    latex = node.astext().strip()
    try:
        drawn = convert(latex, display=display)
    except Exception as error:  # its parser raises many kinds
        drawn, reason = "", f"{type(error).__name__} {error}"
    else:
        reason = "it holds a command that latex2mathml does not know" if "\\" in drawn else ""
    if reason:
        logger.warning("formula %s: %s", latex, reason, location=node, type="mathml")
        return f"<code>{escape(latex)}</code>"
    return drawn


def visit_inline(writer, node) -> None:
    writer.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(writer, node) -> None:
    writer.body.append(f'<div class="formula">{mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
