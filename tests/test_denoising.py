"""Tests of denoising."""

import concurrent.futures
import contextlib
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import FORMATS, SAMPLE, Fixed, contents, decibel, noise, run_python, tone, visible, write, write_format
from hypothesis import example, given, settings
from hypothesis import strategies as st

import helpers


class Remembers:
    """Stands for a U-Net that takes for noise what is weak, in each bin, beside its mean of half a second."""

    def predict_on_batch(self, inputs):
        power = np.sum(np.square(inputs, dtype=float), axis=-1, keepdims=True)
        total = np.cumsum(np.pad(power, ((0, 0), (0, 0), (33, 32), (0, 0))), axis=2)
        return (inputs / (1 + power / (total[:, :, 65:] - total[:, :, :-65] + 1e-9))).astype(np.float32)


HEARS_NO_NOISE, HEARS_ONLY_NOISE = Fixed(0), Fixed(1)


@pytest.fixture(scope="session")
def shipped():
    """The shipped network, in ONNX Runtime."""
    return helpers.load_model(helpers.RUNTIME_MODEL)


def channels_and_samples(max_samples):
    """Shapes `(samples,)` and `(channels, samples)`."""
    channels, samples = st.sampled_from([(), (1,), (2,), (8,)]), st.integers(1, max_samples)
    shapes = st.builds(lambda channels, n: (*channels, n), channels, samples)
    return shapes.filter(lambda shape: shape[0] <= shape[-1])


RATES = st.integers(4000, 192000)
LEVELS = st.integers(-90, 0).map(lambda level_db: 10 ** (level_db / 20))


