"""The whole way: a call of the bundled corpus, its noise, the command line and the shipped model."""

import itertools

import numpy as np
import pytest
import soundfile as sf
from conftest import SAMPLE, run_script
from scipy.signal import firwin

import helpers
from data import make_robustness


@pytest.fixture(scope="module")
def signals():
    """Speech and noise that no training has heard, and their blend at 0 dB."""
    speech, noise = helpers.list_speech(SAMPLE), helpers.list_noise(SAMPLE)
    speech = speech[speech["split"] == "test"].sort_values("duration").iloc[-1]
    noise = noise[(noise["fold"] == 1) & (noise["category"] == "rain")].iloc[0]
    clean = helpers.load_audio(speech["path"])
    noise = np.resize(helpers.load_audio(noise["path"]), clean.shape)  # repeats it
    return clean, helpers.blend(clean, noise, 0)[1]


@pytest.fixture(scope="module")
def scores():
    """What the shipped model makes of 20 blends of voices and noises that no training has heard."""
    return helpers.evaluate(helpers.held_out_blends(SAMPLE, n=20)).pivot(index="name", columns="signal")


def denoise(signal, folder):
    """Denoise a signal as a user does."""
    sf.write(folder / "call.wav", signal, helpers.SAMPLE_RATE, subtype="FLOAT")
    done = run_script(folder, "denoise", "call.wav", "enhanced.wav")
    assert (done.returncode, done.stderr) == (0, "")
    enhanced, rate = sf.read(folder / "enhanced.wav", dtype="float32")
    assert rate == helpers.SAMPLE_RATE and enhanced.shape == signal.shape
    return enhanced


def test_noisy_call_comes_out_clean(signals, tmp_path):
    clean, noisy = signals
    before, after = helpers.measure(clean, noisy), helpers.measure(clean, denoise(noisy, tmp_path))
    assert before["si_sdr"] == pytest.approx(0, abs=0.5)
    assert after["si_sdr"] >= before["si_sdr"] + 3
    assert after["estoi"] > before["estoi"]


def test_clean_call_stays_clean(signals, tmp_path):
    clean, _ = signals
    assert helpers.si_sdr(clean, denoise(clean, tmp_path)) >= 30


FLOORS = {"pesq": 1.4, "stoi": 0.115, "estoi": 0.177, "si_sdr": 10.1}  # the model gained 1.45, 0.121, 0.184, 10.6 dB


@pytest.mark.parametrize("measure", FLOORS)
def test_shipped_model_holds_its_floors(scores, measure):
    """No later change may lose quality unseen."""
    gain = scores[measure]["enhanced"] - scores[measure]["noisy"]
    if gain.isna().all():
        pytest.skip("needs the package pesq")
    assert gain.mean() >= FLOORS[measure]
    assert (gain > 0).all()


@pytest.fixture(scope="module")
def pairs():
    return list(helpers.held_out_blends(SAMPLE, n=4))


PARTIES = [(20, None, 1), (30, None, 1), (10, 20, 1), (20, 20, 6), (10, 10, 4)]


@pytest.mark.parametrize(("softer_db", "snr_db", "limit"), PARTIES)
def test_shipped_model_keeps_a_second_party(pairs, softer_db, snr_db, limit):
    """Of a softer party on the same channel, this percentage at most is taken for noise."""
    lost = [make_robustness.lost_parts(pairs, i, softer_db, snr_db) for i in range(len(pairs))]
    assert np.mean(lost) <= limit


def test_shipped_model_keeps_two_who_talk_at_once(pairs):
    assert all(make_robustness.least_gain_db(pairs, i) > -1 for i in range(len(pairs)))


def denoised_live(signal):
    return np.concatenate(list(helpers.denoise_stream(np.array_split(signal, 50), helpers.SAMPLE_RATE)))


def test_shipped_model_is_nearly_as_good_at_a_tenth_of_a_second(pairs):
    """It lost 2 dB where it saw silence behind what it had heard."""
    lost = []
    for _, clean, noisy in pairs:
        live = np.concatenate(list(helpers.denoise_stream([noisy], helpers.SAMPLE_RATE, 0.1)))
        lost.append(helpers.si_sdr(clean, helpers.denoise(noisy)) - helpers.si_sdr(clean, live))
    assert np.mean(lost) < 1.6


