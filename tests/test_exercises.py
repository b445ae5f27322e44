"""Tests of the first cell and exercises."""

import itertools
import re

import answers
import librosa
import matplotlib
import numpy as np
import pytest
import soundfile as sf
from test_formats import encode

import helpers


def said(capsys, exercise, answer):
    helpers.check(exercise, answer)
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    return text


def test_check_says_in_one_line_whether_an_answer_is_right(capsys):
    assert said(capsys, "05.1", None).startswith("No answer yet")
    for right in (1536, 1536.0, np.float32(1536), np.array(1536)):
        assert said(capsys, "05.1", right) == "Right.\n"
    for wrong in (1535, 1537, -1536, np.nan, np.inf):
        assert said(capsys, "05.1", wrong).startswith("Not yet: each of the 32 outputs")
    for kind in ("many", [1536], 1j, len):
        assert "a number is expected, not" in said(capsys, "05.1", kind)


def test_a_wrong_number_gets_the_same_hint_however_far_off_it_is(capsys):
    for exercise in answers.NUMBERS:
        assert len({said(capsys, exercise, number) for number in (-3, 0.123456, 1e6)}) == 1


def test_numbers_are_told_apart_at_their_last_decimal(capsys):
    assert [said(capsys, "07.1", mix)[:5] for mix in (0.74, 0.7488, 0.75, 0.76)] == ["Not y", "Right", "Right", "Not y"]


def words_at_their_place(reference, text):
    pairs = itertools.zip_longest(reference.split(), text.split())
    return sum(word != other for word, other in pairs)


def waits_for_the_end(chunks, size):
    whole = np.concatenate([[], *chunks])
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def blended_in_place(speech, noise, snr_db, _):
    speech += helpers.blend(speech, noise, snr_db)[0]
    return speech


def finished_by_taking_from_the_list(seconds, n_workers):
    free = np.zeros(n_workers)
    while seconds:
        free[free.argmin()] += seconds.pop(0)
    return free.max()


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("01.2", 3, "it stopped with TypeError"),
        ("01.2", lambda signal: signal[::2], "still comes through"),
        (
            "01.2",
            lambda signal: helpers.resample(signal, 16000, 8000) / 2,
            "as loud and in its place",
        ),
        ("02.2", lambda spectrogram, n: librosa.istft(spectrogram, hop_length=63, length=n), "early by half a sample"),
        ("03.2", lambda speech, noise, snr_db, _: helpers.blend(speech, noise, snr_db)[1], "with a long pause"),
        ("03.2", lambda speech, noise, snr_db, _: speech + 10 ** (-snr_db / 20) * noise, "should equal `blend`"),
        ("03.2", lambda speech, noise, snr_db, _: helpers.blend(speech, noise, 5)[1], "should equal `blend`"),
        ("03.2", blended_in_place, "should stay as it is"),
        ("04.2", lambda speech, noise: speech / (speech + noise + 1e-30) > 0.5, "another gain leaves less"),
        ("04.2", lambda speech, noise: np.sqrt(speech / (speech + noise + 1e-30)), "multiplies the amplitude"),
        ("05.2", lambda true, guess: np.mean(np.abs(true - guess) ** 2, axis=(-2, -1)), "a turned arrow costs nothing"),
        ("06.2", helpers.si_sdr, "not infinity"),
        ("07.2", lambda signal: np.clip(signal, -1, 1), "the gain jumps"),
        ("07.2", lambda signal: signal / max(1, np.abs(signal).max()), "nothing should change"),
        ("08.2", lambda seconds, n_workers: sum(seconds) / n_workers, "the longest decides"),
        ("08.2", lambda seconds, n: max(sum(seconds[i::n]) for i in range(n)), "nobody waits for a turn"),
        ("08.2", finished_by_taking_from_the_list, "should stay as it is"),
        ("08.4", ("nothing.wav", "nowhere.wav"), "two files that exist"),
        ("08.4", "nothing.wav", "two paths are expected"),
        ("09.2", lambda chunks, size: (chunk[:size] for chunk in chunks), "160 samples in each"),
        ("09.2", lambda chunks, size: np.array_split(np.concatenate([[], *chunks]), [size]), "160 samples in each"),
        ("09.2", waits_for_the_end, "it waits"),
        ("10.2", lambda reference, text: abs(len(reference.split()) - len(text.split())), "one word for another"),
        ("10.2", words_at_their_place, "a missing word is one error"),
    ],
)
def test_a_wrong_function_gets_a_hint(exercise, answer, hint, capsys):
    with np.errstate(divide="ignore"):
        assert hint in said(capsys, exercise, answer)


def test_a_call_that_was_not_cleaned_gets_a_hint(tmp_path, capsys):
    rng = np.random.default_rng(0)
    noisy = 0.1 * rng.standard_normal(80000) * np.repeat([1, 0.1], 40000)
    for name, signal in {
        "noisy": noisy,
        "same": noisy,
        "short": noisy[:-1],
        "cleaned": noisy * np.repeat([1, 0.1], 40000),
    }.items():
        sf.write(tmp_path / f"{name}.wav", signal, 8000)
    for name, verdict in {
        "same": "hardly falls",
        "short": "should be the same",
        "noisy": "same file",
        "cleaned": "Right.",
    }.items():
        assert verdict in said(capsys, "08.4", (tmp_path / "noisy.wav", tmp_path / f"{name}.wav"))


