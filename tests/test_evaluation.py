"""Tests of measures and evaluation."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import SAMPLE, decibel, noise, tone, write
from hypothesis import given
from hypothesis import strategies as st

import helpers
from data import make_results
from data.make_baseline import denoise_original


@given(st.floats(-60, 60), st.floats(1e-4, 1e4), st.booleans())
def test_si_sdr_of_orthogonal_noise(ratio_db, gain, negative):
    clean, other = tone(1000, level=1), tone(2000, level=1)
    estimate = clean + 10 ** (-ratio_db / 20) * other
    gain = -gain if negative else gain
    assert helpers.si_sdr(clean, gain * estimate) == pytest.approx(ratio_db, abs=0.01)
    assert helpers.si_sdr(gain * clean, estimate) == pytest.approx(ratio_db, abs=0.01)


def test_si_sdr_at_its_limits():
    signal, silence = noise(8000), np.zeros(8000)
    assert helpers.si_sdr(signal, signal) == np.inf
    assert np.isnan(helpers.si_sdr(signal, silence)) and np.isnan(helpers.si_sdr(silence, signal))
    assert helpers.si_sdr(tone(1000), tone(2000)) < -60


@pytest.mark.parametrize("n_samples", [1, 100, 1000, 8000])
@pytest.mark.parametrize("silent", ["clean", "estimate", "both", "none"])
def test_measure_never_fails(n_samples, silent):
    clean, estimate = noise(n_samples), noise(n_samples, seed=1)
    if silent in ("clean", "both"):
        clean = np.zeros_like(clean)
    if silent in ("estimate", "both"):
        estimate = np.zeros_like(estimate)
    scores = helpers.measure(clean, estimate)
    assert list(scores) == ["pesq", "stoi", "estoi", "si_sdr"]
    assert np.isnan(scores["si_sdr"]) == (silent != "none" or n_samples == 1)
    if n_samples <= 1000:
        assert np.isnan(scores["stoi"]) and np.isnan(scores["estoi"])


def test_stoi_of_silence():
    scores = helpers.measure(np.zeros(8000, np.float32), noise(8000))
    assert np.isnan(scores["stoi"]) and np.isnan(scores["estoi"])


def test_measure_of_noisy_speech(speech):
    noisy = [helpers.measure(speech, helpers.blend(speech, noise(len(speech)), snr)[1]) for snr in (0, 15)]
    for name in ("stoi", "estoi", "si_sdr"):
        assert noisy[0][name] < noisy[1][name]
    for scores in noisy:
        assert 0 < scores["estoi"] < scores["stoi"] < 1
        assert np.isnan(scores["pesq"]) or 1 <= scores["pesq"] <= 4.6


def test_measure_of_clean_speech(speech):
    scores = helpers.measure(speech, speech)
    assert min(scores["stoi"], scores["estoi"]) > 0.99
    assert scores["si_sdr"] == np.inf


def test_original_recipe_is_an_identity_without_noise(speech):
    class RemovesNothing:
        def predict_on_batch(self, decibels):
            return np.full_like(decibels, -6 / 82)  # 0 dB

    assert denoise_original(speech, RemovesNothing()) == pytest.approx(speech, abs=1e-6)


def test_results_hold_each_condition_and_each_system(speech):
    pairs = [("a", speech, helpers.blend(speech, noise(len(speech)), 5)[1])]
    scores = make_results.score(pairs, {"U-Net": helpers.denoise, "none": np.copy}).assign(nominal_snr_db=5)
    assert len(scores) == 3 + 2 * (len(make_results.CONDITIONS) - 1)
    si_sdr = scores[scores["signal"] == "U-Net"].set_index("condition")["si_sdr"]
    assert si_sdr["clean"] > si_sdr["as it is"] > 5
    assert si_sdr["20 dB quieter"] == pytest.approx(si_sdr["as it is"], abs=0.01)
    measured = ["pesq", "stoi", "estoi", "sisdr", "pesq_5dB", "sisdr_5dB", "rtf"]
    peers = pd.DataFrame([["peer", *[0.5] * len(measured), "there"]], columns=["peer", *measured, "source"])
    table = make_results.compare(scores, pairs, {"U-Net": ("ours", helpers.denoise, "here")}, peers).set_index("system")
    assert list(table.index) == ["ours", "peer"] and list(table["source"]) == ["here", "there"]
    assert table.loc["ours", "si_sdr_5dB"] == pytest.approx(si_sdr["as it is"]) and table.loc["ours", "rtf"] > 0


def test_training_counts_the_models_that_it_went_on_from(tmp_path):
    first = {"hours_of_audio_in_all": 2, "minutes_of_training": 30, "start": None}
    second = {"hours_of_audio_in_all": 5.5, "minutes_of_training": 40.2, "start": first}
    (tmp_path / "unet.json").write_text(json.dumps(second))
    assert make_results.training(tmp_path / "unet.keras") == "trained on 5.5 h of blends in 70 minutes"


def test_held_out_blends_are_held_out():
    clips = helpers.list_noise(SAMPLE)
    for name, clean, noisy in helpers.held_out_blends(SAMPLE, n=4):
        _, utterance, category, snr_db, _ = name.split()
        assert int(utterance.split("-")[0]) % 10 == 0
        assert "test" in set(clips[clips["category"] == category]["split"])
        assert decibel(clean, noisy - clean) == pytest.approx(float(snr_db), abs=0.01)


def test_evaluate(speech):
    noisy = helpers.blend(speech, noise(len(speech)), 5)[1]
    table = helpers.evaluate([("a", speech, noisy)], {"enhanced": lambda signal: signal / 2})
    assert list(table) == ["name", "snr_db", "signal", "pesq", "stoi", "estoi", "si_sdr"]
    assert list(table["signal"]) == ["noisy", "enhanced"]
    assert table["snr_db"].to_list() == [5, 5]
    assert table["si_sdr"][0] == pytest.approx(table["si_sdr"][1], abs=0.01)


def test_evaluate_of_clean_speech(speech):
    assert helpers.evaluate([("a", speech, speech)], {"same": np.copy})["snr_db"].to_list() == [np.inf, np.inf]


def test_paired_files(tmp_path):
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    with pytest.raises(FileNotFoundError, match="noisy"):
        list(helpers.paired_files(clean, noisy))
    write(noisy / "a.wav")
    with pytest.raises(FileNotFoundError, match=r"clean/a\.wav"):
        list(helpers.paired_files(clean, noisy))
    write(clean / "a.wav", noise(100))
    with pytest.raises(ValueError, match=r"a\.wav.*16000"):
        list(helpers.paired_files(clean, noisy))
    write(clean / "a.wav")
    [(name, first, second)] = helpers.paired_files(clean, noisy)
    assert name == "a.wav" and np.array_equal(first, second)