@pytest.mark.parametrize("edge_hz", [2000, 2700, 3000])
def test_shipped_model_keeps_speech_whose_band_ends_sharply(edge_hz):
    """Such as comes from a resampler; without `with_mirror_image` up to 48 dB were lost."""
    speech = helpers.list_speech(SAMPLE)
    taps = firwin(401, (300, edge_hz), pass_zero=False, fs=helpers.SAMPLE_RATE)
    for path in speech["path"][speech["split"] == "test"].iloc[[0, 10]]:
        cut = np.convolve(helpers.load_audio(path), taps, mode="same").astype(np.float32)
        for enhanced in (helpers.denoise(cut), denoised_live(cut)):
            assert 10 * np.log10(np.mean(enhanced**2) / np.mean(cut**2)) > -1


@pytest.mark.parametrize("enhance", [helpers.denoise, denoised_live])
def test_offset_costs_nothing(pairs, enhance):
    """Cheap recorders add a constant, here of so many times the level; it cost up to 30 dB."""
    for _, clean, noisy in pairs:
        moved = (noisy + offset * helpers.signal_level(noisy) for offset in (0, -10, -1, 1, 10))
        plain, *enhanced = (helpers.si_sdr(clean[16000:], enhance(x)[16000:]) for x in moved)
        assert min(enhanced) > plain - 0.5


@pytest.mark.parametrize("silence", [0, 8 / 32768, 1e-4, 1e-3], ids=["zeros", "A-law", "-80 dBFS", "-60 dBFS"])
def test_shipped_model_keeps_what_follows_long_silence(pairs, silence):
    """Such as an answer in a channel of its own, which begins at once; up to 20 dB of it were lost."""
    rng = np.random.default_rng(0)
    for _, clean, _ in pairs:
        quiet = np.full(30 * helpers.SAMPLE_RATE, silence)
        if silence in (1e-4, 1e-3):
            quiet = rng.normal(0, silence, len(quiet))
        assert make_robustness.change_after_db(quiet, clean) > -0.3


@pytest.mark.parametrize("seconds", [0.5, 2.079])
@pytest.mark.parametrize("enhance", [helpers.denoise, denoised_live])
def test_shipped_model_keeps_noisy_speech_that_begins_at_once_after_silence(enhance, seconds):
    """Such as behind a mute, or where an exchange sends no pauses: live, up to 60 dB of the first words were lost."""
    silence, lost = np.zeros(round(seconds * 8000), np.float32), []
    for _, clean, noisy in helpers.held_out_blends(SAMPLE, n=12):
        begin = np.argmax(np.abs(clean) > 0.3 * np.abs(clean).max())
        word, noisy = clean[begin : begin + 4000], noisy[begin : begin + 16000]
        enhanced = enhance(np.append(silence, noisy))[len(silence) :][: len(word)]
        lost.append(20 * np.log10(np.dot(enhanced, word) / np.dot(word, word)))
    assert np.mean(lost) > -0.7


def test_shipped_model_keeps_a_soft_word_between_silence_and_loud_ones(pairs):
    for (_, first, _), (_, second, _) in itertools.pairwise(pairs):
        soft = 10 ** (-18 / 20) * first[4000:20000]
        silence = np.zeros(12 * helpers.SAMPLE_RATE)
        enhanced = helpers.denoise(np.concatenate([silence, soft, second]))[len(silence) :][: len(soft)]
        assert 10 * np.log10(np.mean(enhanced**2) / np.mean(soft**2)) > -0.5


def test_shipped_model_keeps_whisper_and_rooms(pairs):
    rng = np.random.default_rng(0)
    for _, clean, _ in pairs:
        in_room = np.convolve(clean, make_robustness.random_room(rng))[: len(clean)]
        assert abs(make_robustness.change_db(in_room)) < 1.5
        assert abs(make_robustness.change_db(helpers.whisper(clean, rng))) < 1.5


def test_shipped_model_silences_noise(pairs):
    for _, clean, noisy in pairs:
        assert make_robustness.change_db(noisy - clean) < -30