DAMAGES = {  # what may be wrong with a recording, done to one channel of it
    "nothing": lambda channel: None,
    "DC": lambda channel: np.add(channel, 0.5, out=channel),
    "silence": lambda channel: channel.fill(0),
    "half silence": lambda channel: channel[len(channel) // 2 :].fill(0),
    "clipping": lambda channel: np.clip(3 * channel, -0.01, 0.01, out=channel),
    "NaN": lambda channel: channel[-1:].fill(np.nan),
    "infinity": lambda channel: channel[:1].fill(np.inf),
}


@given(channels_and_samples(100_000), RATES, LEVELS)
@example((1,), 48000, 1.0)
@example((2, 5), 192000, 1.0)
@example((8, 100_000), 4000, 0.1)
@example((4000,), 8000, 30.0)
def test_denoise_is_an_identity_without_noise(shape, rate, level):
    noisy = noise(*shape, level=level)
    enhanced = helpers.denoise(noisy, rate, HEARS_NO_NOISE)
    assert enhanced.shape == noisy.shape and enhanced.dtype == np.float32
    assert decibel(enhanced - noisy + 1e-30, noisy) < -60


@given(channels_and_samples(20_000), RATES, LEVELS, st.sampled_from(list(DAMAGES)))
@example((1,), 48000, 1.0, "nothing")
@example((1,), 44100, 1.0, "infinity")
@example((2, 20_000), 44100, 1e-3, "NaN")
def test_denoise_of_anything(shape, rate, level, damage):
    check_any_recording(noise(*shape, level=level), rate, damage, Fixed(0.5))


@settings(max_examples=10)
@given(channels_and_samples(20_000), RATES, LEVELS, st.sampled_from(list(DAMAGES)))
def test_denoise_of_anything_by_the_shipped_network(shipped, shape, rate, level, damage):
    check_any_recording(noise(*shape, level=level), rate, damage, shipped)


def check_any_recording(noisy, rate, damage, model):
    DAMAGES[damage](np.atleast_2d(noisy)[-1])
    if np.isfinite(noisy).all():
        enhanced = helpers.denoise(noisy, rate, model)
        assert enhanced.shape == noisy.shape and enhanced.dtype == np.float32
        assert np.isfinite(enhanced).all()
    else:
        with pytest.raises(ValueError, match=r"NaN or infinite|too high"):
            helpers.denoise(noisy, rate, model)


@given(channels_and_samples(20_000), LEVELS)
def test_predicted_noise_is_aligned(shape, level):
    noisy = noise(*shape, level=level)
    assert decibel(helpers.denoise(noisy, model=HEARS_ONLY_NOISE) + 1e-30, noisy) < -60


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100, 48000])
def test_predicted_noise_is_aligned_at_other_rates(rate):
    noisy = tone(700, rate, rate)
    enhanced = helpers.denoise(noisy, rate, HEARS_ONLY_NOISE)
    assert decibel(enhanced[rate // 10 : -rate // 10], noisy) < -60


@pytest.mark.parametrize("share", [0, 0.3, 1])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_denoise_attenuates_what_lies_above_4_khz_alike(rate, share):
    noisy = noise(2, rate)
    enhanced = helpers.denoise(noisy, rate, Fixed(share))
    assert decibel((enhanced - (1 - share) * noisy)[:, 1000:-1000], noisy) < -60


def test_upper_gain():
    noisy = noise(2, 16000)
    assert helpers.upper_gain(noisy, np.float32(0.25) * noisy) == pytest.approx(0.75, abs=1e-3)
    assert helpers.upper_gain(noisy, -noisy) == pytest.approx(1)  # never amplified
    assert helpers.upper_gain(np.float32(1e-25) * noisy, np.float32(0.25e-25) * noisy) == pytest.approx(0.75, abs=1e-3)
    low = np.stack([tone(1000, 16000)] * 2)  # without its noise, nothing changes from 3 to 4 kHz
    assert helpers.upper_gain(low + noisy, low) == pytest.approx(1, abs=1e-2)
    assert np.array_equal(helpers.upper_gain(0 * noisy, 0 * noisy), np.ones((2, 254)))


def two_channels(call, rate):
    """The call at another rate, and on a second channel reversed and quieter."""
    signal = helpers.resample(call, 8000, rate) + noise(len(call) * rate // 8000, level=1e-3)
    return np.stack([signal, 0.1 * signal[::-1]])


BLOCKS = [(8000, 7), (8000, 11), (11025, 8), (44100, 7), (44100, 19)]


@pytest.mark.parametrize(("rate", "block"), BLOCKS)
def test_denoise_in_blocks_is_that_of_the_whole(call, monkeypatch, rate, block):
    check_blocks(two_channels(call, rate)[:, : -rate // 3], rate, block, Remembers(), monkeypatch, -60)


def test_shipped_network_in_blocks_is_nearly_that_of_the_whole(call, shipped, monkeypatch):
    """Its recurrent layers forget slowly: what a context of 8 s leaves is far below the speech, and fades in."""
    check_blocks(two_channels(call, 8000), 8000, 11, shipped, monkeypatch, -30)


def check_blocks(noisy, rate, block, model, monkeypatch, limit_db):
    monkeypatch.setattr(helpers, "BLOCK", 1000)
    at_once = helpers.denoise(noisy, rate, model)
    assert decibel(at_once - noisy, noisy) > -20  # the network does something
    monkeypatch.setattr(helpers, "BLOCK", block)
    in_blocks = helpers.denoise(noisy, rate, model)
    assert decibel(in_blocks - at_once, at_once) < limit_db
    joins = np.arange(block - helpers.CONTEXT, 19, block) * rate
    for i in joins[joins > 0]:  # nor is the worst place worse than that
        part = slice(i - rate // 100, i + rate // 100)
        assert decibel((in_blocks - at_once)[:, part], at_once) < limit_db


def test_level_is_that_of_the_whole(monkeypatch):
    levels = []
    monkeypatch.setattr(helpers, "predict_noise", lambda noisy, level, *_: levels.append(level[0]) or 0 * noisy)
    monkeypatch.setattr(helpers, "BLOCK", 9)
    noisy = noise(240_000)
    noisy[:80_000] *= 0.01
    helpers.denoise(noisy, model=HEARS_NO_NOISE)
    assert len(levels) > 1 and levels == pytest.approx([float(helpers.signal_level(noisy))] * len(levels))


@pytest.mark.parametrize("rate", [8000, 44100])
def test_denoise_file_in_blocks_is_that_of_the_whole(call, tmp_path, monkeypatch, rate):
    noisy = two_channels(call, rate)
    at_once = helpers.denoise(noisy, rate, Remembers())
    source = write(tmp_path / "a.wav", noisy, rate, subtype="FLOAT")
    monkeypatch.setattr(helpers, "BLOCK", 7)
    helpers.denoise_file(source, tmp_path / "b.wav", Remembers())
    enhanced, _ = sf.read(tmp_path / "b.wav", dtype="float32")
    assert enhanced.T.shape == noisy.shape
    assert decibel(enhanced.T - at_once, at_once) < -60


def test_channels_are_denoised_by_themselves(call, shipped):
    channels = two_channels(call, 8000)
    together = helpers.denoise(channels, model=shipped)
    for channel, enhanced in zip(channels, together, strict=True):
        assert np.array_equal(helpers.denoise(channel, model=shipped), enhanced)


@pytest.mark.parametrize("gain", [1e-4, 0.01, 100])
def test_denoise_is_the_same_at_any_level(call, shipped, gain):
    call = call[:32000]
    expected = helpers.denoise(call, model=shipped)
    assert decibel(helpers.denoise(gain * call, model=shipped) / gain - expected, expected) < -60


@pytest.mark.parametrize(("rate", "level_db"), [(8000, 0), (8000, -30), (16000, 0)])
def test_clean_speech_keeps_its_level(shipped, rate, level_db):
    files = helpers.list_speech(SAMPLE)
    for path in files[files["split"] == "test"].groupby("speaker").first()["path"]:
        clean = 10 ** (level_db / 20) * helpers.resample(helpers.load_audio(path), 8000, rate)
        assert decibel(helpers.denoise(clean, rate, shipped), clean) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("level", [0, 1e-42, 1e-38, 1e-20, 1e20])
def test_denoise_of_odd_levels_is_finite(shipped, level):
    enhanced = helpers.denoise(tone(440, level=level), model=shipped)
    assert np.isfinite(enhanced).all()
    if level == 0:
        assert not enhanced.any()


def test_mix():
    noisy = noise(2, 20000)
    assert np.array_equal(helpers.denoise(noisy, model=HEARS_ONLY_NOISE, mix=0), noisy)
    for mix in (0.25, 1):
        enhanced = helpers.denoise(noisy, model=HEARS_ONLY_NOISE, mix=mix)
        assert decibel(enhanced - (1 - mix) * noisy, noisy) < -60


def test_denoise_folder_mixes(tmp_path):
    source = write(tmp_path / "calls/a.wav", subtype="FLOAT")
    helpers.denoise_folder(source.parent, tmp_path / "out", HEARS_ONLY_NOISE, mix=0)
    assert np.array_equal(sf.read(tmp_path / "out/a.wav")[0], sf.read(source)[0])


@pytest.mark.parametrize("mix", [-0.1, 1.1, np.nan])
@pytest.mark.parametrize("kind", ["array", "file", "folder"])
def test_mix_out_of_range(tmp_path, mix, kind):
    source = write(tmp_path / "calls/a.wav")
    denoise = {
        "array": functools.partial(helpers.denoise, noise(8000)),
        "file": functools.partial(helpers.denoise_file, source, tmp_path / "b.wav"),
        "folder": functools.partial(helpers.denoise_folder, source.parent, tmp_path / "out"),
    }[kind]
    with pytest.raises(ValueError, match=f"a mix of {mix} is not possible"):
        denoise(model=HEARS_NO_NOISE, mix=mix)
    assert visible(tmp_path) == ["calls/a.wav"]


@pytest.mark.parametrize(
    ("noisy", "message"),
    [
        (np.array([0, np.nan, np.inf]), "samples are NaN or infinite"),
        (np.zeros(0), "empty"),
        (np.zeros((2, 0)), "empty"),
        (np.zeros((1, 2, 3)), "channels"),
        (np.zeros((65, 100)), "65 channels are more than 64"),
        (np.float32(0), "samples"),
        (np.full(1000, 3e38), "too high"),
    ],
)
def test_denoise_errors(noisy, message):
    with pytest.raises(ValueError, match=message):
        helpers.denoise(noisy, model=HEARS_NO_NOISE)


@pytest.mark.parametrize("rate", [0, -8000, 44100.5])
def test_denoise_refuses_rates_that_are_no_positive_integers(rate):
    with pytest.raises(ValueError, match="resample"):
        helpers.denoise(noise(100), rate, HEARS_NO_NOISE)


@pytest.mark.parametrize(
    ("ending", "subtype", "rate", "channels"),
    [(*row, channels) for row in FORMATS for channels in ((1,) if "GSM610" in row else (1, 2))],
)
def test_denoise_file_keeps_the_format(tmp_path, ending, subtype, rate, channels):
    source = write_format(tmp_path / f"a{ending}", subtype, rate, channels)
    before = source.read_bytes()
    target = tmp_path / "new folder" / f"b{ending}"
    helpers.denoise_file(source, target, HEARS_NO_NOISE)
    assert source.read_bytes() == before
    assert list(contents(target.parent)) == [target.name]
    info, expected = sf.info(target), sf.info(source)
    for property_ in ("format", "subtype", "samplerate", "channels", "frames"):
        assert getattr(info, property_) == getattr(expected, property_)
    signal, original = helpers.load_audio(target), helpers.load_audio(source)
    assert decibel(signal, original) == pytest.approx(0, abs=0.3)
    assert helpers.si_sdr(original, signal) > (10 if subtype in ("GSM610", "MPEG_LAYER_III") else 20)


@pytest.mark.parametrize("channels", [3, 8])
def test_denoise_file_keeps_many_channels_in_order(tmp_path, channels):
    source = write_format(tmp_path / "a.wav", "PCM_16", 8000, channels)
    helpers.denoise_file(source, tmp_path / "b.flac", HEARS_NO_NOISE)
    assert np.array_equal(sf.read(source)[0], sf.read(tmp_path / "b.flac")[0])


@pytest.mark.parametrize(
    ("ending", "subtype", "rate", "new_ending"),
    [
        (".wav", "PCM_24", 44100, ".mp3"),
        (".wav", "ULAW", 8000, ".flac"),
        (".wav", "GSM610", 8000, ".ogg"),
        (".flac", "PCM_16", 16000, ".opus"),
        (".au", "ULAW", 8000, ".wav"),
        (".ogg", "VORBIS", 22050, ".wav"),
        (".ogg", "VORBIS", 16000, ".opus"),
        (".opus", "OPUS", 48000, ".aiff"),
        (".mp3", "MPEG_LAYER_III", 16000, ".flac"),
        (".mp3", "MPEG_LAYER_III", 16000, ".wav"),
    ],
)
def test_denoise_file_converts(tmp_path, ending, subtype, rate, new_ending):
    source = write_format(tmp_path / f"a{ending}", subtype, rate)
    target = tmp_path / f"b{new_ending}"
    helpers.denoise_file(source, target, HEARS_NO_NOISE)
    assert sf.info(target).format == helpers.FORMATS[new_ending]
    assert (sf.info(target).subtype == "OPUS") == (new_ending == ".opus")
    assert decibel(helpers.load_audio(target), helpers.load_audio(source)) == pytest.approx(0, abs=0.5)
    if new_ending != ".opus":  # always tells 48 kHz
        assert sf.info(target).samplerate == rate


@pytest.mark.parametrize("ending", [".m4a", ".aac", ".amr"])
def test_damaged_file_of_a_phone_is_named(tmp_path, ending):
    source = tmp_path / "in" / f"my call{ending}"
    write(tmp_path / "in/a.wav")
    source.write_bytes({".amr": b"#!AMR\n", ".aac": b"\xff\xf1"}.get(ending, b"\0\0\0\x20ftypM4A ") + b"\xff" * 1000)
    with pytest.raises(ValueError, match=rf"my call\{ending} is not audio that can be read"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    table = helpers.denoise_folder(tmp_path / "in", tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["done", "failed"]
    assert "my call" in table["error"][1] and "\n" not in table["error"][1]


def test_denoise_file_refuses_its_source_as_target(tmp_path):
    source = write(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(source)
    (tmp_path / "hard.wav").hardlink_to(source)
    before = contents(tmp_path)
    for name in ("a.wav", "link.wav", "hard.wav", "../" + tmp_path.name + "/a.wav"):
        with pytest.raises(ValueError, match="name another target"):
            helpers.denoise_file(source, tmp_path / name, HEARS_NO_NOISE)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["b.xyz", "b", ".wav"])
def test_denoise_file_refuses_unknown_endings(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} cannot be written.*\.flac"):
        helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / name, HEARS_NO_NOISE)
    assert list(contents(tmp_path)) == ["a.wav"]


def test_denoise_file_of_a_bad_file(bad_file, tmp_path):
    before = contents(tmp_path)
    with pytest.raises(ValueError if bad_file.exists() else FileNotFoundError, match=bad_file.name):
        helpers.denoise_file(bad_file, tmp_path / "out" / "b.wav", HEARS_NO_NOISE)
    assert contents(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_denoise_file_that_must_not_be_read(tmp_path):
    source = write(tmp_path / "a.wav")
    source.chmod(0)
    with pytest.raises((ValueError, OSError), match=r"a\.wav"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert visible(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        (".wav", "GSM610"),
        (".au", "ULAW"),
        (".ogg", "VORBIS"),
        (".opus", "OPUS"),
        (".mp3", "MPEG_LAYER_III"),
    ],
)
def test_what_is_left_of_a_cut_file_is_denoised(tmp_path, ending, subtype):
    rate = 48000 if subtype == "OPUS" else 8000
    whole = write_format(tmp_path / f"whole{ending}", subtype, rate, seconds=20)
    content = whole.read_bytes()
    source = tmp_path / f"cut{ending}"
    source.write_bytes(content[: len(content) * 3 // 5])
    with pytest.warns(UserWarning, match=rf"cut\{ending} seems to have been cut: it ends after 1?\d\.\d s"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert source.read_bytes() == content[: len(content) * 3 // 5]
    left, expected = (helpers.load_audio(path) for path in (tmp_path / "b.wav", whole))
    assert 40000 < len(left) < 120000
    assert helpers.si_sdr(expected[:40000], left[:40000]) > (10 if subtype == "GSM610" else 20)


def test_workers_of_several_threads_tell_each_file_its_own_faults(tmp_path):
    paths = [write(tmp_path / f"{i}.wav") for i in range(8)]
    for path in paths[::2]:
        path.write_bytes(path.read_bytes()[:-2000])
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        model, targets = Fixed(0.5), [path.with_suffix(".flac") for path in paths]
        told = list(threads.map(lambda *pair: helpers._try_denoise(model, *pair, 1.0, False), paths, targets))
    for i, (error, warning) in enumerate(told):
        assert error == "" and (f"{i}.wav seems to have been cut" in warning) == (i % 2 == 0), warning


def test_decoder_of_a_damaged_mp3_says_nothing(tmp_path, capfd):
    content = bytearray(write_format(tmp_path / "a.mp3", "MPEG_LAYER_III", 8000, seconds=2).read_bytes())
    content[1000:4000:50] = bytes(255 - byte for byte in content[1000:4000:50])
    (tmp_path / "a.mp3").write_bytes(content)
    with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
        helpers.denoise_file(tmp_path / "a.mp3", tmp_path / "b.wav", HEARS_NO_NOISE)
    assert capfd.readouterr().err == ""
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_denoise_file_refuses_rates_that_no_recording_has(tmp_path, rate):
    source = write(tmp_path / "a.wav", noise(100))
    content = bytearray(source.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    source.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.wav.*{rate} Hz"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert visible(tmp_path) == ["a.wav"]


def test_denoise_file_that_is_read_in_small_pieces(tmp_path, monkeypatch):
    """As libsndfile reads some damaged files: fewer samples than it was asked for, and then more."""
    signal = noise(20 * 8000)
    source = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    read = helpers.sf.SoundFile.read
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True, action="always") as caught:
        patch.setattr(helpers.sf.SoundFile, "read", lambda file, n, **options: read(file, min(n, 40000), **options))
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    enhanced = sf.read(tmp_path / "b.wav", dtype="float32")[0]
    assert np.array_equal(enhanced, signal[: len(enhanced)])
    assert len(enhanced) == len(signal) or "cut" in str(caught[0].message)


def test_denoise_file_that_is_missing_onto_one_that_exists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.wav does not exist: check the path"):
        helpers.denoise_file(tmp_path / "missing.wav", write(tmp_path / "b.wav"), HEARS_NO_NOISE)


def test_denoise_file_that_vanishes(tmp_path, monkeypatch):
    source = write(tmp_path / "a.wav")
    monkeypatch.setattr(helpers, "load_model", lambda model: source.unlink() or model)
    with pytest.raises(FileNotFoundError, match=r"a\.wav does not exist"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert visible(tmp_path) == []


def test_denoise_file_of_nan(tmp_path):
    source = write(tmp_path / "a.wav", np.full(100, np.nan), subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav.*samples are NaN"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert visible(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sf.LibsndfileError(2), KeyboardInterrupt()])
def test_denoise_file_leaves_nothing_half_written(tmp_path, monkeypatch, error):
    source, target = write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    before = contents(tmp_path)

    monkeypatch.setattr(helpers.sf.SoundFile, "write", Mock(side_effect=error))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError) as caught:
        helpers.denoise_file(source, target, HEARS_NO_NOISE, overwrite=True)
    if not isinstance(error, KeyboardInterrupt):
        assert "b.wav could not be written" in str(caught.value)
    assert contents(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user can't mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("seconds", [25, 45])  # the disk is full when floats wait in a file, or when they are written
def test_full_disk(tmp_path, small_disk, seconds):
    source = write(tmp_path / "calls/a.wav", noise(seconds * 8000))
    before = source.read_bytes()
    with pytest.raises(OSError, match=r"a\.wav could not be written \(.*\): (make room|check the disk)") as caught:
        helpers.denoise_file(source, small_disk / "a.wav", HEARS_NO_NOISE)
    assert "\n" not in str(caught.value)
    assert contents(small_disk) == {} and source.read_bytes() == before
    write(tmp_path / "calls/short.wav")
    table = helpers.denoise_folder(tmp_path / "calls", small_disk / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["failed", "done"]
    assert visible(small_disk) == ["out/short.wav"]


@pytest.mark.parametrize(("level", "by"), [(2, "6.0 dB"), (1.3, "2.3 dB")])
def test_denoise_file_attenuates_and_never_clips(tmp_path, level, by):
    signal = tone(440, level=level)
    source = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    with pytest.warns(UserWarning, match=rf"b\.flac: attenuated by {by}"):
        helpers.denoise_file(source, tmp_path / "b.flac", HEARS_NO_NOISE)
    assert helpers.si_sdr(signal, helpers.load_audio(tmp_path / "b.flac")) > 60
    with warnings.catch_warnings(action="error"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)  # floats hold it
    assert np.array_equal(helpers.load_audio(tmp_path / "b.wav"), signal)


def test_denoise_file_is_attenuated_as_a_whole(tmp_path, monkeypatch):
    signal = np.concatenate([tone(440, 80000, level=0.1), tone(440, 80000, level=4)])
    source = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    monkeypatch.setattr(helpers, "BLOCK", 7)
    with pytest.warns(UserWarning, match=r"attenuated by 12\.0 dB"):
        helpers.denoise_file(source, tmp_path / "b.flac", HEARS_NO_NOISE)
    assert decibel(4 * helpers.load_audio(tmp_path / "b.flac") - signal, signal) < -60


def test_denoise_file_tells_what_happens_above_4_khz(tmp_path):
    with pytest.warns(UserWarning, match="above 4 kHz"):
        helpers.denoise_file(write(tmp_path / "a.wav", rate=16000), tmp_path / "b.wav", HEARS_NO_NOISE)
    with warnings.catch_warnings(action="error"):
        helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / "b.wav", HEARS_NO_NOISE)


@pytest.mark.parametrize(("model", "minutes", "limit"), [("identity", (2, 30), 30), ("shipped", (1, 3), 300)])  # MB
def test_long_recordings_take_no_more_memory(tmp_path, model, minutes, limit):
    program = """
import resource, sys
import numpy as np
import helpers

class HearsNoNoise:
    predict_on_batch = staticmethod(np.zeros_like)

model = HearsNoNoise() if sys.argv[1] == "identity" else helpers.RUNTIME_MODEL
for source in sys.argv[2:]:
    helpers.denoise_file(source, source + ".flac", model)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1024**2))
"""
    minute = (np.random.default_rng(0).standard_normal(60 * 8000) * 1000).astype(np.int16)
    files = [write(tmp_path / f"{n}.wav", np.tile(minute, n)) for n in minutes]
    short, long = map(int, run_python(program, model, *files).split())
    assert long - short < limit
    assert sf.info(f"{files[1]}.flac").frames == minutes[1] * 60 * 8000


# What the command line imports makes its users wait.
HEAVY = ("tensorflow", "keras", "numba", "pandas.core", "librosa.core", "scipy.signal", "sklearn", "matplotlib.pyplot")


def test_help_imports_little():
    program = """
import runpy, sys
sys.argv = ["helpers.py", "--help"]
try:
    runpy.run_path("helpers.py", run_name="__main__")
finally:
    print(*sys.modules, sep="\\n")
"""
    imported = run_python(program).split("\n")
    assert "numpy" in imported
    assert [name for name in (*HEAVY, "onnxruntime") if name in imported] == []


def test_denoise_file_imports_little(tmp_path):
    program = """
import sys
import helpers
helpers.denoise_file(*sys.argv[1:])
print(*sys.modules, sep="\\n")
"""
    imported = run_python(program, write(tmp_path / "a.wav", rate=16000), tmp_path / "b.wav").split("\n")
    assert "onnxruntime" in imported
    assert [name for name in HEAVY if name in imported] == []


def status_by_name(table):
    assert list(table) == ["path", "status", "error", "warning"]
    assert ((table["error"] != "") == (table["status"] == "failed")).all()
    return {path.name: status for path, status in zip(table["path"], table["status"], strict=True)}


@pytest.mark.parametrize("n_samples", [800, 8000])  # some programs reserve the room for all of it first
@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3", ".ogg"])
def test_source_that_was_copied_meanwhile_is_denoised_again(tmp_path, ending, n_samples):
    """Copies bear the time of day until they are whole, and then that of the original."""
    source = write(tmp_path / f"calls/a{ending}", noise(8000)[:n_samples])
    helpers.denoise_folder(source.parent, tmp_path / "out", HEARS_NO_NOISE)
    write(source, noise(8000))
    os.utime(source, (1e9, 1e9))
    for status in ("done", "skipped"):
        assert helpers.denoise_folder(source.parent, tmp_path / "out", HEARS_NO_NOISE)["status"].to_list() == [status]
    assert sf.info(tmp_path / f"out/a{ending}").frames == pytest.approx(8000, abs=2400)


@pytest.mark.parametrize("n_samples", [32_719, 32_722, 32_725])  # 64 kB end within the mark
def test_mark_is_read_once(tmp_path, n_samples):
    source = write(tmp_path / "a.wav", noise(n_samples))
    helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert helpers._marks(tmp_path / "b.wav") == [helpers._mark_of(source, source.stat())]


def test_result_that_was_changed_later_stays(tmp_path):
    source = write(tmp_path / "calls/a.wav")
    os.utime(source, (1e9, 1e9))
    helpers.denoise_folder(source.parent, tmp_path / "out", HEARS_NO_NOISE)
    (tmp_path / "out/a.wav").touch()
    source.chmod(0o600)
    assert helpers.denoise_folder(source.parent, tmp_path / "out", HEARS_NO_NOISE)["status"].to_list() == ["skipped"]


@pytest.mark.parametrize("name", ["a.au", "b.au"])  # the file that is at work, or the next
def test_result_that_another_run_made_meanwhile_is_no_fault(tmp_path, name):
    """Also in formats that bear no mark."""
    for letter in "ab":
        write(tmp_path / f"calls/{letter}.au")
    helpers.denoise_folder(tmp_path / "calls", tmp_path / "other", HEARS_NO_NOISE)

    class Slow(Fixed):
        def predict_on_batch(self, inputs):
            shutil.copy2(tmp_path / "other" / name, tmp_path / "out")
            return super().predict_on_batch(inputs)

    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", Slow(0))
    assert table["status"].to_list() == ["done", "done"]


def test_results_that_are_removed_meanwhile_stop_nothing(tmp_path, monkeypatch):
    write(tmp_path / "calls/a.wav")
    (tmp_path / "out/old").mkdir(parents=True)
    scandir = os.scandir

    def removed(path):
        if os.fspath(path).endswith("old"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removed)
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["done"]


def test_sample_format_can_not_be_given_in_place_of_overwrite(tmp_path):
    write(tmp_path / "calls/a.wav"), write(tmp_path / "out/a.wav", noise(99))
    before = contents(tmp_path)
    with pytest.raises(TypeError):
        helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", HEARS_NO_NOISE, 1.0, "ulaw")
    assert contents(tmp_path) == before


def test_denoise_folder(tmp_path):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in ("a.wav", "deep/er/b.FLAC", "deep/c d.ogg", "x.wav/in a folder.wav"):
        write(source / name, rate=8000)
    (source / "deep/bad.wav").write_text("This is no audio.\n")
    (source / "notes.txt").write_text("These are no calls.\n")
    (source / "._a.wav").write_text("What other systems leave behind.\n")
    before = contents(source)
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert contents(source) == before
    assert set(contents(target)) == {"a.wav", "deep/er/b.FLAC", "deep/c d.ogg", "x.wav/in a folder.wav"}
    assert status_by_name(table) == {
        "a.wav": "done",
        "b.FLAC": "done",
        "c d.ogg": "done",
        "in a folder.wav": "done",
        "bad.wav": "failed",
        "notes.txt": "left out",
        "._a.wav": "left out",
    }
    assert "bad.wav" in table.set_index("path")["error"][source / "deep/bad.wav"]


def test_denoise_folder_skips_what_is_done(tmp_path):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in "abc":
        write(source / f"{name}.wav")
    write(target / "b.wav", noise(100))
    before = contents(target)
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert status_by_name(table) == {"a.wav": "done", "b.wav": "skipped", "c.wav": "done"}
    assert contents(target)["b.wav"] == before["b.wav"]
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert set(table["status"]) == {"skipped"}
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE, overwrite=True)
    assert set(table["status"]) == {"done"}
    assert np.array_equal(sf.read(target / "b.wav")[0], sf.read(source / "b.wav")[0])


def test_denoise_folder_does_again_what_has_changed(tmp_path):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in "ab":
        write(source / f"{name}.wav", noise(8000))
    helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    write(source / "a.wav", noise(16000))  # it was still being recorded
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert status_by_name(table) == {"a.wav": "done", "b.wav": "skipped"}
    assert sf.info(target / "a.wav").frames == 16000


def test_denoise_folder_never_skips_another_recording_of_the_name(tmp_path):
    """Recorders that number their files anew each day: the second day's bear older times, if they were copied."""
    target = tmp_path / "enhanced"
    for day in ("tuesday", "monday"):
        write(tmp_path / day / "1.wav", noise(8000))
    assert status_by_name(helpers.denoise_folder(tmp_path / "monday", target, HEARS_NO_NOISE)) == {"1.wav": "done"}
    before = contents(target)
    table = helpers.denoise_folder(tmp_path / "tuesday", target, HEARS_NO_NOISE)
    assert status_by_name(table) == {"1.wav": "failed"} and "is not known to be a result" in table["error"][0]
    assert contents(target) == before
    (target / "1.wav").write_bytes(b"")  # no result either
    assert status_by_name(helpers.denoise_folder(tmp_path / "monday", target, HEARS_NO_NOISE)) == {"1.wav": "failed"}


def test_denoise_folder_accounts_for_every_file(tmp_path):
    source = tmp_path / "calls"
    for name in ("a.WAV", "b.txt", "no ending", ".hidden.wav", ".git/c.wav", "deep/d.Pdf"):
        write(source / name, format="WAV")
    (source / "gone.wav").symlink_to("nowhere.wav")
    os.mkfifo(source / "pipe.wav")
    table = helpers.denoise_folder(source, tmp_path / "enhanced", HEARS_NO_NOISE)
    left_out = dict.fromkeys(("b.txt", "no ending", ".hidden.wav", ".git", "d.Pdf"), "left out")
    assert status_by_name(table) == {"a.WAV": "done", "gone.wav": "failed", "pipe.wav": "failed", **left_out}
    assert visible(tmp_path / "enhanced") == ["a.WAV"]


def test_denoise_folder_follows_links_to_folders_once(tmp_path):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in ("calls/real/a.wav", "elsewhere/deep/b.wav", "enhanced/deep/old.wav"):
        write(tmp_path / name)
    links = {
        "again": "real",
        "round": ".",
        "out": "../elsewhere",
        "too": "../elsewhere/deep",
        "results": "../enhanced/deep",
    }
    for name, place in links.items():
        (source / name).symlink_to(place)
    helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert visible(target) == ["deep/old.wav", "out/deep/b.wav", "real/a.wav"]


def test_denoise_folder_names_a_folder_that_may_not_be_read(tmp_path, locked):
    source = tmp_path / "calls"
    for name in ("a.wav", "locked/b.wav"):
        write(source / name)
    table = helpers.denoise_folder(source, tmp_path / "out", HEARS_NO_NOISE)
    assert status_by_name(table) == {"a.wav": "done", "locked": "failed"}
    assert table["error"][1].startswith(f"{source / 'locked'}: Permission denied: get access")


def test_denoise_folder_takes_files_and_folders_as_cp_does(tmp_path):
    target = tmp_path / "results"
    sources = [write(tmp_path / name) for name in ("a.wav", "calls/deep/b.wav", "c.wav")]
    table = helpers.denoise_folder([sources[0], tmp_path / "calls", str(sources[2])], target, HEARS_NO_NOISE)
    assert status_by_name(table) == {"a.wav": "done", "b.wav": "done", "c.wav": "done"}
    assert visible(target) == ["a.wav", "c.wav", "calls/deep/b.wav"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_denoise_folder_replaces_none_of_its_sources(tmp_path, overwrite):
    for name in ("monday/sub/a.wav", "tuesday/sub/a.wav", "old/b.wav", "calls/c.wav"):
        write(tmp_path / name)
    (tmp_path / "calls/b.wav").symlink_to("../old/b.wav")
    before = contents(tmp_path)
    sources = [tmp_path / "monday/sub", tmp_path / "tuesday/sub/a.wav"]
    table = helpers.denoise_folder(sources, tmp_path / "tuesday", HEARS_NO_NOISE, overwrite=overwrite)
    assert table["status"].to_list() == ["failed", "done"]
    assert "tuesday/sub/a.wav, which is the recording" in table["error"][0]
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "old", HEARS_NO_NOISE, overwrite=overwrite)
    assert status_by_name(table) == {"b.wav": "failed", "c.wav": "done"}
    assert before.items() <= contents(tmp_path).items()


def test_result_whose_name_or_place_cannot_be(tmp_path):
    source = write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"would lie in .*a\.wav, which is no folder: name another target"):
        helpers.denoise_file(source, source / "deep" / "b.wav", HEARS_NO_NOISE)
    call = tmp_path / "calls" / f"{252 * 'e'}.ul"  # its result has a byte too many
    call.parent.mkdir()
    call.write_bytes(8000 * b"\x55")
    table = helpers.denoise_folder(call.parent, tmp_path / "out", HEARS_NO_NOISE)
    assert table["error"][0].endswith("File name too long: denoise it alone, into a shorter name")


@pytest.mark.parametrize("sources", ["calls", ["calls/a.wav"]])
def test_workers_are_sent_no_relative_paths(tmp_path, calls, fixed_model, monkeypatch, sources):
    """They may run in another folder."""
    sent = []

    def denoise_on(_, model, jobs):
        [(path, (source, target, *_))] = jobs.items()
        sent.extend([model, source, target])
        return [(path, ("", ""))]

    monkeypatch.setattr(helpers, "_denoise_on", denoise_on)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(fixed_model.read_bytes())
    helpers.denoise_folder(sources, "out", "model.onnx", client=object())
    assert [os.path.isabs(path) for path in sent] == [True] * 3


def test_recording_that_kills_its_workers_is_named_and_stops_no_other(tmp_path):
    class Kills:
        def predict_on_batch(self, inputs):
            if inputs.shape[2] > 200:
                os._exit(1)
            return 0 * inputs

    for name in "abcd":
        write(tmp_path / f"calls/{name}.wav", noise(16000 if name == "b" else 8000))
    with helpers._cluster(2, None) as client:
        table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", Kills(), client=client)
    assert table["status"].to_list() == ["done", "failed", "done", "done"]
    assert table["error"][1].endswith("b.wav: the processes that denoised it died: denoise it alone")


def test_files_are_not_waited_for_when_no_process_is_left(tmp_path, calls):
    with helpers._cluster(1, None) as client:
        client.retire_workers()
        assert client.cluster.scheduler.no_workers_timeout == 300
        client.cluster.scheduler.no_workers_timeout = 0.5
        table = helpers.denoise_folder(calls, tmp_path / "out", HEARS_NO_NOISE, client=client)
    assert table["error"][0].endswith("a.wav: no process was left to denoise it: start it again to go on")


def test_single_file_is_a_source_too(tmp_path):
    table = helpers.denoise_folder(write(tmp_path / "a.wav"), tmp_path / "b.wav", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["done"] and visible(tmp_path) == ["a.wav", "b.wav"]


def spectrum_up_to(edge_hz):
    """Noise of 4 s that ends sharply, as the network's input."""
    spectrum = np.fft.rfft(noise(32000))
    spectrum[round(edge_hz * 4) :] = 0
    return helpers.to_network(helpers.stft(np.fft.irfft(spectrum).astype(np.float32)), 0.1)


@pytest.mark.parametrize("level", [1e-4, 1, 1e4])
@pytest.mark.parametrize("edge_hz", [2200, 2700, 3400])
def test_upper_edge(edge_hz, level):
    found_hz = helpers.upper_edge(level * spectrum_up_to(edge_hz)) * helpers.SAMPLE_RATE / helpers.N_FFT
    assert found_hz == pytest.approx(edge_hz, abs=100)


@pytest.mark.parametrize("edge_hz", [0, 500, 1800, 3700, 4000])
def test_upper_edge_where_nothing_is_done_about_it(edge_hz):
    assert helpers.upper_edge(spectrum_up_to(edge_hz)) == 128


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_network_is_shown_a_mirror_image_and_removes_its_share_of_what_is_there(share):
    shown = []

    class Hears:
        def predict_on_batch(self, inputs):
            shown.append(np.linalg.norm(inputs[0], axis=-1).mean(axis=-1))
            return np.float32(share) * inputs

    spectrum = np.fft.rfft(noise(32000))
    spectrum[2700 * 4 :] *= 1e-3
    signal = np.fft.irfft(spectrum).astype(np.float32)
    removed = helpers.predict_noise(signal[None], [0.1], Hears())[0]
    assert 0.1 < shown[0][90:].min() / shown[0][:80].mean() < 0.9
    assert removed == pytest.approx(share * signal, abs=1e-6)


def test_mirror_image_is_shown_to_a_party_beside_one_of_full_band():
    full, narrow = helpers.to_network(helpers.stft(noise(32000)), 0.1), spectrum_up_to(2700)
    shown = helpers.with_mirror_image(np.concatenate([full, narrow], axis=1))
    assert np.array_equal(shown[:, : full.shape[1]], full)
    magnitude = np.linalg.norm(shown[:, -384:], axis=-1).mean(axis=-1)
    assert magnitude.min() > 0.1 * magnitude.mean()


def test_single_source_and_a_folder_for_results(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "out").mkdir()
    table = helpers.denoise_folder(tmp_path / "typo", tmp_path / "out", HEARS_NO_NOISE)
    assert table["error"].to_list() == [f"{tmp_path / 'typo'} does not exist: check the path"]
    table = helpers.denoise_folder(tmp_path / "a.wav", tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["done"] and visible(tmp_path / "out") == ["a.wav"]


def test_files_of_a_drive_that_does_not_number_them(tmp_path, monkeypatch):
    def without_number(path, stat=os.stat, **options):
        status = stat(path, **options)
        return os.stat_result((status.st_mode, 0, *status[2:]), {"st_mtime_ns": status.st_mtime_ns})

    monkeypatch.setattr(os, "stat", without_number)
    monkeypatch.setattr(helpers, "fcntl", None)
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "calls" / name)
    for status in ("done", "skipped"):
        table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", HEARS_NO_NOISE)
        assert table["status"].to_list() == [status, status]
    with pytest.raises(ValueError, match="is the recording itself"):
        helpers.denoise_file(tmp_path / "calls/a.wav", tmp_path / "calls/a.wav", HEARS_NO_NOISE)


@pytest.mark.parametrize("model", [0.5, None, b"unet.onnx"])
def test_what_is_no_model_is_told(model):
    with pytest.raises(ValueError, match="is no model: name its file"):
        helpers.denoise(noise(8000), 8000, model)


def test_source_that_cannot_be_looked_at_stops_no_other(tmp_path):
    sources = [write(tmp_path / "a.wav"), tmp_path / f"{300 * 'b'}.wav"]
    table = helpers.denoise_folder(sources, tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["done", "failed"] and "File name too long" in table["error"][1]


def test_folder_that_cannot_be_entered_stops_no_other(tmp_path, calls):
    write(calls / "locked/deep/b.wav")
    (tmp_path / "out/locked").mkdir(parents=True)
    (tmp_path / f"out/locked/.{32 * 'a'}.part.wav").write_bytes(b"half a result")
    for folder in ("calls/locked", "out/locked"):
        (tmp_path / folder).chmod(0o644)
    if os.access(calls / "locked", os.X_OK):
        pytest.skip("nothing is forbidden to this user")
    table = helpers.denoise_folder(calls, tmp_path / "out", HEARS_NO_NOISE)
    (calls / "locked").chmod(0o755)
    (tmp_path / "out/locked").chmod(0o755)
    assert status_by_name(table) == {"a.wav": "done", "deep": "failed"}


@pytest.mark.skipif(os.name == "nt", reason="Windows takes .. away first")
def test_what_follows_a_link_upwards_is_what_the_system_finds(tmp_path):
    write(tmp_path / "calls/wrong.wav")
    write(tmp_path / "day/calls/right.wav")
    (tmp_path / "day/agent").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "day/agent")
    sources = [tmp_path / "link/../calls", write(tmp_path / "a.wav")]
    helpers.denoise_folder(sources, tmp_path / "out", HEARS_NO_NOISE)
    assert visible(tmp_path / "out") == ["a.wav", "calls/right.wav"]


def test_link_to_a_folder_in_the_target_is_refused(tmp_path):
    write(tmp_path / "out/calls/a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "out/calls")
    with pytest.raises(ValueError, match="lies in the other"):
        helpers.denoise_folder([tmp_path / "link", write(tmp_path / "b.wav")], tmp_path / "out", HEARS_NO_NOISE)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
@pytest.mark.parametrize("listed", ["link", "sources", "iterator"])
def test_folder_for_results_is_listed_by_no_more_than_those_of_all_sources(tmp_path, listed):
    """The first source, by name, is a public one, and another one is not there."""
    write(tmp_path / "public/a.wav")
    write(tmp_path / "secret/anna.wav")
    (tmp_path / "secret").chmod(0o700)
    (tmp_path / "secret/a.wav").symlink_to(tmp_path / "public/a.wav")
    (tmp_path / "loop").symlink_to("loop")
    sources = [tmp_path / name for name in ("public/a.wav", "secret/anna.wav", "gone/b.wav", "loop/b.wav")]
    sources = {"link": tmp_path / "secret", "sources": sources[:3], "iterator": iter(sources[:2] + sources[3:])}[listed]
    helpers.denoise_folder(sources, tmp_path / "out", HEARS_NO_NOISE)
    assert visible(tmp_path / "out") == ["a.wav", "anna.wav"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_model_that_is_replaced_during_a_run_denoises_no_part_of_it(tmp_path, fixed_model, monkeypatch):
    for name in "ab":
        write(tmp_path / f"calls/{name}.wav")
    model = tmp_path / "model.onnx"
    model.write_bytes(fixed_model.read_bytes())
    denoise_file = helpers.denoise_file

    def vanish(*arguments, **options):
        model.unlink(missing_ok=True)
        denoise_file(*arguments, **options)

    monkeypatch.setattr(helpers, "denoise_file", vanish)
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", model)
    assert set(table["status"]) == {"done"}


def test_denoise_folder_refuses_two_sources_of_one_result(tmp_path):
    sources = [write(tmp_path / name) for name in ("x/a.wav", "y/a.wav", "y/b.wav")]
    table = helpers.denoise_folder(sources, tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["failed", "failed", "done"]
    for error in table["error"][:2]:
        assert error.startswith(f"{sources[0]} and {sources[1]} would both become {tmp_path / 'out/a.wav'}")
    assert visible(tmp_path / "out") == ["b.wav"]


def test_denoise_folder_never_takes_a_source_for_its_result(tmp_path):
    source = write(tmp_path / "out/a.wav")
    table = helpers.denoise_folder([source], tmp_path / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["failed"] and "is the recording itself" in table["error"][0]


@pytest.mark.parametrize("name", ["b.wav", "new.wav"])
def test_several_sources_need_a_folder(tmp_path, name):
    sources = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    with pytest.raises(ValueError, match=rf"{name} is not a folder: name one"):
        helpers.denoise_folder(sources, tmp_path / name, HEARS_NO_NOISE)
    assert visible(tmp_path) == ["a.wav", "b.wav"]


KILLED = """
import sys, time
import numpy as np
import helpers

class HearsNoNoise:
    calls = 0
    def predict_on_batch(self, inputs):
        HearsNoNoise.calls += 1
        if sys.argv[3] == "network":
            wait()
        return np.zeros_like(inputs)

def wait():
    if HearsNoNoise.calls == 3:
        print("in the middle", flush=True)
        time.sleep(60)

def write_half(file, samples, write=helpers.sf.SoundFile.write):
    write(file, samples[: len(samples) // 2])
    file.flush()
    wait()
    write(file, samples[len(samples) // 2 :])

helpers.sf.SoundFile.write = write_half
helpers.denoise_folder(sys.argv[1], sys.argv[2], HearsNoNoise())
"""


@pytest.mark.parametrize("moment", ["network", "writing"])
def test_denoise_folder_goes_on_after_a_kill(tmp_path, moment):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in "abcd":
        write(source / f"{name}.wav")
    before = contents(source)
    command = [sys.executable, "-c", KILLED, source, target, moment]
    with subprocess.Popen(command, cwd=helpers.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in the middle\n", process.stderr.read()
        assert visible(target) == ["a.wav", "b.wav"]
        [part] = target.glob(helpers.PARTS)
        (source / "c.wav").rename(tmp_path / "c.wav")
        (source / "d.wav").rename(tmp_path / "d.wav")
        helpers.denoise_folder(source, target, HEARS_NO_NOISE)
        assert part.exists()  # another run leaves what a living one writes
        (tmp_path / "c.wav").rename(source / "c.wav")
        (tmp_path / "d.wav").rename(source / "d.wav")
        process.kill()
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert table["status"].to_list() == ["skipped", "skipped", "done", "done"]
    assert list(target.glob(".*")) == []
    assert contents(source) == before
    assert visible(target) == sorted(before)
    for name in before:
        assert np.array_equal(sf.read(target / name)[0], sf.read(source / name)[0])
        assert (target / name).read_bytes()[36:40] == b"data"  # what some exchanges take for granted


def test_denoise_folder_errors(tmp_path):
    source = tmp_path / "calls"
    source.mkdir()
    with pytest.raises(ValueError, match=r"no sound files in .*calls"):
        helpers.denoise_folder(source, tmp_path / "out", HEARS_NO_NOISE)
    write(source / "calls" / "a.wav")
    write(source / "a.wav")
    for target in (source, source / "out", tmp_path / "calls" / ".." / "calls" / "calls"):
        with pytest.raises(ValueError, match="elsewhere"):
            helpers.denoise_folder(source, target, HEARS_NO_NOISE)


def test_denoise_folder_refuses_a_target_around_the_source(tmp_path, calls):
    write(calls / "calls/a.wav", noise(100))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="elsewhere"):
        helpers.denoise_folder(calls, tmp_path, HEARS_NO_NOISE)  # would overwrite calls/a.wav
    assert contents(tmp_path) == before


def test_denoise_folder_on_a_cluster_that_loses_a_worker(tmp_path, client, fixed_model):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in "abcdefgh":
        write(source / f"{name}.wav", noise(60 * 8000))
    (source / "bad.wav").write_text("This is no audio.\n")
    victim = min(client.run(os.getpid).values())
    root = helpers.ROOT

    def kill_in_the_middle():
        while not (target.exists() and visible(target)):
            time.sleep(0.01)
        os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))

    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    table = helpers.denoise_folder(source, target, fixed_model, client=client)
    killer.join(10)
    client.wait_for_workers(2, timeout=60)
    assert victim not in client.run(os.getpid).values()
    assert root == helpers.ROOT  # what is sent to the workers does not replace the module here
    assert status_by_name(table) == {**{f"{name}.wav": "done" for name in "abcdefgh"}, "bad.wav": "failed"}
    assert visible(target) == [f"{name}.wav" for name in "abcdefgh"]
    alone = helpers.denoise_folder(source, tmp_path / "alone", fixed_model)
    pd.testing.assert_frame_equal(table, alone)
    for name in visible(target):
        assert np.array_equal(sf.read(target / name)[0], sf.read(tmp_path / "alone" / name)[0])


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [("", 3, 3), ("1", 3, 1), ("2,1", 3, 2), ("8", 3, 3), ("0", 3, 3), ("-1", 3, 3), ("2.5", 3, 3), ("many", 1, 1)],
)
def test_threads_of_the_runtime(fixed_model, monkeypatch, threads, cores, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(helpers, "_usable_cores", lambda: cores)
    session = helpers.OnnxModel(fixed_model).session
    assert session.get_session_options().intra_op_num_threads == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "300000 100000\n"}, 3),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_cores_are_those_of_the_container(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(helpers, "CGROUP", tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert helpers._usable_cores() == expected
