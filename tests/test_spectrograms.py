"""Tests of spectrograms."""

import warnings

import librosa
import numpy as np
import pytest
from conftest import LENGTHS, noise, tone
from hypothesis import example, given
from hypothesis import strategies as st

import helpers


@given(LENGTHS, st.sampled_from([(), (2,), (2, 3)]), st.floats(1e-6, 1))
@example(1, (2,), 1.0)
@example(254, (), 1.0)
@example(255, (), 1.0)
def test_istft_inverts_stft(n_samples, stack, level):
    signal = noise(*stack, n_samples, level=level)
    spectrogram = helpers.stft(signal)
    restored = helpers.istft(spectrogram, n_samples)
    assert spectrogram.shape[:-1] == (*stack, 128) and spectrogram.dtype == np.complex64
    assert restored.shape == signal.shape and restored.dtype == np.float32
    assert np.abs(restored - signal).max() < 1e-6 * np.abs(signal).max()


@given(LENGTHS, st.sampled_from([(), (2,)]))
@example(1, ())
@example(254, ())
def test_stft_is_that_of_librosa(n_samples, stack):
    signal = noise(*stack, n_samples)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of signals shorter than a window
        expected = librosa.stft(signal, n_fft=helpers.N_FFT, hop_length=helpers.HOP_LENGTH_FFT)
    spectrogram = helpers.stft(signal)
    assert spectrogram.shape == expected.shape
    assert np.abs(spectrogram - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_frame_becomes_a_square():
    assert helpers.stft(noise(50, 8064)).shape == (50, 128, 128)


@pytest.mark.parametrize("bin_", [10, 60, 110])
def test_full_scale_is_0_db(bin_):
    level = helpers.magnitude_db(helpers.stft(tone(bin_ * 8000 / 255, level=1)))
    assert level[:, 60].argmax() == bin_
    assert level[:, 10:-10].max() == pytest.approx(0, abs=0.3)
    assert helpers.magnitude_db(np.zeros((128, 3))) == pytest.approx(-120)


def test_network_scaling_can_be_undone():
    signal = noise(3, 8064) * np.array([[1e-4], [1], [100]], np.float32)
    level = helpers.signal_level(signal)
    spectrogram = helpers.stft(signal)
    channels = helpers.to_network(spectrogram, level)
    assert channels.shape == (3, 128, 128, 2) and channels.dtype == np.float32
    assert np.sqrt(np.mean(channels[0] ** 2)) == pytest.approx(np.sqrt(0.5), rel=0.1)  # of the order of 1
    assert helpers.from_network(channels, level) == pytest.approx(spectrogram, rel=1e-5, abs=1e-6)


def test_signal_level():
    assert helpers.signal_level(tone(1000, level=1)) == pytest.approx(np.sqrt(0.5))
    assert np.array_equal(helpers.signal_level(np.zeros((2, 100))), [1, 1])
