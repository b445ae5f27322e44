"""Tests of measures and evaluation."""

import concurrent.futures
import functools
import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import soxr
from conftest import SAMPLE, decibel, noise, tone, write
from hypothesis import given
from hypothesis import strategies as st
from test_formats import encode

import helpers
from data import make_results, make_robustness, make_understanding
from data.make_baseline import denoise_original


@given(st.floats(-60, 60), st.floats(1e-4, 1e4), st.booleans())
def test_si_sdr_of_orthogonal_noise(ratio_db, gain, negative):
    clean, other = tone(1000, level=1), tone(2000, level=1)
    estimate = clean + 10 ** (-ratio_db / 20) * other
    gain = -gain if negative else gain
    assert helpers.si_sdr(clean, gain * estimate) == pytest.approx(ratio_db, abs=0.01)
    assert helpers.si_sdr(gain * clean, estimate) == pytest.approx(ratio_db, abs=0.01)
    assert helpers.si_sdr(clean + 0.3, estimate - 0.2) == pytest.approx(ratio_db, abs=0.01)


def test_si_sdr_at_its_limits():
    signal, silence = noise(8000), np.zeros(8000)
    assert helpers.si_sdr(signal, signal) == np.inf
    assert np.isnan(helpers.si_sdr(signal, silence)) and np.isnan(helpers.si_sdr(silence, signal))
    assert helpers.si_sdr(tone(1000), tone(2000)) < -60


def test_system_that_returns_another_length_is_named():
    pair = "a.wav", noise(8000), noise(8000, seed=1)
    with pytest.raises(ValueError, match=r"cutter, a.wav: .*one length, got \(8000,\) and \(7999,\)"):
        helpers.evaluate([pair], {"cutter": lambda noisy: noisy[1:]})


def test_evaluate_takes_whole_numbers():
    clean, noisy = noise(8000, seed=1), noise(8000, seed=1) + 0.5 * noise(8000, seed=2)
    whole = [(32768 * signal).astype(np.int16) for signal in (clean, noisy)]
    table = helpers.evaluate([("a", clean, noisy), ("b", *whole)], {"as it is": np.asarray})
    assert table["snr_db"].std() < 0.1


def test_measure_in_threads_leaves_the_filters_of_warnings_as_they_were():
    short, signal = noise(1200), noise(8000)
    filters = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(helpers.measure, [short, signal] * 10, [short, signal] * 10))
    assert [np.isnan(score["stoi"]) for score in scores] == [True, False] * 10
    assert warnings.filters == filters


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
    if n_samples <= 1000 or silent in ("clean", "both"):
        assert np.isnan(scores["stoi"]) and np.isnan(scores["estoi"])


def test_pesq_of_a_long_recording_is_the_mean_of_its_pieces(speech):
    pesq = pytest.importorskip("pesq")
    word = speech[np.argmax(np.abs(speech)) :][:3200]
    signal = np.tile(np.append(word, np.zeros(3000, np.float32)), 120)  # beyond 50 the package crashes
    noisy = signal + noise(len(signal), level=0.01)
    assert 1 < helpers.measure(signal, noisy)["pesq"] < 4.5
    short = signal[:40_000], noisy[:40_000]
    assert helpers.measure(*short)["pesq"] == pesq.pesq(8000, *short, "nb")


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


def test_dnsmos_hears_noise_without_a_clean_version(speech):
    clean, noisy = (helpers.dnsmos(signal) for signal in (speech, helpers.blend(speech, noise(len(speech)), 5)[1]))
    assert list(clean) == ["sig", "bak", "ovrl"] and all(1 <= score <= 5 for score in clean.values())
    assert noisy["bak"] < clean["bak"] - 1 and noisy["ovrl"] < clean["ovrl"]


@pytest.mark.parametrize(("n_samples", "level"), [(1, 0.1), (80000, 0), (9999, 3)])
def test_dnsmos_of_any_signal(n_samples, level):
    assert np.isfinite(list(helpers.dnsmos(level * noise(n_samples)).values())).all()