def test_a_call_that_a_phone_recorded_can_be_judged(tmp_path, capsys):
    source = encode(tmp_path / "call.m4a", "aac", 0.1 * np.random.default_rng(0).standard_normal(80000))
    signal, rate = helpers.read_audio(source)
    sf.write(tmp_path / "call.wav", signal.T, rate)
    assert "hardly falls" in said(capsys, "08.4", (source, tmp_path / "call.wav"))


def test_the_first_cell_says_how_to_get_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(helpers, "installed_versions", lambda: (["numpy 2"], ["keras is missing", "av 1 is too old"]))
    with matplotlib.rc_context():
        helpers.start_notebook()
    keras, av, advice = capsys.readouterr().out.splitlines()[:3]
    assert (keras, av) == ("keras is missing", "av 1 is too old")
    assert f'"{helpers.ROOT / "requirements.txt"}" in a cell of its own, then restart the kernel' in advice


def test_versions_of_python_that_are_not_tested_are_told(monkeypatch, capsys):
    monkeypatch.setattr("sys.version_info", (3, 14, 0))
    monkeypatch.setattr(helpers, "installed_versions", lambda: (["numpy 2"], []))
    with matplotlib.rc_context():
        helpers.start_notebook()
    assert "take one from 3.11 to 3.13" in capsys.readouterr().out.splitlines()[0]


def test_versions_are_read_from_the_requirements(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    with matplotlib.rc_context():
        helpers.start_notebook()
    assert shown[0].data.startswith("<details>") and "numpy" in shown[0].data
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# comment\nnumpy>=1  # fine\nscipy>=9999\nlibrosa<0.1\nno-such-package>=1\n")
    versions, problems = helpers.installed_versions(requirements)
    assert [text.split()[0] for text in versions] == ["numpy", "scipy", "librosa"]
    expected = "scipy .* is too old", "librosa .* is newer than", "no-such-package is missing"
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.match(pattern, problem)


def halved_above(hz):
    """A function for exercise 01.2 that removes what lies from `hz` on."""

    def halve_rate(signal):
        kept = np.fft.rfftfreq(len(signal), 1 / 16000) < hz
        return np.fft.irfft(kept * np.fft.rfft(signal), len(signal))[::2]

    return halve_rate


def noise_power_in_the_words(speech, noise, snr_db, talking):
    powers = [np.mean(signal[talking] ** 2) for signal in (speech, noise)]
    return speech + np.sqrt(powers[0] / powers[1] / 10 ** (snr_db / 10)) * noise


def stays_where_nothing_is(speech_power, noise_power):
    power = speech_power + noise_power
    return np.divide(speech_power, power, out=np.ones_like(power), where=power > 0)


def ratios_db(clean, estimate):
    for start in range(0, len(clean), 256):
        piece, error = (signal[start : start + 256] for signal in (clean, clean - estimate))
        if piece.any():
            yield 10 * np.log10(np.sum(piece**2) / np.maximum(np.sum(error**2), 1e-12))


def clips_the_mean(clean, estimate):
    n = len(clean) // 256 * 256
    return np.clip(np.mean(list(ratios_db(clean[:n], estimate[:n]))), -10, 35)


def counts_the_remainder(clean, estimate):
    return np.mean(np.clip(list(ratios_db(clean, estimate)), -10, 35))


def waits_for_one_more(chunks, size):
    waiting = np.empty(0, np.float32)
    for chunk in chunks:
        waiting = np.concatenate([waiting, chunk])
        while len(waiting) > size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


@pytest.mark.parametrize(
    ("exercise", "answer", "verdict"),
    [
        ("01.2", halved_above(3800), "Right"),
        ("01.2", halved_above(5000), "a tone of 4300 Hz still comes through"),
        ("01.2", halved_above(4800), "a tone of 4300 Hz still comes through"),
        ("01.2", halved_above(2000), "a tone of 3000 Hz should come out"),
        ("01.2", halved_above(3500), "a tone of 3600 Hz should come out"),
        ("03.2", noise_power_in_the_words, "louder in the pause"),
        ("04.2", stays_where_nothing_is, "give 0"),
        ("06.2", clips_the_mean, "of each piece"),
        ("06.2", counts_the_remainder, "a remainder below 256 samples"),
        ("09.2", waits_for_one_more, "it waits"),
    ],
)
def test_nearly_right_is_told_from_right(exercise, answer, verdict):
    assert verdict in answers.verdict(exercise, answer)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.5, 0.5), "turns the volume down"),
        ((0.9, 0.5), "Right"),
        ((1, 0), "Right"),  # of the pauses, silence is left
        ((0.1, 0.01), "all but gone"),
    ],
)
def test_a_call_that_was_only_turned_down_was_not_cleaned(gains, verdict, tmp_path):
    level = np.repeat([[0.3, 0.01], gains], 40000, axis=1)  # of words and of a pause
    noisy = level[0] * np.random.default_rng(0).uniform(-1, 1, 80000)
    paths = tmp_path / "noisy.wav", tmp_path / "cleaned.wav"
    for path, signal in zip(paths, (noisy, level[1] * noisy), strict=True):
        sf.write(path, signal, 8000)
    assert verdict in answers.verdict("08.4", paths)
