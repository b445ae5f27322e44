"""What the committed notebooks must look like, and that the answers to their exercises are right.

That the notebooks run as they are is tested by nbmake, but for the slow ones: see pyproject.toml.
"""

import ast
import inspect
import itertools
import re
import shutil

import answers
import nbclient
import nbformat
import papermill
import pytest

import helpers

NOTEBOOKS = sorted((helpers.ROOT / "notebooks").glob("*.ipynb"))

# Values for the cells tagged `parameters`: not those of the notebooks, and small where time depends on them.
OTHER_PARAMETERS = {
    "01_loading": {"SPAN": 2.0, "CATEGORY": "engine"},
    "02_visualisation": {"SPAN": 1.5, "CATEGORIES": ["engine", "train"], "SEED": 1, "LIVE": True},
    "03_blending": {"SPAN": 1.5, "CATEGORY": "rain", "N_FILES": 10, "SEED": 1, "LIVE": True},
    "04_spectrograms": {"SNR_DB": 0, "SEED": 2},
    "05_unet_training": {"OVERFIT_STEPS": 2, "EPOCHS": 1, "STEPS_PER_EPOCH": 1},
    "06_evaluation": {"N_BLENDS": 6, "SEED": 1},
    "07_denoising_calls": {"SNR_DB": 0},
    "08_scaling_out": {"N_CALLS": 6, "CALL_SECONDS": 20},
    "09_live": {"N_BLENDS": 2, "SEED": 1, "LIVE": True},
    "10_judges": {"SEED": 1, "LIVE": True},
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    """The text of all markdown cells, without the code in folded answers."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def section(notebook, heading):
    """The text from a heading to the next one of its level."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", prose(notebook), re.DOTALL | re.MULTILINE)[1]


def bullets(text):
    return re.findall("^- ", text, re.MULTILINE)


def exercises(notebook):
    """The places of the empty cells in which answers go."""
    return [i for i, cell in enumerate(notebook.cells) if cell.source.startswith("answer = None")]


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def shows_nan(notebook):
    """Whether a table or a line lacks a number: PESQ, say, where its package is not installed."""
    cells = [cell for cell in code_cells(notebook) if "getsource" not in cell.source]
    tables = [output.data.get("text/plain", "") for cell in cells for output in cell.outputs if "data" in output]
    return bool(re.search(r"\bnan\b", "\n".join([*tables, *map(printed, cells)]), re.IGNORECASE))


def test_numbered_in_order():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i + 1:02d}" for i in range(len(NOTEBOOKS))]


def test_size():
    assert all(path.stat().st_size < 1_000_000 for path in NOTEBOOKS)


def test_executed_in_order_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output
        assert "widget" not in " ".join(output.get("data", {}))  # a reader on a code host would see nothing
    assert not shows_nan(notebook)


def test_no_absolute_paths(notebook):
    assert not re.search(r"/(home|root|tmp|work|Users)/", nbformat.writes(notebook))


def test_cells_are_short_and_explained(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 25
    lines = [line.strip() for cell in code_cells(notebook) for line in cell.source.splitlines()]
    n_lines = sum(bool(line) and not line.startswith("#") for line in lines)
    n_words = len(prose(notebook).split())
    assert 900 <= n_words <= 2000 and n_words >= 8 * n_lines


def test_opening(notebook):
    first = notebook.cells[0].source
    for row in ("Minutes on a laptop", "You should know", "Reads", "Writes", "Previous", "Next"):
        assert f"| {row} |" in first
    assert 3 <= len(bullets(first.partition("**Objectives**")[2])) <= 5
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code_cells(notebook)) == 1
    assert code_cells(notebook)[0].source.endswith("start_notebook()")
    assert "OK: " in printed(code_cells(notebook)[0])


