"""Make, from the notebooks beside this file, what a class needs: a twin without answers, slides, or a website.

    python notebooks/publish.py class FOLDER     notebooks with headings, prose and code, without answers and outputs
    python notebooks/publish.py slides FOLDER    a reveal.js presentation of each notebook, with its outputs
    python notebooks/publish.py site FOLDER      web pages with pictures and players, which work without a network

The notebooks are the only source, so that nothing drifts. Slides and pages show the outputs that the notebooks hold; a
notebook that was not executed, or holds an error, stops them.
"""

import argparse
import base64
import copy
import html
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from matplotlib.mathtext import math_to_image
from nbconvert.exporters import HTMLExporter, SlidesExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PAGES = ("history", "ethics")  # beside the notebooks; the site shows them after the last one
OPENING = {  # tags of the cells whose outputs open the site, and what announces them
    "before": "A telephone call in noise:",
    "after": "The same call, cleaned by the network of this course:",
    "spectrograms": "The same as pictures, of two seconds: time runs to the right, pitch goes up, bright is loud.",
}

PICTURES = """{% block data_png scoped %}
<img src="data:image/png;base64,{{ output.data['image/png'] }}"
 alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}" />
{% endblock data_png %}"""

# Without the scripts that nbconvert would load from the network: require.js, MathJax and Mermaid.
PAGE = (
    """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
main { max-width: 72rem; margin: auto; padding: 0 1rem; }
nav { display: flex; justify-content: space-between; gap: 1rem; padding: 0.5rem 0; font: 1rem sans-serif; }
nav a { color: #00539f; }
img, audio { max-width: 100%; }
summary { cursor: pointer; font-family: sans-serif; color: #555; }
.contents ul { columns: 18rem; }
/* What is wider than a phone scrolls by itself; nothing is broken within a word. */
.highlight pre, .jp-RenderedText pre { overflow-x: auto; white-space: pre; word-break: normal; }
.jp-RenderedHTMLCommon table { display: block; overflow-x: auto; table-layout: auto; }
.jp-RenderedHTMLCommon :is(td, th) { overflow-wrap: normal; word-break: normal; }
@media print { .highlight pre, .jp-RenderedText pre { white-space: pre-wrap !important; overflow-wrap: anywhere; } }
</style>{% endblock %}
{% block body_header %}{{ super() }}{{ resources.navigation }}{% endblock %}
{% block input_group %}
{% if cell.metadata.input == "folded" %}<details><summary>Code</summary>{{ super() }}</details>
{% elif cell.metadata.input != "left out" %}{{ super() }}{% endif %}
{% endblock input_group %}
{% block body_footer %}{{ resources.navigation }}{{ super() }}{% endblock %}
"""
    + PICTURES
)
CONTENTS = "<!-- contents -->"  # where the list of a page's headings goes
SLIDES = "{% extends 'reveal/index.html.j2' %}" + PICTURES


def formula(tex):
    """A TeX formula as an HTML image, drawn by matplotlib, so that a page needs no script and no network."""
    image = io.BytesIO()
    depth = math_to_image(f"${tex.strip()}$", image, format="svg")  # points below the line of the text
    data = base64.b64encode(image.getvalue()).decode()
    alt, style = html.escape(tex.strip()), f"vertical-align: -{depth:.1f}pt"
    return f'<img class="formula" alt="{alt}" style="{style}" src="data:image/svg+xml;base64,{data}">'


class Renderer(IPythonRenderer):
    """Markdown to HTML, with formulas as images."""

    def inline_math(self, body):
        return formula(body)

    def block_math(self, body):
        return f"<p>{formula(body)}</p>"


def markdown_to_html(source):
    """Markdown of a cell to HTML that loads nothing from the network."""
    renderer = Renderer(escape=False, anchor_link_text="", embed_images=True, path=str(ROOT))
    return MarkdownWithMath(renderer=renderer).render(source)


def read_notebooks():
    """Return the course as a dict from names such as "01_loading" to notebooks, in order."""
    return {path.stem: nbformat.read(path, as_version=4) for path in sorted(FOLDER.glob("[0-9]*.ipynb"))}


