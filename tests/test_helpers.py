"""Unit and property tests of helpers.py, in its order. They need no network, and the shipped model in few places."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from signal import SIGKILL

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import example, given, settings
from hypothesis import strategies as st

import helpers
from data import make_results
from data.make_baseline import denoise_original

SAMPLE = helpers.ROOT / "data" / "sample"
LENGTHS = st.integers(1, 20000)


def noise(*shape, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def tone(frequency, n_samples=8000, rate=8000, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * np.arange(n_samples) / rate)).astype(np.float32)


def decibel(signal, reference=1.0):
    """Power of a signal, in dB over that of another one."""
    return 10 * np.log10(np.mean(np.square(signal, dtype=float)) / np.mean(np.square(reference, dtype=float)))


def write(path, signal=None, rate=8000, **options):
    """Write `(samples,)` or `(channels, samples)`, by default 2 s of noise, and make the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, (noise(2 * rate) if signal is None else signal).T, rate, **options)
    return path


def visible(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def corpus(tmp_path):
    """The smallest corpus: a speaker and a clip for each split, and one folder of extra noise."""
    corpus = tmp_path / "corpus"
    for speaker in (20, 31, 42):
        write(corpus / f"LibriSpeech/mini/{speaker}/7/{speaker}-7-0000.flac")
    rows = [(f"{fold}-1-A-10.wav", fold, 10, "rain") for fold in (1, 2, 3)]
    for name, *_ in rows:
        write(corpus / "ESC-50/audio" / name)
    (corpus / "ESC-50/meta").mkdir()
    pd.DataFrame(rows, columns=["filename", "fold", "target", "category"]).to_csv(corpus / "ESC-50/meta/esc50.csv")
    write(corpus / "fan/day 1/hum.wav")
    return corpus


BAD_FILES = {  # what may come instead of audio
    "missing.wav": None,
    "folder.wav": Ellipsis,
    "text.wav": b"This is no audio.\n",
    "nothing.wav": b"",
    "header.wav": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "random.flac": bytes(range(256)) * 8,
    "text.mp3": b"This is no audio.\n",
    "text.raw": b"This is no audio.\n",
}


@pytest.fixture(params=BAD_FILES)
def bad_file(request, tmp_path):
    path, content = tmp_path / request.param, BAD_FILES[request.param]
    if content is Ellipsis:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    return path


class Fixed:
    """Stands for a U-Net that takes a fixed share of what it hears for noise."""

    def __init__(self, share):
        self.share = np.float32(share)

    def predict_on_batch(self, inputs):
        return self.share * inputs


HEARS_NO_NOISE, HEARS_ONLY_NOISE = Fixed(0), Fixed(1)


@pytest.fixture(scope="session")
def fixed_model(tmp_path_factory):
    """`Fixed(0.5)` as a file: it loads in no time, in other processes too."""
    from onnx import TensorProto, helper, save

    shape = [1, 128, "frames", 2]
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("noisy", "noise"))
    share = helper.make_tensor("share", TensorProto.FLOAT, [], [0.5])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["noisy", "share"], ["noise"])], "unet", [inputs], [outputs], [share]
    )
    path = tmp_path_factory.mktemp("model") / "fixed.onnx"
    save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture(scope="session")
def shipped():
    """The shipped network, in ONNX Runtime."""
    return helpers.load_model(helpers.RUNTIME_MODEL)


@pytest.fixture(scope="session")
def call():
    """20 s of a noisy call at 8 kHz: speech and noise of the sample."""
    files = helpers.list_speech(SAMPLE)
    speech = np.concatenate([helpers.load_audio(path) for path in files[files["split"] == "test"]["path"]])[:160000]
    other = np.concatenate([helpers.load_audio(path) for path in helpers.list_noise(SAMPLE)["path"][:40:4]])
    return helpers.blend(speech, np.resize(other, speech.shape), 5)[1]


