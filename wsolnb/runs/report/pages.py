"""Executed notebooks as self-contained web pages: formulas as MathML, anywidget widgets that stay interactive."""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import FileSystemLoader, pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from wsolnb.runs.report.clean import clean

TEMPLATES = Path(__file__).parent / "templates"
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def page(notebook: NotebookNode, *, title: str = "", folder: str | Path = ".", theme: str = "light") -> str:
    """The HTML of an executed notebook, to be opened from the file system without a network or a kernel.

    Widgets made with anywidget stay interactive if the notebook holds their state; any other is replaced by its
    picture, or by a note if it has none. The pictures that the notebook links to are looked up in `folder`; the theme
    is `light` or `dark`. Markdown is cleaned (:mod:`wsolnb.runs.report.clean`), outputs of code are as they were. The
    notebook itself is not changed.

    Example:
        >>> notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Let $x^2$ be")])
        >>> "<msup><mi>x</mi><mn>2</mn></msup>" in page(notebook)
        True
    """
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    states = take_states(notebook)
    exporter = HTMLExporter(
        template_file="notebook.html.j2",
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        theme=theme,
        embed_images=True,
        exclude_anchor_links=True,
    )
    exporter.log.setLevel(logging.ERROR)
    exporter.register_filter("markdown2html", _markdown)
    resources = {"metadata": {"name": title or "notebook", "path": str(folder)}}
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    if not states:
        return str(body)
    scripts = [_state_script(key, state) for key, state in states.items()]
    host = (TEMPLATES / "host.js").read_text(encoding="utf-8")
    head, _, tail = str(body).rpartition("</body>")
    return "\n".join([head, *scripts, f'<script type="module">\n{host}</script>\n</body>{tail}'])


def take_states(notebook: NotebookNode) -> dict[str, dict[str, Any]]:
    """Remove the states of widgets from a notebook, and replace outputs that show a widget by HTML, in place.

    Returned are the states of the widgets shown that can run without a kernel, by their keys in the page.

    Example:
        >>> output = nbformat.v4.new_output("display_data", data={VIEW: {"model_id": "m1"}})
        >>> notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
        >>> notebook.metadata.widgets = {STATE: {"state": {"m1": {"model_module": "anywidget"}}}}
        >>> take_states(notebook), notebook.cells[0].outputs[0].data
        ({'m1': {'model_module': 'anywidget'}}, {'text/html': '<div data-afm="m1"></div>'})
    """
    stored = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    taken = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if VIEW not in data:
                continue
            key = data.pop(VIEW)["model_id"]
            picture = _picture(data)
            state = stored.get(key, {})
            if state.get("model_module") == "anywidget":
                taken[key] = state
                data["text/html"] = f'<div data-afm="{html.escape(key)}">{picture}</div>'
            elif picture:
                data["text/html"] = picture
            else:
                note = "A control stood here that needs a running kernel: open the notebook to use it."
                data["text/html"] = f'<p class="wsolnb-note">{note}</p>'
    return taken


def _picture(data: Mapping[str, str]) -> str:
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            name = html.escape(data.get("text/plain", "a widget"))
            return f'<img src="data:{kind};base64,{data[kind].strip()}" alt="{name}">'
    return ""


def _state_script(key: str, state: Mapping[str, Any]) -> str:
    content = json.dumps({"state": state["state"], "buffers": state.get("buffers", [])}).replace("<", "\\u003c")
    return f'<script type="application/json" id="wsolnb-state-{html.escape(key)}">{content}</script>'


class _Renderer(IPythonRenderer):
    """Markdown with formulas as MathML, and without links to local files, which a page does not come with."""

    def block_math(self, body: str) -> str:
        return _formula(body, "block")

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return _formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def block_html(self, html: str) -> str:
        return str(super().block_html(html)) if "<img" in html else f"{html}\n"  # else tags of one piece are closed

    def inline_html(self, html: str) -> str:
        return str(super().inline_html(html)) if "<img" in html else html

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if re.match(r"(?:[a-z]+:|#)", url):
            return str(super().link(text, url, title))
        return f'<span title="{html.escape(url)}">{text}</span>'


@pass_context
def _markdown(context: Any, source: str) -> str:
    cell, resources = context.get("cell", {}), context.get("resources", {})
    renderer = _Renderer(
        escape=False,
        attachments=cell.get("attachments", {}),
        embed_images=True,
        path=resources.get("metadata", {}).get("path", ""),
        exclude_anchor_links=True,
    )
    return clean(str(MarkdownWithMath(renderer=renderer).render(source)))


def _formula(latex: str, display: str = "inline") -> str:
    """A LaTeX formula without delimiters as MathML, `inline` or `block`; as it is if it cannot be parsed."""
    try:
        braced = re.sub(r"(\\math(?:cal|bb|bf|frak|scr|sf|rm))\s+(\w)", r"\1{\2}", latex)  # else plain letters
        return str(convert(braced, display=display))
    except Exception:  # whatever the library cannot parse, a person may
        return f"<code>{html.escape(latex)}</code>"