def require_outputs(name, notebook):
    """Raise ValueError if a notebook has a cell that was not executed, or one that failed."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if cell.execution_count is None:
                raise ValueError(f"{name}.ipynb was not executed: run jupyter execute --inplace notebooks/{name}.ipynb")
            if any(output.output_type == "error" for output in cell.outputs):
                raise ValueError(f"{name}.ipynb holds an error: repair this cell and run it again\n{cell.source}")


def without_answers(notebook):
    """Leave out the cells with folded answers and rubrics, in place."""
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("<details>")]
    return notebook


def title(notebook):
    """The first heading of a notebook."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def link(notebook, ending, readme, pages, images="images"):
    """Rewrite links in place.

    Those to notebooks lead to files that end in `ending`, those to the README to `readme`, those to pages beside the
    notebooks to `pages`, in which {} is the page's name, those to pictures into the folder `images`, by default that of
    ROOT, where the exporters find and embed them.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            linked = re.sub(r"\]\((\w+)\.ipynb\)", rf"](\1{ending})", cell.source)
            linked = re.sub(r"\]\((\w+)\.md\)", lambda found: f"]({pages.format(found[1])})", linked)
            cell.source = linked.replace("](../README.md)", f"]({readme})").replace("](../images/", f"]({images}/")


def relative(path, folder):
    """A path in the repository as a relative link from a folder."""
    try:
        return Path(os.path.relpath(ROOT / path, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return (ROOT / path).as_uri()


def make_class(folder):
    """Write the notebooks without answers and outputs. They run in any folder below the one that holds helpers.py."""
    notebooks = read_notebooks()
    for name in notebooks:
        if (folder / f"{name}.ipynb").exists():  # the course itself, or what somebody has worked in
            raise ValueError(f"{folder} holds {name}.ipynb already: name another folder, or move that away")
    for name, notebook in notebooks.items():
        for cell in without_answers(notebook).cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        pages = relative("notebooks/{}.md", folder)
        link(notebook, ".ipynb", relative("README.md", folder), pages, relative("images", folder))
        nbformat.write(notebook, folder / f"{name}.ipynb")


PART = r"\n(?=#{2,3} |\| \| \||\*\*Objectives)"  # where prose is divided: at headings, and behind a notebook's title


def as_slides(notebook):
    """Say in the metadata where slides begin, in place: at headings, and below them at each piece of prose."""
    start = next(i for i, cell in enumerate(notebook.cells) if cell.source.endswith("start_notebook()"))
    following = notebook.cells[start + 1 :]
    # The prose about the first cell, that cell and further imports are nothing for an audience.
    shown = notebook.cells[: start - 1] + following[following[0].cell_type == "code" :]
    notebook.cells = []
    for cell in shown:
        parts = [cell]
        if cell.cell_type == "markdown":
            parts = [nbformat.v4.new_markdown_cell(text) for text in re.split(PART, cell.source)]
        for part in parts:
            kind = "-" if part.cell_type == "code" else "slide" if re.match("##? ", part.source) else "subslide"
            part.metadata["slideshow"] = {"slide_type": kind}
        notebook.cells += parts


def make_slides(folder, reveal):
    """Write a presentation of each notebook: `NN_name.slides.html`. Its text, pictures and sounds are in the file."""
    exporter = SlidesExporter(raw_template=SLIDES, reveal_url_prefix=reveal, reveal_scroll=True, embed_images=True)
    for name, notebook in read_notebooks().items():
        require_outputs(name, notebook)
        as_slides(without_answers(notebook))
        link(notebook, ".slides.html", relative("README.md", folder), relative("notebooks/{}.md", folder))
        page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name, "path": str(ROOT)}})
        (folder / f"{name}.slides.html").write_text(page, encoding="utf-8")


def navigation(name, titles):
    """Links to the page before, to the index and to the page after."""
    names = [None, *titles, None]
    position = names.index(name)
    before, after = names[position - 1], names[position + 1]
    links = [
        f'<a rel="prev" href="{before}.html">← {html.escape(titles[before])}</a>' if before else "<span></span>",
        '<a href="index.html">Course</a>',
        f'<a rel="next" href="{after}.html">{html.escape(titles[after])} →</a>' if after else "<span></span>",
    ]
    return f"<nav>{''.join(links)}</nav>"


def read_page(name):
    """A page beside the notebooks, such as README.md, as a notebook of one cell."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell((FOLDER / name).read_text("utf-8"))])