@pytest.fixture(scope="session")
def network():
    """An untrained U-Net of full size."""
    network = helpers.unet()
    rng = np.random.default_rng(0)
    network.set_weights([w + 0.01 * rng.standard_normal(w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


@pytest.fixture(scope="session")
def small_unet():
    return functools.partial(helpers.unet, widths=(4,), n_blocks=(0,))


@pytest.fixture(scope="session")
def small_model(small_unet, tmp_path_factory):
    """The file of a small untrained U-Net."""
    path = tmp_path_factory.mktemp("model") / "small.keras"
    small_unet().save(path)
    return path


# Constants


def test_constants():
    assert (helpers.SAMPLE_RATE, helpers.MIN_DURATION, helpers.N_SAMPLES) == (8000, 1.0, 50)
    assert (helpers.HOP_LENGTH_FRAME, helpers.HOP_LENGTH_FRAME_NOISE) == (8064, 5000)
    assert (helpers.N_FFT, helpers.HOP_LENGTH_FFT) == (255, 63)
    assert (helpers.ROOT / "helpers.py").is_file()


# Corpus and audio files


def test_find_corpus_precedence(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    assert helpers.find_corpus() == tmp_path / "data" / "sample"
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    write(tmp_path / "data/corpus/LibriSpeech/mini/20/7/a.flac")
    assert helpers.find_corpus() == tmp_path / "data" / "corpus"
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("SPEECH_CORPUS", str(tmp_path / "mine"))
    assert helpers.find_corpus() == tmp_path / "mine"
    monkeypatch.setenv("SPEECH_CORPUS", "mine")  # relative to the project, wherever the kernel starts
    assert helpers.find_corpus() == tmp_path / "mine"
    monkeypatch.setenv("SPEECH_CORPUS", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"SPEECH_CORPUS.*nowhere"):
        helpers.find_corpus()


def test_list_speech_of_the_sample():
    table = helpers.list_speech(SAMPLE)
    assert list(table) == ["path", "subset", "speaker", "chapter", "utterance", "split", "duration"]
    assert set(table["split"]) == {"train", "validation", "test"}
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    assert set(table[table["split"] == "test"]["speaker"] % 10) == {0}
    assert table["speaker"].nunique() >= 8
    assert table["duration"].sum() >= 6 * 60
    assert table["path"].map(lambda path: path.is_file()).all()


def test_list_noise_of_the_sample():
    table = helpers.list_noise(SAMPLE)
    assert list(table) == ["path", "category", "fold", "split", "duration"]
    clips = table[table["fold"] > 0]
    assert set(clips["fold"]) == {1, 2, 3, 4, 5}
    assert (clips.groupby("fold")["split"].nunique() == 1).all()
    assert set(clips[clips["split"] == "test"]["fold"]) == {1}
    assert clips["category"].nunique() >= 10
    assert table["duration"].sum() >= 6 * 60


def test_extra_noise_is_for_training(corpus):
    row = helpers.list_noise(corpus).set_index("category").loc["fan"]
    assert (row["path"].name, row["fold"], row["split"], row["duration"]) == ("hum.wav", 0, "train", 2.0)


def test_esc50_master_is_found(corpus):
    (corpus / "ESC-50").rename(corpus / "ESC-50-master")
    assert (helpers.list_noise(corpus)["category"] == "rain").sum() == 3


@pytest.mark.parametrize(
    ("list_files", "name"),
    [(helpers.list_speech, "LibriSpeech/mini/42/7/42-7-0001.flac"), (helpers.list_noise, "fan/more.wav")],
)
@pytest.mark.parametrize("content", ["short", "text"])
def test_what_is_left_out_is_named(corpus, list_files, name, content):
    n_files = len(list_files(corpus))
    if content == "short":
        write(corpus / name, noise(7999))
    else:
        (corpus / name).write_text("This is no audio.\n")
    with pytest.warns(UserWarning, match=name.split("/")[-1]):
        assert len(list_files(corpus)) == n_files


def test_clip_that_is_gone_is_named(corpus):
    (corpus / "ESC-50/audio/1-1-A-10.wav").unlink()
    with pytest.warns(UserWarning, match="1-1-A-10.wav"):
        assert len(helpers.list_noise(corpus)) == 3


@pytest.mark.parametrize("list_files", [helpers.list_speech, helpers.list_noise])
def test_corpus_without_files(tmp_path, list_files):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=folder.name):
            list_files(folder)


FORMATS = [  # ending, subtype, rate
    (".wav", "PCM_U8", 8000),
    (".wav", "PCM_16", 8000),
    (".wav", "PCM_24", 44100),
    (".wav", "PCM_32", 8000),
    (".wav", "FLOAT", 11025),
    (".wav", "ULAW", 8000),
    (".wav", "ALAW", 16000),
    (".wav", "GSM610", 8000),
    (".flac", "PCM_16", 16000),
    (".flac", "PCM_24", 48000),
    (".ogg", "VORBIS", 22050),
    (".opus", "OPUS", 48000),
    (".mp3", "MPEG_LAYER_III", 16000),
    (".aiff", "PCM_16", 32000),
    (".aif", "ALAW", 8000),
    (".au", "ULAW", 8000),
    (".caf", "PCM_24", 16000),
    (".w64", "PCM_16", 8000),
    (".rf64", "PCM_16", 8000),
]


def write_format(path, subtype, rate, channels=1, seconds=2):
    signal = np.stack([tone(440 * (1 + i), rate * seconds, rate, level=0.3) for i in range(channels)])
    signal = signal if channels > 1 else signal[0]
    return write(path, signal, rate, format=helpers.FORMATS[path.suffix], subtype=subtype)


@pytest.mark.parametrize(("ending", "subtype", "rate"), FORMATS)
def test_load_audio(tmp_path, ending, subtype, rate):
    signal = helpers.load_audio(write_format(tmp_path / f"a{ending}", subtype, rate))
    assert signal.dtype == np.float32
    assert signal.shape == pytest.approx((16000,), abs=320)  # GSM and MP3 hold whole blocks
    expected = tone(440, level=0.3)
    assert helpers.si_sdr(expected[:8000], signal[:8000]) > (10 if subtype in ("GSM610", "MPEG_LAYER_III") else 20)
    assert decibel(signal[:8000], expected[:8000]) == pytest.approx(0, abs=0.5)


def test_load_audio_mixes_to_mono(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([tone(440), np.zeros(8000)]), subtype="FLOAT")
    assert np.array_equal(helpers.load_audio(path), tone(440) / 2)


def test_load_audio_part(tmp_path):
    signal = noise(16000)
    path = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    assert np.array_equal(helpers.load_audio(path, offset=0.5, duration=0.25), signal[4000:6000])
    assert np.array_equal(helpers.load_audio(path, offset=1.9, duration=1), signal[15200:])
    with pytest.raises(ValueError, match=r"a\.wav holds no audio at 3\.00 s"):
        helpers.load_audio(path, offset=3)


def test_load_audio_of_a_bad_file(bad_file):
    error = ValueError if bad_file.exists() else FileNotFoundError
    with pytest.raises(error, match=bad_file.name) as caught:
        helpers.load_audio(bad_file)
    assert "\n" not in str(caught.value)


def test_load_audio_of_no_samples(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav holds no audio"):
        helpers.load_audio(write(tmp_path / "a.wav", noise(0)))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves the small corpus as archives, in the layout of the real ones; yields the archives and the requests."""
    monkeypatch.setenv("no_proxy", "*")
    root = tmp_path / "server"
    flac = write(tmp_path / "a.flac")
    root.mkdir()
    with tarfile.open(root / "mini.tar.gz", "w:gz") as archive:
        archive.add(flac, "LibriSpeech/mini/20/7/20-7-0000.flac")
    with zipfile.ZipFile(root / "master.zip", "w") as archive:
        archive.write(write(tmp_path / "a.wav"), "ESC-50-master/audio/1-1-A-10.wav")
        archive.writestr("ESC-50-master/meta/esc50.csv", "filename,fold,target,category\n1-1-A-10.wav,1,10,rain\n")
    (root / "page.zip").write_text("<html>Log in to this network first</html>")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            requests.append(self.path)

        def log_error(self, *_):
            pass

    handler = functools.partial(Handler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_port}"
        checksum = "md5:" + hashlib.md5((root / "mini.tar.gz").read_bytes()).hexdigest()
        archives = [
            (f"{address}/mini.tar.gz", checksum, "LibriSpeech/mini"),
            (f"{address}/master.zip", None, "ESC-50-master"),
        ]
        yield archives, requests
        httpd.shutdown()


def test_download(tmp_path, server):
    archives, requests = server
    folder = tmp_path / "corpus"
    helpers.download_corpus(folder, archives)
    assert len(requests) == 2
    assert len(helpers.list_speech(folder)) == len(helpers.list_noise(folder)) == 1
    assert not (folder / "unpacking").exists()
    helpers.download_corpus(folder, archives)
    assert len(requests) == 2


def test_download_goes_on_where_it_stopped(tmp_path, server):
    archives, requests = server
    helpers.download_corpus(tmp_path / "corpus", archives[:1])
    helpers.download_corpus(tmp_path / "corpus", archives)
    assert requests == ["/mini.tar.gz", "/master.zip"]


def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.mark.parametrize("fault", ["checksum", "missing", "offline", "page"])
def test_download_fails(tmp_path, server, fault):
    (address, checksum, content), _ = server[0]
    if fault == "checksum":
        checksum = "md5:" + 32 * "0"
    elif fault == "missing":
        address = address.replace("mini", "other")
    elif fault == "offline":
        address = f"http://127.0.0.1:{closed_port()}/mini.tar.gz"
    else:
        address, checksum = address.replace("mini.tar.gz", "page.zip"), None
    folder = tmp_path / "corpus"
    with pytest.raises(OSError, match=address) as caught:
        helpers.download_corpus(folder, [(address, checksum, content)])
    assert str(folder / content) in str(caught.value)
    assert not (folder / content).exists()


def test_failed_download_leaves_the_sample_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    archive = (f"http://127.0.0.1:{closed_port()}/mini.tar.gz", None, "LibriSpeech/mini")
    with pytest.raises(OSError, match="by hand"):
        helpers.download_corpus(tmp_path / "data" / "corpus", [archive])
    assert helpers.find_corpus() == tmp_path / "data" / "sample"


@pytest.mark.parametrize("level", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("channels", [1, 2])
def test_play_keeps_the_level(level, channels):
    signal = np.squeeze(np.stack([tone(440, level=level)] * channels))
    played, rate = sf.read(io.BytesIO(helpers.play(signal).data), always_2d=True)
    assert (rate, played.shape) == (8000, (8000, channels))
    assert decibel(played, signal) == pytest.approx(0, abs=0.2)


def test_play_clips_what_is_too_loud():
    played, _ = sf.read(io.BytesIO(helpers.play(tone(440, level=4)).data))
    assert np.abs(played).max() == pytest.approx(1, abs=1e-3)


# Blending


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


@given(LENGTHS)
@example(1)
def test_telephone_keeps_the_length(n_samples):
    passed = helpers.telephone(noise(n_samples))
    assert passed.shape == (n_samples,) and passed.dtype == np.float32
    assert np.isfinite(passed).all()


def test_telephone_band_can_be_chosen():
    deep = np.sin(2 * np.pi * 100 / 8000 * np.arange(8000)).astype(np.float32) / 2
    assert np.std(helpers.telephone(deep, band_hz=(50, 3400))) > 0.3 > 0.03 > np.std(helpers.telephone(deep))


def test_telephone_laws_differ():
    signal = noise(8000)
    u_law, a_law = helpers.telephone(signal, "ULAW"), helpers.telephone(signal, "ALAW")
    assert not np.array_equal(u_law, a_law)
    assert helpers.si_sdr(u_law, a_law) > 30
    assert len(np.unique(u_law)) <= 256


# Spectrograms


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of signals that are shorter than a window
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


# The U-Net, its loss and its training


@pytest.mark.parametrize("n_frames", [16, 48])
def test_unet_takes_any_number_of_frames(network, n_frames):
    output = network.predict_on_batch(noise(2, 128, n_frames, 2))
    assert output.shape == (2, 128, n_frames, 2) and output.dtype == np.float32


def test_unet_is_small(network):
    assert 4 * network.count_params() < 15e6  # bytes


def test_unet_of_silence(network):
    assert not network.predict_on_batch(np.zeros((1, 128, 16, 2), np.float32)).any()


def test_saved_unet_is_the_same(network, tmp_path):
    network.save(tmp_path / "unet.keras")
    inputs = noise(1, 128, 32, 2)
    loaded = helpers.load_model(tmp_path / "unet.keras")  # in Keras' safe mode
    assert np.array_equal(loaded.predict_on_batch(inputs), network.predict_on_batch(inputs))


def test_load_model_errors(bad_file):
    with pytest.raises(ValueError if bad_file.is_file() else FileNotFoundError, match=bad_file.name):
        helpers.load_model(bad_file)


def test_transfer_weights_keeps_what_is_predicted_with_more_blocks():
    shallow, deep = helpers.unet((4, 8, 8), (0, 1, 1)), helpers.unet((4, 8, 8), (0, 2, 4))
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.1, 1, weight.shape).astype(np.float32) for weight in shallow.get_weights()]
    shallow.set_weights(weights)
    helpers.transfer_weights(weights, deep)
    inputs = rng.standard_normal((1, 128, 32, 2)).astype(np.float32)
    np.testing.assert_allclose(deep.predict_on_batch(inputs), shallow.predict_on_batch(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_blocks", [(0, 3), (1, 1)])
def test_transfer_weights_refuses_fewer_blocks(n_blocks):
    with pytest.raises(ValueError, match="as many blocks or fewer"):
        helpers.transfer_weights(helpers.unet((4, 8), n_blocks).get_weights(), helpers.unet((4, 8), (0, 1)))


def test_transfer_weights_refuses_other_widths():
    with pytest.raises(ValueError, match="these widths"):
        helpers.transfer_weights(helpers.unet((4, 6), (0, 0)).get_weights(), helpers.unet((4, 8), (0, 0)))


def test_load_model_sees_a_new_file(small_unet, tmp_path):
    path = tmp_path / "unet.keras"
    inputs = noise(1, 128, 16, 2)
    for _ in range(2):
        model = small_unet()
        model.save(path)
        outputs = helpers.load_model(path).predict_on_batch(inputs)
        assert np.array_equal(outputs, model.predict_on_batch(inputs))


def test_spectral_loss():
    targets = noise(3, 128, 16, 4, level=1)
    targets[2, ..., 2:] = 0  # silent speech
    true = targets[..., :2]
    perfect, half, none = (np.asarray(helpers.spectral_loss(targets, share * true)) for share in (1, 0.5, 0))
    assert perfect.shape == (3,)
    assert np.isfinite([perfect, half, none]).all()
    assert (perfect < half).all() and (half < none).all()


def test_bark_bands():
    weights = helpers.bark_bands()
    assert weights.shape == (128, 42) and (weights >= 0).all()
    assert weights.sum(axis=0) == pytest.approx(1)
    assert (np.diff(weights.argmax(axis=0)) >= 0).all()


def heard(speech, noise):
    """Hearing loss of `(batch, samples)` of noise that is left in speech."""
    level = helpers.signal_level(speech)
    speech, enhanced = (helpers.to_network(helpers.stft(x), level) for x in (speech, speech + noise))
    return np.asarray(helpers.hearing_loss(speech, enhanced))


def test_hearing_loss(speech):
    speech = speech[None, :16000]
    white = noise(*speech.shape, level=1) * helpers.signal_level(speech)
    losses = [heard(speech, gain * white)[0] for gain in (0, 0.01, 0.1, 1)]
    assert losses[0] == pytest.approx(0, abs=0.01)  # the roots are rounded off, so that their gradient is finite
    assert (np.diff(losses) > 0.01).all()
    assert 1 < losses[-1] < 6  # at 0 dB, points of PESQ, roughly


def test_third_octave_bands():
    weights = helpers.third_octave_bands()
    assert weights.shape == (128, 15)
    assert (weights.sum(axis=0) >= 1).all() and (weights.sum(axis=1) <= 1).all()


@pytest.mark.parametrize("snr_db", [-5, 5, 15])
def test_intelligibility_loss_is_close_to_estoi(speech, snr_db):
    _, noisy = helpers.blend(speech, noise(*speech.shape, level=1), snr_db)
    level = helpers.signal_level(noisy)
    pair = [helpers.to_network(helpers.stft(x), level)[None] for x in (speech, noisy)]
    loss = np.asarray(helpers.intelligibility_loss(*pair))
    assert loss == pytest.approx([1 - helpers.measure(speech, noisy)["estoi"]], abs=0.07)
    assert np.asarray(helpers.intelligibility_loss(pair[0], pair[0])) == pytest.approx([0], abs=0.01)


@pytest.mark.parametrize("loss_of", [helpers.hearing_loss, helpers.intelligibility_loss])
@pytest.mark.parametrize("silent", ["speech", "enhanced", "both"])
def test_losses_of_silence_have_finite_gradients(silent, loss_of):
    import tensorflow as tf

    speech = tf.constant(noise(2, 128, 64, 2, level=0 if silent in ("speech", "both") else 1))
    enhanced = tf.constant(noise(2, 128, 64, 2, level=0 if silent in ("enhanced", "both") else 1, seed=1))
    with tf.GradientTape() as tape:
        tape.watch(enhanced)
        loss = loss_of(speech, enhanced)
    assert loss.shape == (2,) and np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, enhanced)).all()


def sources(**options):
    speech, other = helpers.list_speech(SAMPLE), helpers.list_noise(SAMPLE)
    options = {"batch_size": 3, "n_frames": 32} | options
    return helpers.BlendedSpeech(speech[speech["split"] == "train"], other[other["split"] == "train"], **options)


def test_blended_speech():
    inputs, targets = batch = sources()[5]
    assert inputs.shape == (3, 128, 32, 2) and targets.shape == (3, 128, 32, 4)
    assert inputs.dtype == targets.dtype == np.float32
    assert np.array_equal(inputs, targets[..., :2] + targets[..., 2:])
    for same, again in zip(batch, sources()[5], strict=True):
        assert np.array_equal(same, again)
    assert not np.array_equal(inputs, sources()[6][0])
    assert not np.array_equal(inputs, sources(seed=1)[5][0])


def test_blended_speech_is_finite_and_varied():
    batches = [sources()[i][0] for i in range(20)]
    assert np.isfinite(batches).all()
    assert len({batch.tobytes() for batch in batches}) == 20


def test_blended_speech_of_one_speaker(corpus):
    source = helpers.BlendedSpeech(helpers.list_speech(corpus).iloc[:1], helpers.list_noise(corpus), 3, 16)
    assert all(np.isfinite(source[i][0]).all() for i in range(20))


def fingerprint(model):
    return model.predict_on_batch(noise(1, 128, 16, 2)).tobytes()


@pytest.fixture
def small_training(monkeypatch, small_unet):
    """Cuts a training down to seconds: a small U-Net, short blends in small batches, two blends for the card.

    Instead of the export, which takes long and has its own tests, a file tells what was exported.
    """
    monkeypatch.setattr(helpers, "export", lambda model, target: target.write_bytes(fingerprint(model)))
    monkeypatch.setattr(helpers, "unet", small_unet)
    monkeypatch.setattr(helpers.BlendedSpeech.__init__, "__defaults__", (2, 16, 0))
    monkeypatch.setattr(helpers, "held_out_blends", functools.partial(helpers.held_out_blends, n=2))
    return functools.partial(helpers.train, epochs=2, steps_per_epoch=2)


EXPORT = helpers.export


@pytest.fixture
def no_training(small_training, monkeypatch):
    import keras

    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("training begins"))
    monkeypatch.setattr(helpers, "export", EXPORT)
    return small_training


def test_train_goes_on_after_a_kill(small_training, tmp_path, monkeypatch):
    import keras

    batches = []
    original = helpers.BlendedSpeech.__getitem__

    def spy(source, index):
        if (source.speech["split"] == "train").all():
            batches.append(index)
        return original(source, index)

    monkeypatch.setattr(helpers.BlendedSpeech, "__getitem__", spy)
    at_once, history = small_training(tmp_path / "at once.keras", SAMPLE)
    assert sorted(set(batches)) == [0, 1, 2, 3]  # no epoch repeats the blends of another
    assert list(history["epoch"]) == [0, 1]
    assert np.isfinite(history[["loss", "val_loss"]]).all(axis=None)

    steps = []

    def killed_in_epoch_2(*_, **__):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    output = tmp_path / "resumed.keras"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", killed_in_epoch_2)
        small_training(output, SAMPLE)
    assert not output.exists() and (tmp_path / "resumed-training").is_dir()
    resumed, resumed_history = small_training(output, SAMPLE)
    assert list(resumed_history["epoch"]) == [0, 1]
    assert resumed_history["loss"].to_numpy() == pytest.approx(history["loss"].to_numpy(), rel=1e-3)
    for weights, expected in zip(resumed.get_weights(), at_once.get_weights(), strict=True):
        assert weights == pytest.approx(expected, abs=1e-5)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "at once.json",
        "at once.keras",
        "at once.onnx",
        "resumed.json",
        "resumed.keras",
        "resumed.onnx",
    ]
    assert output.with_suffix(".onnx").read_bytes() == fingerprint(resumed)
    card = json.loads(output.with_suffix(".json").read_text())
    assert set(card) >= {"command", "epochs", "steps_per_epoch", "batch_size", "learning_rate", "seed", "parameters"}
    assert set(card) >= {"hours_of_audio", "minutes_of_training", "corpus_minutes", "test_scores", "versions"}
    assert card["history"]["epoch"] == [0, 1]
    assert set(card["test_scores"]) == {"noisy", "enhanced"}
    assert set(card["corpus_minutes"]) >= {"LibriSpeech", "ESC-50"}
    assert set(card["licences"]) == set(card["corpus_minutes"])
    assert card["start"] is None and card["hours_of_audio_in_all"] == card["hours_of_audio"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("kind", ["speech", "noise"])
def test_train_needs_every_split(no_training, corpus, monkeypatch, split, kind):
    list_files = getattr(helpers, f"list_{kind}")
    monkeypatch.setattr(
        helpers, f"list_{kind}", lambda corpus: list_files(corpus).query(f"split != '{split}'").reset_index(drop=True)
    )
    with pytest.raises(ValueError, match=f"(?s){corpus.name}.*{split}"):
        no_training(corpus / "unet.keras", corpus)
    assert not (corpus / "unet-training").exists()


def test_train_refuses_a_file_that_it_cannot_write(no_training, tmp_path):
    with pytest.raises(ValueError, match="keras"):
        no_training(tmp_path / "model", SAMPLE)


def test_train_on_two_devices(tmp_path):
    """Under MirroredStrategy, each of two processors of one machine takes half of each batch."""
    program = """
import functools, json, sys
from pathlib import Path
import tensorflow as tf
import helpers

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
helpers.unet = functools.partial(helpers.unet, widths=(4,), n_blocks=(0,))
helpers.BlendedSpeech.__init__.__defaults__ = (8, 16, 0)
helpers.held_out_blends = functools.partial(helpers.held_out_blends, n=2)
helpers.export = lambda model, target: None

def losses(name):
    history = helpers.train(Path(sys.argv[1]) / name, sys.argv[2], epochs=2, steps_per_epoch=3)[1]
    return [*history["loss"], *history["val_loss"]]

alone = losses("one.keras")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    together = losses("two.keras")
print(json.dumps([strategy.num_replicas_in_sync, alone, together]))
"""
    n_devices, alone, together = json.loads(run_python(program, tmp_path, SAMPLE).splitlines()[-1])
    assert n_devices == 2
    assert together == pytest.approx(alone, rel=0.05)  # batch normalisation sees half of a batch at a time


# Denoising


def channels_and_samples(max_samples):
    """Shapes `(samples,)` and `(channels, samples)`."""
    shapes = st.tuples(st.sampled_from([(), (1,), (2,), (8,)]), st.integers(1, max_samples)).map(
        lambda s: (*s[0], s[1])
    )
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
    low = np.stack([tone(1000, 16000)] * 2)  # without its noise, nothing changes from 3 to 4 kHz
    assert helpers.upper_gain(low + noisy, low) == pytest.approx(1, abs=1e-2)
    assert np.array_equal(helpers.upper_gain(0 * noisy, 0 * noisy), np.ones((2, 254)))


def two_channels(call, rate):
    """The call at another rate, and on a second channel reversed and quieter."""
    signal = helpers.resample(call, 8000, rate) + noise(len(call) * rate // 8000, level=1e-3)
    return np.stack([signal, 0.1 * signal[::-1]])


@pytest.mark.parametrize(("rate", "block"), [(8000, 7), (8000, 11), (11025, 8), (44100, 7), (44100, 19)])
def test_denoise_in_blocks_is_that_of_the_whole(call, shipped, monkeypatch, rate, block):
    noisy = two_channels(call, rate)[:, : -rate // 3]
    monkeypatch.setattr(helpers, "BLOCK", 1000)
    at_once = helpers.denoise(noisy, rate, shipped)
    assert decibel(at_once - noisy, noisy) > -20  # the network does something
    monkeypatch.setattr(helpers, "BLOCK", block)
    in_blocks = helpers.denoise(noisy, rate, shipped)
    assert decibel(in_blocks - at_once, at_once) < -60
    joins = np.arange(block - helpers.CONTEXT, 19, block) * rate
    for i in joins:  # nor is the worst place worse than that
        part = slice(i - rate // 100, i + rate // 100)
        assert decibel((in_blocks - at_once)[:, part], at_once) < -60


@pytest.mark.parametrize("rate", [8000, 44100])
def test_denoise_file_in_blocks_is_that_of_the_whole(call, shipped, tmp_path, monkeypatch, rate):
    noisy = two_channels(call, rate)
    at_once = helpers.denoise(noisy, rate, shipped)
    source = write(tmp_path / "a.wav", noisy, rate, subtype="FLOAT")
    monkeypatch.setattr(helpers, "BLOCK", 7)
    helpers.denoise_file(source, tmp_path / "b.wav", shipped)
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


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("ending", "subtype", "rate"), FORMATS)
def test_denoise_file_keeps_the_format(tmp_path, ending, subtype, rate, channels):
    if channels == 2 and subtype == "GSM610":
        pytest.skip("GSM 6.10 is mono")
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


def test_denoise_file_writes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "_target_format", lambda *_: ("RF64", "PCM_16"))
    source = write(tmp_path / "a.wav")
    helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)
    assert sf.info(tmp_path / "b.wav").format == "RF64"
    assert np.array_equal(sf.read(tmp_path / "b.wav")[0], sf.read(source)[0])


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
        (".wav", "PCM_16"),
        (".wav", "GSM610"),
        (".aiff", "PCM_16"),
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
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
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

    def fail(*_):
        raise error

    monkeypatch.setattr(helpers.sf.SoundFile, "write", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError) as caught:
        helpers.denoise_file(source, target, HEARS_NO_NOISE)
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
    with pytest.raises(OSError, match=r"a\.wav could not be written \(.*\): check the disk") as caught:
        helpers.denoise_file(source, small_disk / "a.wav", HEARS_NO_NOISE)
    assert "\n" not in str(caught.value)
    assert contents(small_disk) == {} and source.read_bytes() == before
    write(tmp_path / "calls/short.wav")
    table = helpers.denoise_folder(tmp_path / "calls", small_disk / "out", HEARS_NO_NOISE)
    assert table["status"].to_list() == ["failed", "done"]
    assert visible(small_disk) == ["out/short.wav"]


def test_denoise_file_attenuates_and_never_clips(tmp_path):
    signal = tone(440, level=2)
    source = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"b\.flac: attenuated by 6\.0 dB"):
        helpers.denoise_file(source, tmp_path / "b.flac", HEARS_NO_NOISE)
    assert helpers.si_sdr(signal, helpers.load_audio(tmp_path / "b.flac")) > 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / "b.wav", HEARS_NO_NOISE)


def run_python(code, *arguments, **options):
    """Run a program in another process, which finds helpers, and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=helpers.ROOT, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("model", "minutes"), [("identity", 60), ("shipped", 3)])
def test_long_recordings_take_no_more_memory(tmp_path, model, minutes):
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
    files = [write(tmp_path / f"{n}.wav", np.tile(minute, n)) for n in (1, minutes)]
    short, long = map(int, run_python(program, model, *files).split())
    assert long - short < 300  # MB
    assert sf.info(f"{files[1]}.flac").frames == minutes * 60 * 8000


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
    assert contents(target)["b.wav"] == contents(source)["b.wav"]


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
        process.kill()
    assert visible(target) == ["a.wav", "b.wav"]
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE)
    assert table["status"].to_list() == ["skipped", "skipped", "done", "done"]
    assert contents(source) == before
    assert {name: contents(target)[name] for name in visible(target)} == before


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


def test_denoise_folder_refuses_a_target_around_the_source(tmp_path):
    write(tmp_path / "calls/a.wav")
    write(tmp_path / "calls/calls/a.wav", noise(100))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="elsewhere"):
        helpers.denoise_folder(tmp_path / "calls", tmp_path, HEARS_NO_NOISE)  # would overwrite calls/a.wav
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


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
        os.kill(victim, SIGKILL)

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


# Export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The files of the shipped model for other runtimes, by their ending."""
    folder = tmp_path_factory.mktemp("exported")
    for ending in (".onnx", ".tflite"):
        helpers.export(helpers.MODEL, folder / f"unet{ending}")
    assert visible(folder) == ["unet.onnx", "unet.tflite"]
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def keras_noise(call):
    """What the shipped model in Keras takes for noise in 4 s of a call."""
    return predicted_noise(call, helpers.MODEL)


def predicted_noise(call, model):
    call = call[None, :32000]
    return helpers.predict_noise(call, helpers.signal_level(call), helpers.load_model(model))


def test_export_to_onnx_agrees(call, exported, keras_noise):
    assert decibel(predicted_noise(call, exported[".onnx"]) - keras_noise, keras_noise) < -60


def test_export_to_litert_agrees(call, exported, keras_noise):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported[".tflite"]))

    class LiteRT:
        def predict_on_batch(self, inputs):
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], inputs.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    assert decibel(predicted_noise(call, LiteRT()) - keras_noise, keras_noise) < -60


