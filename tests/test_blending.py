"""Tests of blending."""

import numpy as np
import pytest
from conftest import LENGTHS, decibel, noise, tone
from hypothesis import example, given
from hypothesis import strategies as st

import helpers


@given(LENGTHS.map(lambda n: 2 * n), st.sampled_from([8064, 5000]))
@example(8064, 8064)
@example(8065, 5000)
def test_frames_lose_no_sample(n_samples, hop_length):
    signal = np.arange(1, n_samples + 1, dtype=np.float32)
    frames = helpers.frame_audio(signal, hop_length)
    assert frames.shape[1:] == (8064,)
    for i, frame in enumerate(frames):
        expected = signal[i * hop_length :][:8064]
        assert np.array_equal(frame[: len(expected)], expected)
        assert not frame[len(expected) :].any()
    assert signal[-1] in frames[-1]
    assert n_samples not in frames[:-1]  # no frame that is not needed


@pytest.mark.parametrize("snr_db", [-20, 0, 5.5, 40])
def test_blend_reaches_the_snr(snr_db):
    speech = noise(8064, seed=1)
    scaled, noisy = helpers.blend(speech, noise(8064, level=3), snr_db)
    assert decibel(speech, scaled) == pytest.approx(snr_db, abs=0.01)
    assert np.array_equal(noisy, speech + scaled)
    assert noisy.dtype == scaled.dtype == np.float32


def test_blend_takes_an_array_of_snrs():
    snr_db = np.array([-5.0, 0.0, 15.0])
    speech = noise(3, 8064, seed=1)
    scaled, noisy = helpers.blend(speech, noise(3, 8064), snr_db)
    assert [decibel(*pair) for pair in zip(speech, scaled, strict=True)] == pytest.approx(snr_db, abs=0.01)
    assert np.array_equal(noisy, speech + scaled)


def test_blend_with_silence():
    signal, silence = noise(8064), np.zeros(8064, np.float32)
    for speech, other in ((signal, silence), (silence, signal), (silence, silence)):
        scaled, noisy = helpers.blend(speech, other, 10)
        assert np.array_equal(scaled, other)
        assert np.array_equal(noisy, speech + other)


def test_random_blends():
    frames = noise(4, 8064, seed=1), noise(3, 8064, seed=2)
    blends = helpers.random_blends(*frames)
    speech, scaled, noisy = blends
    assert all(array.shape == (50, 8064) and array.dtype == np.float32 for array in blends)
    assert np.array_equal(noisy, speech + scaled)
    snrs = [decibel(*pair) for pair in zip(speech, scaled, strict=True)]
    assert -5.01 <= min(snrs) < 0 and 10 < max(snrs) <= 15.01
    assert np.array_equal(helpers.random_blends(*frames), blends)
    assert not np.array_equal(helpers.random_blends(*frames, seed=1)[2], noisy)


@pytest.mark.parametrize(("frequency", "low", "high"), [(100, -200, -20), (1000, -1, 1), (3800, -200, -20)])
def test_telephone_band(frequency, low, high):
    signal = tone(frequency)
    passed = helpers.telephone(signal)[1000:-1000]
    assert low < decibel(passed + 1e-9, signal) < high


@given(LENGTHS, st.sampled_from(["ULAW", "ALAW", "GSM610", "AMR", "OPUS"]))
@example(1, "GSM610")
@example(1, "AMR")
@example(1, "OPUS")
def test_telephone_keeps_the_length(n_samples, codec):
    passed = helpers.telephone(noise(n_samples), codec)
    assert passed.shape == (n_samples,) and passed.dtype == np.float32
    assert np.isfinite(passed).all()


def test_telephone_band_can_be_chosen():
    deep = np.sin(2 * np.pi * 100 / 8000 * np.arange(8000)).astype(np.float32) / 2
    assert np.std(helpers.telephone(deep, band_hz=(50, 3400))) > 0.3 > 0.03 > np.std(helpers.telephone(deep))


def test_telephone_takes_whole_numbers():
    whole = (32768 * tone(1000)).astype(np.int16)
    assert decibel(helpers.telephone(whole), helpers.telephone(tone(1000))) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("codec", ["ULAW", "ALAW", "GSM610", "AMR"])
def test_telephone_clips_what_is_too_loud(codec):
    loud = tone(1000, level=2)
    assert (helpers.telephone(loud, codec) * loud).min() > -0.05  # it does not turn over


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_telephone_refuses_what_its_filter_would_spread(value):
    signal = noise(8000)
    signal[10] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        helpers.telephone(signal)


@pytest.mark.parametrize("take", [helpers.telephone, helpers.plot_waveform])
def test_two_channels_are_no_signal(take):
    with pytest.raises(ValueError, match=r"one channel .*shape \(2, 8000\)"):
        take(np.zeros((2, 8000)))


@pytest.mark.parametrize("codec", ["ulaw", "gsm610", "amr", "opus"])
def test_codecs_have_names_in_small_letters_too(codec):
    assert np.array_equal(helpers.telephone(noise(8000), codec), helpers.telephone(noise(8000), codec.upper()))


def test_telephone_laws_differ():
    signal = noise(8000)
    u_law, a_law = helpers.telephone(signal, "ULAW"), helpers.telephone(signal, "ALAW")
    assert not np.array_equal(u_law, a_law)
    assert helpers.si_sdr(u_law, a_law) > 30
    assert len(np.unique(u_law)) <= 256


@pytest.mark.parametrize(("codec", "least_db"), [("GSM610", 3), ("AMR", 3), ("OPUS", 5)])
def test_speech_codecs_neither_delay_nor_silence(speech, codec, least_db):
    assert helpers.si_sdr(helpers.telephone(speech), helpers.telephone(speech, codec)) > least_db


def test_reverberate():
    response = np.zeros(3000, np.float32)
    response[[100, 900]] = 2, 1  # the direct sound comes after 100 samples, an echo 800 later
    reverberant = helpers.reverberate(tone(440), response)
    echo = np.concatenate([np.zeros(800), tone(440)])[:8000]
    np.testing.assert_allclose(reverberant, (2 * tone(440) + echo) / 5**0.5, atol=1e-5)
    assert reverberant.dtype == np.float32


def test_whisper_keeps_formants_and_loses_pitch(speech):
    whispered = helpers.whisper(speech, np.random.default_rng(0))
    assert whispered.shape == speech.shape and whispered.dtype == np.float32

    def bands(signal):
        """Power of 6 bands of 470 Hz from 780 Hz on, `(6, n)`, in pieces of 160 ms."""
        power = np.abs(helpers.stft(signal)[25:115, : len(signal) // 63 // 20 * 20]) ** 2
        return power.reshape(6, 15, -1, 20).mean(axis=(1, 3))

    audible = bands(speech) > 1e-4 * bands(speech).max()
    levels = (10 * np.log10(bands(signal)[audible]) for signal in (speech, whispered))
    assert np.corrcoef(*levels)[0, 1] > 0.9

    def periodicity(signal):
        """The strongest autocorrelation at a lag of 2.5 to 12.5 ms, of the loudest 64 ms."""
        frames = np.lib.stride_tricks.sliding_window_view(signal, 512)[::128]
        loudest = frames[np.square(frames).sum(axis=1).argmax()]
        correlation = np.correlate(loudest, loudest, "full")[511:]
        return correlation[20:100].max() / correlation[0]

    assert periodicity(whispered) < 0.5 * periodicity(speech)