def test_dnsmos_of_nothing():
    with pytest.raises(ValueError, match="no audio"):
        helpers.dnsmos(np.zeros(0, np.float32))


def test_margin_of_error_holds_for_few_values():
    draws = np.random.default_rng(0).standard_normal((2000, 5))
    holds = [abs(np.mean(values)) < helpers.margin_of_error(pd.Series(values)) for values in draws]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.02)
    assert np.isnan(helpers.margin_of_error(pd.Series([1.0])))


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


def test_live_results_keep_every_sample(speech):
    assert len(make_results.live(speech[:9999], latency=0.5)) == 9999


@pytest.fixture
def keeps(monkeypatch):
    """A function that makes robustness be measured of a network that keeps a share of everything."""

    def network_keeps(share):
        monkeypatch.setattr(make_robustness, "denoise", lambda signal: share * signal)

    return network_keeps


@pytest.fixture(scope="session")
def two_pairs():
    voices = helpers.list_speech(SAMPLE).groupby("speaker").nth(0)["path"]
    clean = [helpers.load_audio(path, duration=3) for path in voices[:2]]
    return [(str(i), voice, helpers.blend(voice, noise(len(voice)), 5)[1]) for i, voice in enumerate(clean)]


@pytest.mark.parametrize(("share", "lost"), [(1, 0), (0.5, 0), (0.1, 100)])
def test_robustness_counts_what_the_second_party_loses(share, lost, two_pairs, keeps):
    keeps(share)
    assert make_robustness.lost_parts(two_pairs, 0, softer_db=20) == pytest.approx(lost, abs=1)


def test_robustness_tells_changes_of_level(two_pairs, keeps):
    keeps(0.5)
    assert make_robustness.least_gain_db(two_pairs, 0) == pytest.approx(-6.02, abs=0.01)
    assert make_robustness.change_db(two_pairs[0][1]) == pytest.approx(-6.02, abs=0.01)
    rows = {what: values for what, _, values in make_robustness.figures(two_pairs, [], [])}
    assert rows.pop("shouting") == rows.pop("noisy recordings, the speech of them") == []
    for what in ("speech in rooms", "whisper (vocoder)", "speech whose band ends at 3 kHz", "noise alone"):
        assert rows[what] == pytest.approx([-6.02] * 2, abs=0.01)


def test_robustness_tells_the_worst_beside_the_mean():
    assert make_robustness.summary([0, 1, 2]) == pytest.approx((1, 2.484, 0, 2), abs=1e-3)


def test_robustness_tells_gains(two_pairs, monkeypatch):
    clean, noisy = two_pairs[0][1:]
    monkeypatch.setattr(make_robustness, "denoise", lambda signal: clean)
    assert make_robustness.babble_gains(two_pairs, 0)[1] > 0.1
    assert min(make_robustness.dnsmos_gains(noisy)) > 0.1


def test_word_errors():
    count = functools.partial(make_understanding.word_errors, "call me at fifteen")
    assert [count(text) for text in ("call me at fifteen", "call me at fifty", "me at fifteen", "")] == [0, 1, 1, 4]
    assert count("very " * 30) == 4  # a loop counts no more than the file has words


def test_understanding_has_a_row_for_each_mix(two_pairs):
    def transcribe(signal):  # understands where no noise is left
        return "two words" if np.abs(np.fft.rfft(signal)[-2000:]).mean() < 2 else "too wards"

    table = make_understanding.score(two_pairs, transcribe, (0, 1))
    assert list(table["mix"]) == [0, 1, 0, 1] and set(table["words"]) == {2}
    assert list(table["errors"][table["mix"] == 0]) == [2, 2] and list(table["errors"][table["mix"] == 1]) == [0, 0]
    assert (table["bak"][table["mix"] == 1].to_numpy() > table["bak"][table["mix"] == 0].to_numpy()).all()


def test_understanding_leaves_out_what_is_not_understood_when_clean(two_pairs):
    assert make_understanding.score(two_pairs, lambda signal: "", (0, 1)).empty