def test_a_notebook_alone_says_what_it_lacks(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(AssertionError, match="download the whole course"):
        exec(code_cells(notebook)[0].source)


def test_ending(notebook):
    assert 3 <= len(bullets(section(notebook, "Recap"))) <= 6
    assert len(bullets(section(notebook, "Where to go on"))) >= 2


def test_exercises_have_a_cell_a_check_and_a_folded_answer(notebook):
    chapter, names = notebook.cells[0].source[2:4], []
    for i in exercises(notebook):
        task, _, check, answer = notebook.cells[i - 1 : i + 3]
        name = re.fullmatch(r'check\("(.+)", answer\)', check.source)[1]
        assert f"**{name.removeprefix(chapter + '.')}.**" in task.source
        assert printed(check).startswith("No answer yet")
        assert answer.source.startswith("<details><summary>Answer</summary>") and "answer = " in answer.source
        names.append(name)
    assert names[:2] == [f"{chapter}.1", f"{chapter}.2"]  # one of recall and one of code, and then perhaps a capstone
    assert names[0] in answers.NUMBERS and set(names[1:]) <= set(answers.TESTS)


def test_one_question_is_open_and_has_a_rubric(notebook):
    (i,) = (i for i, cell in enumerate(notebook.cells) if cell.source.startswith("<details><summary>Rubric</summary>"))
    question, words = notebook.cells[i - 2 : i]
    assert question.source.startswith("**3.**") and words.source == "*Your words here.*"


def test_every_exercise_is_in_one_notebook():
    text = "".join(path.read_text("utf-8") for path in NOTEBOOKS)
    assert sorted(re.findall(r'check\(\\"(.+?)\\", answer\)', text)) == sorted(answers.NUMBERS | answers.TESTS)


def test_figures_have_captions_as_alternative_text(notebook):
    for cell in code_cells(notebook):
        for output, following in itertools.pairwise([*cell.outputs, None]):
            if "image/png" in output.get("data", {}):
                alt = output.metadata["image/png"]["alt"]
                assert following.data["text/markdown"] == f"*{alt}*"


def test_players_are_announced(notebook):
    text = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source
        elif any("<audio" in output.get("data", {}).get("text/html", "") for output in cell.outputs):
            assert "you should hear" in " ".join(text.lower().split()), cell.source


DOCUMENTS = [*NOTEBOOKS, *helpers.ROOT.glob("*.md"), *helpers.ROOT.glob("notebooks/*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_repository_resolve(path):
    text = prose(nbformat.read(path, as_version=4)) if path.suffix == ".ipynb" else path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target


def definitions(source):
    """The functions, classes and constants that Python source defines at its top level, from names to text."""
    found, lines = {}, source.splitlines()
    for node in ast.parse(source).body:
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = text
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = text.partition("  #")[0]
    return found


MODULE = definitions(inspect.getsource(helpers))


def test_what_a_notebook_shows_of_the_module_is_what_the_module_holds(notebook):
    for cell in code_cells(notebook):
        for name, text in definitions(cell.source).items():
            assert MODULE.get(name, text) == text
        for name in re.findall(r"inspect\.getsource\((?:helpers\.)?(\w+)\)", cell.source):
            assert MODULE[name] in printed(cell)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the course: a run with other values must not change the figures of the README."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(helpers.ROOT / "requirements.txt", folder)
    module = (helpers.ROOT / "helpers.py").read_text()
    size = "widths=(32, 48, 80, 128), n_blocks=(0, 1, 3, 6), n_dual=2"
    smaller = "widths=(8, 12, 16, 24), n_blocks=(0, 0, 1, 1), n_dual=0"  # a GRU takes TensorFlow long to compile
    assert module.count(size) == 1
    (folder / "helpers.py").write_text(module.replace(size, smaller))
    for name in ("notebooks", "images"):
        shutil.copytree(helpers.ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    (folder / "data").symlink_to(helpers.ROOT / "data")
    return folder


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_answers_are_right_also_with_other_parameters(name, course, monkeypatch):
    # Else nbclient acts as an Output widget, and sends by the socket at which it waits for a cell's end: at times it
    # misses that, and waits for ever.
    monkeypatch.setattr(nbclient.NotebookClient, "on_comm_open_jupyter_widget", lambda *_: None)
    notebook = nbformat.read(course / "notebooks" / f"{name}.ipynb", as_version=4)
    for i in exercises(notebook):
        notebook.cells[i].source = re.search(r"```python\n(.*?)```", notebook.cells[i + 2].source, re.DOTALL)[1]
    nbformat.write(notebook, course / f"{name}.ipynb")
    parameters = OTHER_PARAMETERS.get(name, {})
    run = papermill.execute_notebook(
        course / f"{name}.ipynb",
        None,
        parameters,
        cwd=course / "notebooks",
        progress_bar=False,
        execution_timeout=900,  # s for one cell: a kernel that hangs fails this test, and not all of them
    )
    checks = [cell for cell in code_cells(run) if cell.source.endswith(", answer)")]
    assert [printed(cell) for cell in checks] == ["Right.\n"] * len(checks) and checks
    views = [output for cell in code_cells(run) for output in cell.outputs if "widget-view" in str(output.get("data"))]
    assert not shows_nan(run)
    assert len(views) == parameters.get("LIVE", False)  # with LIVE there is one slider, microphone or vote
