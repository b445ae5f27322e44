"""The class's notebooks, the slides and the website that `notebooks/publish.py` makes."""

import html.parser
import re
import shutil

import nbformat
import publish
import pytest

NAMES = list(publish.read_notebooks())


class Tags(html.parser.HTMLParser):
    """All tags of a page, as (name, attributes)."""

    def __init__(self, path):
        super().__init__()
        self.found = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def n_players(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("<audio" in output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert publish.main(["site", str(folder)]) == 0
    return folder


def test_class_has_neither_answers_nor_outputs(tmp_path):
    assert publish.main(["class", str(tmp_path)]) == 0
    assert sorted(path.stem for path in tmp_path.iterdir()) == NAMES
    for name, original in publish.read_notebooks().items():
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells)
        assert "<details>" not in text and "answer = None" in text and ", answer)" in text
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
        originals = [cell.source for cell in original.cells if cell.cell_type == "code"]
        assert [cell.source for cell in notebook.cells if cell.cell_type == "code"] == originals
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (tmp_path / target).exists(), target


def test_class_replaces_nothing(tmp_path, capsys):
    assert publish.main(["class", str(publish.FOLDER)]) == 2
    assert "01_loading.ipynb already" in capsys.readouterr().err
    assert publish.main(["class", str(tmp_path)]) == 0
    (tmp_path / "01_loading.ipynb").write_text("what somebody worked in")
    assert publish.main(["class", str(tmp_path)]) == 2
    assert (tmp_path / "01_loading.ipynb").read_text() == "what somebody worked in"


def test_slides_have_all_figures_and_players_and_no_answers(tmp_path):
    assert publish.main(["slides", str(tmp_path), "--reveal", "reveal.js"]) == 0
    for name, notebook in publish.read_notebooks().items():
        page = tmp_path / f"{name}.slides.html"
        tags = Tags(page)
        assert len(tags.all("audio")) == n_players(notebook)
        assert len(tags.all("section")) > 20
        first = re.search(r"<section>\s*<section>(.*?)</section>", page.read_text("utf-8"), re.DOTALL)[1]
        assert publish.title(notebook) in first and "<table" not in first and "Objectives" not in first
        assert "<details>" not in page.read_text("utf-8") and '"reveal.js/dist/reveal.js"' in page.read_text("utf-8")
        assert all(image["alt"] for image in tags.all("img"))
        for target in (link["href"] for link in tags.all("a")):
            assert ":" in target or (tmp_path / target.partition("#")[0]).exists(), target


def test_site_has_every_page_linked_and_loads_nothing_from_the_network(site):
    assert sorted(path.stem for path in site.iterdir()) == sorted([*NAMES, *publish.PAGES, "index"])
    for name, notebook in publish.read_notebooks().items():
        tags = Tags(site / f"{name}.html")
        assert len(tags.all("audio")) == n_players(notebook)
        assert {link["rel"] for link in tags.all("a") if "rel" in link} >= {"prev"}
    for path in site.iterdir():
        tags = Tags(path)
        assert not tags.all("link") and not any("src" in script for script in tags.all("script"))
        for image in tags.all("img"):
            assert image["alt"] and image["src"].startswith("data:image/")
        for link in tags.all("a"):
            target = link["href"].partition("#")[0]
            assert ":" in target or not target or (site / target).exists(), target


def test_site_opens_with_a_call_before_and_after(site):
    tags = Tags(site / "index.html").found
    shown = [tag for tag, _ in tags if tag in ("h1", "audio", "img", "h2")]
    assert shown[:5] == ["h1", "audio", "audio", "img", "h2"] and shown.count("audio") == 2


def test_pages_list_their_headings_and_fold_what_plots(site):
    for name, notebook in publish.read_notebooks().items():
        page = (site / f"{name}.html").read_text("utf-8")
        listed = re.findall(r'<li><a href="#(.+?)">', page)
        headings = re.findall(r"^## ", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
        assert len(listed) == len(headings) and all(page.count(f'id="{anchor}"') == 1 for anchor in listed)
        folded = re.findall(r"<details><summary>Code</summary>(.*?)</details>", page, re.DOTALL)
        assert page.count("subplots") == sum(text.count("subplots") for text in folded) and len(folded) > 1
        assert not any(word in text for text in folded for word in ("train_on_batch", "InferenceSession"))


def test_a_failed_cell_stops_slides_and_site(tmp_path, monkeypatch, capsys):
    error = nbformat.v4.new_output("error", ename="NameError", evalue="", traceback=[])
    cell = nbformat.v4.new_code_cell("oops", outputs=[error], execution_count=1)
    title = nbformat.v4.new_markdown_cell("# Broken")
    monkeypatch.setattr(publish, "read_notebooks", lambda: {"01_broken": nbformat.v4.new_notebook(cells=[title, cell])})
    for command in ("slides", "site"):
        assert publish.main([command, str(tmp_path)]) == 2
        assert "01_broken.ipynb holds an error" in capsys.readouterr().err
    cell.execution_count = None
    assert publish.main(["site", str(tmp_path)]) == 2
    assert "was not executed" in capsys.readouterr().err


def test_site_in_a_browser(site):
    """Click from the index through all pages: no message in the console, no missing image, every player with sound."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    durations = """
        const done = arguments[0], players = [...document.querySelectorAll("audio")];
        const loaded = players.map(player => player.readyState > 0 ? null :
            new Promise(resolve => { player.onloadedmetadata = player.onerror = resolve; player.load(); }));
        Promise.all(loaded).then(() => done(players.map(player => player.duration)));"""
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    try:
        browser.get((site / "index.html").as_uri())
        visited = []
        while True:
            visited.append(re.search(r"(\w+)\.html", browser.current_url)[1])
            assert browser.execute_script(broken) == 0
            assert all(duration > 0.1 for duration in browser.execute_async_script(durations))
            assert browser.get_log("browser") == []
            following = browser.find_elements("css selector", "a[rel=next]")
            if not following:
                break
            following[-1].click()
    finally:
        browser.quit()
    assert visited == ["index", *NAMES, *publish.PAGES]
