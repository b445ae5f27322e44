"""Tests of the first cell and exercises."""

import re

import matplotlib
import pytest

import helpers


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "verdict"),
    [
        (None, 3, 0, "No answer yet"),
        (3, 3.0, 0, "Right."),
        (3.2, 3, 0.5, "Right."),
        (5, 3, 0.5, "too high by 2"),
        (-1, 3, 0.5, "too low by 4"),
        (float("nan"), 3, 0, "NaN"),
        (float("inf"), 3, 0, "too high"),
        ("three", 3, 0, "not str"),
        ("a", "a", 0, "Right."),
        ("b", "a", 0, "not 'b'"),
        ([1, 2], [1, 2], 0, "Right."),
        ([1, 2, 4], [1, 2, 3], 0.5, "1 of 3 values are off, by up to 1"),
        ([1, 2], [1, 2, 3], 0, "shape is (2,), but (3,)"),
        ([1j], [1], 0, "1 of 1 values are off"),
        ([[1], [1, 2]], [1, 2], 0, "not list"),
    ],
)
def test_check_says_in_one_line_what_is_wrong(answer, expected, tolerance, verdict, capsys):
    helpers.check(answer, expected, tolerance)
    said = capsys.readouterr().out
    assert verdict in said and said.count("\n") == 1


def test_versions_are_read_from_the_requirements(tmp_path, capsys):
    with matplotlib.rc_context():
        helpers.start_notebook()
    assert "numpy" in capsys.readouterr().out
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# comment\nnumpy>=1  # fine\nscipy>=9999\nlibrosa<0.1\nno-such-package>=1\n")
    versions, problems = helpers.installed_versions(requirements)
    assert [text.split()[0] for text in versions] == ["numpy", "scipy", "librosa"]
    expected = "scipy .* is too old", "librosa .* is newer than", "no-such-package is missing"
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.match(pattern, problem)