def test_shipped_models_agree(call, keras_noise):
    assert decibel(predicted_noise(call, helpers.RUNTIME_MODEL) - keras_noise, keras_noise) < -60


@pytest.mark.parametrize("threads", ["", "1", "2,1"])
def test_threads_of_the_runtime(fixed_model, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    session = helpers.OnnxModel(fixed_model).session
    assert session.get_session_options().intra_op_num_threads == int(threads[:1] or 0)


@pytest.mark.parametrize("name", ["unet.pb", "unet", "unet.keras"])
def test_export_refuses_other_endings(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} cannot be written: end its name in one of \.onnx, \.tflite"):
        helpers.export(helpers.MODEL, tmp_path / name)
    assert visible(tmp_path) == []


def test_export_needs_a_keras_model(tmp_path, fixed_model):
    with pytest.raises(ValueError, match=r"name a \.keras file"):
        helpers.export(fixed_model, tmp_path / "unet.onnx")
    assert visible(tmp_path) == []


# Measures and evaluation


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


@pytest.fixture(scope="module")
def speech():
    return helpers.load_audio(helpers.list_speech(SAMPLE)["path"][0], duration=4)


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


# Plots


@pytest.mark.parametrize(
    ("plot", "x_label", "y_label"),
    [
        (lambda ax: helpers.plot_waveform(noise(8064), "title", ax), "time (s)", "amplitude"),
        (lambda ax: helpers.plot_spectrogram(helpers.stft(noise(8064)), "title", ax), "time (s)", "frequency (Hz)"),
        (lambda ax: helpers.plot_phase(helpers.stft(noise(8064)), "title", ax), "time (s)", "frequency (Hz)"),
        (
            lambda ax: helpers.plot_history({"epoch": [0, 1], "loss": [2, 1], "val_loss": [3, 2]}, "title", ax),
            "epoch",
            "loss",
        ),
    ],
)
def test_plots(plot, x_label, y_label):
    import matplotlib.pyplot as plt

    for given_axes in (None, plt.subplots()[1]):
        ax = plot(given_axes)
        assert given_axes in (None, ax)
        assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("title", x_label, y_label)


def test_plots_tell_the_unit_of_colours():
    for plot, label in ((helpers.plot_spectrogram, "level (dB)"), (helpers.plot_phase, "phase (rad)")):
        bar = plot(helpers.stft(noise(8064))).figure.axes[1]
        assert label in (bar.get_ylabel(), bar.get_xlabel())


def test_plot_comparison_shares_one_scale():
    spectrograms = {name: helpers.stft(noise(8064, level=level)) for name, level in (("quiet", 0.001), ("loud", 1))}
    axes = helpers.plot_comparison(helpers.plot_spectrogram, spectrograms)
    assert [ax.get_title() for ax in axes] == ["quiet", "loud"]
    assert len({ax.collections[0].get_clim() for ax in axes}) == 1


def test_plot_scores():
    scores = {"pesq": np.nan, "stoi": 0.5, "estoi": 0.4, "si_sdr": 3.0}
    rows = [{"snr_db": snr, "signal": s, **scores} for snr in (-5, 0, 5) for s in ("noisy", "enhanced") for _ in "ab"]
    axes = helpers.plot_scores(pd.DataFrame(rows))
    assert [ax.get_ylabel() for ax in axes] == ["STOI (0 to 1)", "ESTOI (0 to 1)", "SI-SDR (dB)"]
    assert {ax.get_xlabel() for ax in axes} == {"SNR of the input (dB)"}


def test_show_saves_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    (tmp_path / "images").mkdir()
    helpers.show(helpers.plot_waveform(noise(8064)), "A second of noise.", "noise.png")
    assert (tmp_path / "images/noise.png").read_bytes()[:4] == b"\x89PNG"


# Command line


def run_main(*arguments):
    """Exit status of the command line."""
    try:
        return helpers.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def test_main_denoises_a_file(tmp_path, small_model, capsys):
    source, target = write(tmp_path / "a b.wav"), tmp_path / "out/b.flac"
    assert run_main("denoise", source, target, "--model", small_model) == 0
    assert sf.info(target).frames == 16000
    assert capsys.readouterr().err == ""


def test_main_mixes(tmp_path, fixed_model):
    source, target = write(tmp_path / "a.wav", subtype="FLOAT"), tmp_path / "b.wav"
    assert run_main("denoise", source, target, "--model", fixed_model, "--mix", 0.5) == 0
    assert decibel(sf.read(target)[0] - 0.75 * sf.read(source)[0], sf.read(source)[0]) < -60
    assert run_main("denoise", source, target, "--model", fixed_model, "--mix", 0) == 0
    assert np.array_equal(sf.read(target)[0], sf.read(source)[0])


def test_command_line_warns_in_single_lines(tmp_path, fixed_model):
    write(tmp_path / "a.wav", 4 * noise(2, 16000, level=1), 16000, subtype="FLOAT")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "a.wav", "b.flac", "--model", fixed_model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: above 4 kHz") and second.startswith("warning: b.flac: attenuated by")


def test_main_denoises_a_folder(tmp_path, fixed_model, capsys):
    write(tmp_path / "calls/a.wav")
    arguments = ("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model)
    assert run_main(*arguments) == 0
    assert capsys.readouterr() == ("1 done, 0 skipped, 0 failed\n", "")
    (tmp_path / "calls/bad.wav").write_text("This is no audio.\n")
    assert run_main(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == "0 done, 1 skipped, 1 failed\n"
    assert len([line for line in err.splitlines() if line.startswith("error:") and "bad.wav" in line]) == 1
    assert run_main(*arguments, "--overwrite") == 1
    assert capsys.readouterr().out == "1 done, 0 skipped, 1 failed\n"


def test_main_denoises_a_folder_on_a_cluster(tmp_path, client, fixed_model, capsys):
    for name in ("a.wav", "deep/b.wav", "cut.wav"):
        write(tmp_path / "calls" / name)
    os.truncate(tmp_path / "calls/cut.wav", 2000)
    (tmp_path / "calls/bad.wav").write_text("This is no audio.\n")
    arguments = ("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model)
    assert run_main(*arguments, "--scheduler", client.scheduler.address) == 1
    out, err = capsys.readouterr()
    assert out == "3 done, 0 skipped, 1 failed\n"
    assert [line for line in err.splitlines() if line.startswith("error:") and "bad.wav" in line]
    assert [line for line in err.splitlines() if line.startswith("warning:") and "cut.wav" in line]
    assert visible(tmp_path / "out") == ["a.wav", "cut.wav", "deep/b.wav"]


def test_main_denoises_a_folder_by_two_processes(tmp_path, fixed_model):
    for name in "abc":
        write(tmp_path / f"calls/{name}.wav")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "calls", "out", "--model", fixed_model]
    done = subprocess.run([*command, "--processes", "2"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 done, 0 skipped, 0 failed\n"), done.stderr
    assert visible(tmp_path / "out") == ["a.wav", "b.wav", "c.wav"]


def test_main_exports(tmp_path, small_model, monkeypatch):
    exported = []
    monkeypatch.setattr(helpers, "export", lambda model, target: exported.append((model, target)))
    assert run_main("export", small_model, tmp_path / "unet.tflite") == 0
    assert exported == [(small_model, tmp_path / "unet.tflite")]


def test_main_evaluates(tmp_path, speech, small_model, capsys):
    write(tmp_path / "clean/a.wav", speech)
    write(tmp_path / "noisy/a.wav", helpers.blend(speech, noise(len(speech)), 5)[1])
    arguments = ("evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy", "--csv", tmp_path / "a.csv")
    assert run_main(*arguments, "--model", small_model) == 0
    assert "si_sdr" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "a.csv")["signal"].to_list() == ["noisy", "enhanced"]


def test_main_trains(small_training, small_model, tmp_path):
    options = ("--epochs", 1, "--steps-per-epoch", 1, "--corpus", SAMPLE, "--start", small_model)
    assert run_main("train", "--output", tmp_path / "unet.keras", *options) == 0
    assert set(contents(tmp_path)) == {"unet.keras", "unet.json", "unet.onnx"}
    assert json.loads((tmp_path / "unet.json").read_text())["start"] == {"file": "small.keras"}


def test_train_adds_up_the_hours(small_training, small_unet, tmp_path):
    small_unet().save(tmp_path / "first.keras")
    (tmp_path / "first.json").write_text(json.dumps({"hours_of_audio_in_all": 7.5, "history": {"epoch": [0]}}))
    small_training(tmp_path / "second.keras", SAMPLE, epochs=1, start=tmp_path / "first.keras")
    card = json.loads((tmp_path / "second.json").read_text())
    assert card["start"] == {"file": "first.keras", "hours_of_audio_in_all": 7.5}
    assert card["hours_of_audio_in_all"] == pytest.approx(7.5 + card["hours_of_audio"], abs=0.01)


@pytest.mark.parametrize("start, reason", [("other.keras", "of these widths"), ("small.onnx", ".keras file")])
def test_train_refuses_an_unfit_start_before_it_writes(small_training, tmp_path, start, reason):
    helpers.unet(widths=(6,)).save(tmp_path / "other.keras")
    (tmp_path / "small.onnx").touch()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=reason):
        small_training(tmp_path / "unet.keras", SAMPLE, start=tmp_path / start)
    assert contents(tmp_path) == before


def single_error(err):
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n") and "Errno" not in err
    return err


def test_main_refuses_a_bad_file(bad_file, fixed_model, capsys):
    before = contents(bad_file.parent)
    assert run_main("denoise", bad_file, bad_file.with_name("out.wav"), "--model", fixed_model) == 2
    expected = "no sound files in" if bad_file.is_dir() else bad_file.name
    assert expected in single_error(capsys.readouterr().err)
    assert contents(bad_file.parent) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoise", "a.wav", "b.wav", "--loud"], "--loud"),
        (["denoise", "a.wav"], "target"),
        (["enhance"], "enhance"),
        ([], "COMMAND"),
        (["denoise", "a.wav", "b.wav", "--model", "missing.keras"], "missing.keras"),
        (["denoise", "a.wav", "b.wav", "--model", "a.wav"], "a.wav is not a model"),
        (["denoise", "calls", "out", "--model", "missing.keras"], "missing.keras"),
        (["denoise", "a.wav", "b.doc"], "b.doc"),
        (["denoise", "a.wav", "a.wav"], "a.wav is the recording itself"),
        (["denoise", "a.wav", "calls"], "calls is a folder: name a file in it"),
        (["denoise", "a.wav", "b.wav", "--mix", "1.5"], "a mix of 1.5 is not possible"),
        (["denoise", "calls", "out", "--mix", "-1"], "a mix of -1.0 is not possible"),
        (["denoise", "calls", "calls/out"], "name a target folder elsewhere"),
        (["denoise", "empty", "out"], "empty: they should end in one of .wav"),
        (["export", "missing.keras", "unet.onnx"], "missing.keras"),
        (["export", "a.wav", "unet.doc"], "unet.doc cannot be written"),
        (["evaluate", "--clean", "calls", "--noisy", "empty"], "no sound files in empty"),
        (["evaluate", "--clean", "empty", "--noisy", "calls"], "a.wav does not exist"),
        (["evaluate", "--clean", "calls", "--noisy", "calls", "--model", "missing.keras"], "missing.keras"),
        (["train", "--corpus", "empty"], "no speech in empty"),
        (["train", "--corpus", "only speech"], "no noise in only speech"),
        (["train", "--corpus", "corpus", "--output", "unet"], "keras"),
        (["train", "--corpus", "corpus", "--epochs", "many"], "many"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--epochs", "0"], "epochs"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--steps-per-epoch", "-1"], "steps"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--start", "missing.keras"], "missing.keras"),
    ],
)
def test_main_errors(arguments, message, corpus, no_training, monkeypatch, capsys):
    folder = corpus.parent
    monkeypatch.chdir(folder)
    write(folder / "a.wav")
    write(folder / "calls/a.wav")
    (folder / "empty").mkdir()
    shutil.copytree(corpus / "LibriSpeech", folder / "only speech/LibriSpeech")
    before = contents(folder)
    assert run_main(*arguments) == 2
    assert message in single_error(capsys.readouterr().err)
    assert contents(folder) == before


def test_newlines_in_names_stay_in_one_line(tmp_path, fixed_model, capsys):
    for name in ("a\nb.wav", "calls/a\nb.wav"):
        write(tmp_path / name).write_text("This is no audio.\n")
    assert run_main("denoise", tmp_path / "a\nb.wav", tmp_path / "b.wav", "--model", fixed_model) == 2
    single_error(capsys.readouterr().err)
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("b.wav")] == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["denoise", "missing.wav", "b.wav"], 2), (["--help"], 0), (["denoise", "a.wav", "b.wav"], 0)],
)
def test_command_line_from_another_folder(tmp_path, fixed_model, arguments, status):
    write(tmp_path / "a.wav")
    command = [sys.executable, helpers.ROOT / "helpers.py", *arguments]
    if "a.wav" in arguments:
        command += ["--model", fixed_model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    if status == 2:
        assert single_error(done.stderr) == "error: missing.wav does not exist: check the path\n"
    else:
        assert done.stderr == ""
    assert (tmp_path / "b.wav").exists() == ("a.wav" in arguments)
