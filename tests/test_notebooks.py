"""What the committed notebooks must look like. That they run is tested by nbmake."""

import itertools
import re

import nbformat
import pytest

import helpers

NOTEBOOKS = sorted((helpers.ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_seven_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


def test_size():
    assert all(path.stat().st_size < 1_000_000 for path in NOTEBOOKS)


def test_executed_in_order_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output


def test_no_absolute_paths(notebook):
    assert not re.search(r"/(home|root|tmp|work|Users)/", nbformat.writes(notebook))


def test_cells_are_short(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 25


def test_course_structure(notebook):
    first, text = notebook.cells[0].source, "\n".join(cell.source for cell in notebook.cells)
    for row in ("Minutes on a laptop", "You should know", "Reads", "Writes", "Previous", "Next", "**Objectives**"):
        assert row in first
    for section in ("## Recap", "## Exercises", "## Where to go on"):
        assert section in text
    assert 2 <= text.count("<details><summary>Answer</summary>") <= 4
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code_cells(notebook)) == 1


def test_figures_have_captions_as_alternative_text(notebook):
    for cell in code_cells(notebook):
        for output, following in itertools.pairwise([*cell.outputs, None]):
            if "image/png" in output.get("data", {}):
                alt = output.metadata["image/png"]["alt"]
                assert following.data["text/markdown"] == f"*{alt}*"


def test_links_inside_the_repository_resolve(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (helpers.ROOT / "notebooks" / target).exists(), target