def test_training_counts_the_models_that_it_went_on_from(tmp_path):
    first = {"hours_of_audio_in_all": 2, "minutes_of_training": 30, "start": None}
    second = {"hours_of_audio_in_all": 5.5, "minutes_of_training": 40.2, "start": first}
    (tmp_path / "unet.json").write_text(json.dumps(second))
    assert make_results.training(tmp_path / "unet.keras") == "trained on 5.5 h of blends in 70 minutes"


def test_held_out_blends_of_a_corpus_without_any(corpus):
    for clip in (corpus / "ESC-50/audio").glob("1-*"):
        clip.unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no speech or no noise for test"):
        next(helpers.held_out_blends(corpus))


def test_held_out_blends_have_names_of_five_words(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "corpus")
    for path in list((tmp_path / "corpus").glob("LibriSpeech/*/*/*/*.flac")):
        path.rename(path.with_name(f"call {path.name}"))
    names = [name for name, *_ in helpers.held_out_blends(tmp_path / "corpus", n=4)]
    assert all(len(name.split()) == 5 and name.split()[1].startswith("call_") for name in names)


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


def test_a_system_that_changes_its_input_changes_no_other(speech):
    def silences(noisy):
        noisy *= 0
        return noisy

    noisy = helpers.blend(speech, noise(len(speech)), 5)[1]
    table = helpers.evaluate([("a", speech, noisy)], {"silences": silences, "nothing": np.copy}).set_index("signal")
    assert table.loc["nothing", "si_sdr"] == table.loc["noisy", "si_sdr"] and noisy.any()


def test_pesq_of_speech_that_was_muted_is_the_lowest(speech):
    clean = np.resize(speech, 2 * helpers.PESQ_PIECE)
    muted = clean * (np.arange(len(clean)) < helpers.PESQ_PIECE)
    perfect = helpers.measure(speech, speech)["pesq"]
    assert helpers.measure(clean, muted)["pesq"] == pytest.approx((perfect + 1) / 2, nan_ok=True)  # without the package


def test_measure_neither_uses_nor_spends_random_numbers(speech):
    scores = []
    for seed in (0, 1):
        np.random.seed(seed)
        expected = np.random.RandomState(seed).random()
        scores.append(helpers.measure(speech, 0 * speech)["estoi"])
        assert np.random.random() == expected
    assert scores[0] == scores[1] == pytest.approx(0, abs=0.01)


def test_evaluate_without_a_system(speech):
    assert helpers.evaluate([("a", speech, speech)], {})["signal"].to_list() == ["noisy"]


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


@pytest.mark.parametrize("rate", [44100, 48000, 16000])
def test_paired_files_that_another_program_resampled(tmp_path, rate):
    for n in range(8000, 8020):
        write(tmp_path / f"clean/{n}.wav", noise(n), rate)
        write(tmp_path / f"noisy/{n}.wav", soxr.resample(noise(n), rate, 8000))
    pairs = list(helpers.paired_files(tmp_path / "clean", tmp_path / "noisy"))
    assert len(pairs) == 20 and all(clean.shape == noisy.shape for _, clean, noisy in pairs)


def test_paired_files_of_any_format_that_can_be_read(tmp_path):
    for folder in ("clean", "noisy"):
        encode(tmp_path / folder / "a.m4a", "aac", noise(8000))
    assert [name for name, *_ in helpers.paired_files(tmp_path / "clean", tmp_path / "noisy")] == ["a.m4a"]


def test_left_db(speech):
    sound = noise(8000)

    def duck(signal):  # takes 20 dB off what lies between the speech, and nothing off the speech
        assert signal.shape == (2 * len(speech) + 8000,)
        between = slice(len(speech), len(speech) + 8000)
        assert decibel(signal[between], speech) == pytest.approx(0, abs=0.1)
        signal[between] /= 10
        return signal

    assert helpers.left_db(sound, speech, duck) == pytest.approx(-20, abs=1e-3)
    assert helpers.left_db(sound, speech, lambda signal: signal) == pytest.approx(0, abs=1e-3)