def make_index(notebooks):
    """The README beside the notebooks, with what the tags in OPENING find behind its first paragraph, as a notebook."""
    index = read_page("README.md")
    heading, paragraph, rest = index.cells[0].source.split("\n\n", 2)
    index.cells = [nbformat.v4.new_markdown_cell(f"{heading}\n\n{paragraph}")]
    for tag, announcement in OPENING.items():
        for cell in (cell for notebook in notebooks for cell in notebook.cells if tag in cell.metadata.get("tags", [])):
            shown = copy.deepcopy(cell)
            shown.metadata["input"] = "left out"
            index.cells += [nbformat.v4.new_markdown_cell(announcement), shown]
    index.cells.append(nbformat.v4.new_markdown_cell(f"{CONTENTS}\n\n{rest}"))
    return index


def fold_plotting(notebook):
    """Say in the metadata, in place, which code is folded: imports, and what draws a figure."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and re.search(r"\A(import|from) |^ *show\(", cell.source, re.MULTILINE):
            cell.metadata.setdefault("input", "folded")


def contents(page):
    """A list of links to the headings of second order of a page in HTML."""
    headings = re.findall(r'<h2 id="(.+?)">(.*?)</h2>', page)
    links = "".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in headings)
    return f'<details class="contents" open><summary>On this page</summary><ul>{links}</ul></details>' if links else ""


def make_site(folder):
    """Write a page for each notebook and each of PAGES, and `index.html` from the README beside the notebooks."""
    notebooks = read_notebooks()
    pages = {"index": make_index(notebooks.values()), **notebooks, **{name: read_page(f"{name}.md") for name in PAGES}}
    titles = {name: title(notebook) for name, notebook in pages.items()}
    exporter = HTMLExporter(
        raw_template=PAGE,
        filters={"markdown2html": markdown_to_html},
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    for name, notebook in pages.items():
        require_outputs(name, notebook)
        fold_plotting(notebook)
        if name in notebooks:
            notebook.cells[0].source += f"\n\n{CONTENTS}"
        link(notebook, ".html", "index.html", "{}.html")
        notebook.metadata["title"] = titles[name]
        resources = {"metadata": {"name": name}, "navigation": navigation(name, titles)}
        page, _ = exporter.from_notebook_node(notebook, resources)
        page = re.sub(r'<a class="anchor-link"[^>]*></a>', "", page)  # without a text, a reader can't see it
        page = page.replace(CONTENTS, contents(page))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


def main(arguments=None):
    """Run the command line; returns the exit status: 0, or 2 if something can't be made."""
    parser = argparse.ArgumentParser(prog="python notebooks/publish.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("class", help="notebooks without answers and outputs, for a class to fill in")
    command.add_argument("folder", type=Path, help="to write to; inside of the repository, they find helpers.py")
    command.set_defaults(make=make_class)
    command = commands.add_parser("slides", help="a presentation of each notebook")
    command.add_argument("folder", type=Path, help="to write to")
    command.add_argument(
        "--reveal",
        default="https://unpkg.com/reveal.js@4.0.2",
        help="where reveal.js is, such as a folder with a copy (default: %(default)s); require.js, jQuery and MathJax"
        " always come from the network",
    )
    command.set_defaults(make=make_slides)
    command = commands.add_parser("site", help="the course as web pages")
    command.add_argument("folder", type=Path, help="to write to")
    command.set_defaults(make=make_site)
    options = vars(parser.parse_args(arguments))
    make = options.pop("make")
    options.pop("command")
    try:
        options["folder"].mkdir(parents=True, exist_ok=True)
        make(**options)
    except (OSError, ValueError) as error:
        print("error:", error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
