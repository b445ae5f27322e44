"""Unit and property tests of helpers.py, in its order. They need no network and no trained model."""

import functools
import hashlib
import http.server
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import example, given
from hypothesis import strategies as st

import helpers

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
    (".wav", "PCM_16", 8000),
    (".wav", "PCM_24", 44100),
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
    (".au", "ULAW", 8000),
]


def write_format(path, subtype, rate, channels=1):
    signal = np.stack([tone(440 * (1 + i), rate * 2, rate, level=0.3) for i in range(channels)])
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
    assert network.count_params() < 2_500_000


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


@pytest.fixture
def small_training(monkeypatch, small_unet):
    """Cuts a training down to seconds: a small U-Net, short blends in small batches, two blends for the card."""
    monkeypatch.setattr(helpers, "unet", small_unet)
    monkeypatch.setattr(helpers.BlendedSpeech.__init__, "__defaults__", (2, 16, 0))
    monkeypatch.setattr(helpers, "held_out_blends", functools.partial(helpers.held_out_blends, n=2))
    return functools.partial(helpers.train, epochs=2, steps_per_epoch=2)


@pytest.fixture
def no_training(small_training, monkeypatch):
    import keras

    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("training begins"))
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
        "resumed.json",
        "resumed.keras",
    ]
    card = json.loads(output.with_suffix(".json").read_text())
    assert set(card) >= {"command", "epochs", "steps_per_epoch", "batch_size", "learning_rate", "seed", "parameters"}
    assert set(card) >= {"hours_of_audio", "minutes_of_training", "corpus_minutes", "test_scores", "versions"}
    assert card["history"]["epoch"] == [0, 1]
    assert set(card["test_scores"]) == {"noisy", "enhanced"}
    assert set(card["corpus_minutes"]) >= {"LibriSpeech", "ESC-50"}


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


# Denoising


@given(LENGTHS, st.sampled_from([(), (1,), (3,)]), st.integers(4000, 48000), st.sampled_from([1e-4, 0.1, 1.0, 30.0]))
@example(1, (), 48000, 1.0)
def test_denoise_is_an_identity_without_noise(n_samples, stack, rate, level):
    noisy = noise(*stack, n_samples, level=level)
    enhanced = helpers.denoise(noisy, rate, HEARS_NO_NOISE)
    assert enhanced.shape == noisy.shape and enhanced.dtype == np.float32
    assert decibel(enhanced - noisy + 1e-30, noisy) < -60


@given(LENGTHS, st.sampled_from([(), (2,)]), st.sampled_from([1e-4, 0.1, 30.0]))
def test_predicted_noise_is_aligned(n_samples, stack, level):
    noisy = noise(*stack, n_samples, level=level)
    assert decibel(helpers.denoise(noisy, model=HEARS_ONLY_NOISE) + 1e-30, noisy) < -60


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100, 48000])
def test_predicted_noise_is_aligned_at_other_rates(rate):
    noisy = tone(700, rate, rate)
    enhanced = helpers.denoise(noisy, rate, HEARS_ONLY_NOISE)
    assert decibel(enhanced[rate // 10 : -rate // 10], noisy) < -60


def test_denoise_passes_what_lies_above_4_khz():
    noisy = tone(9000, 44100, 44100)
    enhanced = helpers.denoise(noisy, 44100, HEARS_ONLY_NOISE)
    assert decibel((enhanced - noisy)[1000:-1000], noisy) < -60


@pytest.mark.parametrize("rate", [8000, 16000])
def test_denoise_in_blocks_has_no_joins(network, monkeypatch, rate):
    noisy = noise(2, 10 * rate + 17)
    at_once = helpers.denoise(noisy, rate, network)
    assert decibel(at_once - noisy, noisy) > -60  # the network does something
    monkeypatch.setattr(helpers, "BLOCK_FRAMES", 256)
    assert decibel(helpers.denoise(noisy, rate, network) - at_once, at_once) < -60


def test_denoise_keeps_the_level(network):
    noisy = noise(8064)
    loud = helpers.denoise(noisy, model=network)
    for gain in (0.01, 100):
        assert decibel(helpers.denoise(gain * noisy, model=network) / gain - loud, loud) < -60


@pytest.mark.parametrize(
    "level",
    [0, 1e-42, 1e-38, 1e-20, 1e20],
)
def test_denoise_of_odd_levels_is_finite(network, level):
    enhanced = helpers.denoise(tone(440, level=level), model=network)
    assert np.isfinite(enhanced).all()
    if level == 0:
        assert not enhanced.any()


@pytest.mark.parametrize(
    ("noisy", "message"),
    [
        (np.array([0, np.nan, np.inf]), "2 samples are NaN or infinite"),
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


@pytest.mark.parametrize(
    ("ending", "subtype", "rate", "new_ending"),
    [
        (".wav", "PCM_24", 44100, ".mp3"),
        (".wav", "ULAW", 8000, ".flac"),
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


def test_denoise_file_cannot_write_this_rate(tmp_path):
    source = write_format(tmp_path / "a.wav", "PCM_16", 22050)
    with pytest.raises(OSError, match=r"b\.opus could not be written"):
        helpers.denoise_file(source, tmp_path / "b.opus", HEARS_NO_NOISE)
    assert list(contents(tmp_path)) == ["a.wav"]


def test_denoise_file_refuses_its_source_as_target(tmp_path):
    source = write(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(source)
    (tmp_path / "hard.wav").hardlink_to(source)
    before = contents(tmp_path)
    for name in ("a.wav", "link.wav", "hard.wav", "../" + tmp_path.name + "/a.wav"):
        with pytest.raises(ValueError, match="name another target"):
            helpers.denoise_file(source, tmp_path / name, HEARS_NO_NOISE)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["b.xyz", "b", ".wav", "b.m4a"])
def test_denoise_file_refuses_unknown_endings(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} cannot be written.*\.flac"):
        helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / name, HEARS_NO_NOISE)
    assert list(contents(tmp_path)) == ["a.wav"]


def test_denoise_file_of_a_bad_file(bad_file, tmp_path):
    before = contents(tmp_path)
    with pytest.raises(ValueError if bad_file.exists() else FileNotFoundError, match=bad_file.name):
        helpers.denoise_file(bad_file, tmp_path / "out" / "b.wav", HEARS_NO_NOISE)
    assert contents(tmp_path) == before


def test_denoise_file_that_is_missing_onto_one_that_exists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.wav does not exist: check the path"):
        helpers.denoise_file(tmp_path / "missing.wav", write(tmp_path / "b.wav"), HEARS_NO_NOISE)


def test_denoise_file_of_nan(tmp_path):
    source = write(tmp_path / "a.wav", np.full(100, np.nan), subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav.*100 samples are NaN"):
        helpers.denoise_file(source, tmp_path / "b.wav", HEARS_NO_NOISE)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sf.LibsndfileError(2), KeyboardInterrupt()])
def test_denoise_file_leaves_nothing_half_written(tmp_path, monkeypatch, error):
    source, target = write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    before = contents(tmp_path)

    def fail(path, *_, **__):
        path.write_bytes(b"RIFF")
        raise error

    monkeypatch.setattr(helpers.sf, "write", fail)
    with pytest.raises((OSError, KeyboardInterrupt)):
        helpers.denoise_file(source, target, HEARS_NO_NOISE)
    assert contents(tmp_path) == before


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


def test_denoise_folder(tmp_path):
    source, target = tmp_path / "calls", tmp_path / "enhanced"
    for name in ("a.wav", "deep/er/b.flac", "deep/c d.ogg"):
        write(source / name, rate=16000)
    (source / "deep/bad.wav").write_text("This is no audio.\n")
    (source / "notes.txt").write_text("These are no calls.\n")
    before = contents(source)
    table = helpers.denoise_folder(source, target, HEARS_NO_NOISE).set_index("path")["error"]
    assert contents(source) == before
    assert set(contents(target)) == {"a.wav", "deep/er/b.flac", "deep/c d.ogg"}
    assert len(table) == 4 and (table != "").sum() == 1
    assert "bad.wav" in table[source / "deep/bad.wav"]


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


def test_main_denoises_a_folder(tmp_path, small_model, capsys):
    write(tmp_path / "calls/a.wav")
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", small_model) == 0
    assert "1 files denoised, 0 failed" in capsys.readouterr().out
    (tmp_path / "calls/bad.wav").write_text("This is no audio.\n")
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", small_model) == 1
    out, err = capsys.readouterr()
    assert "1 files denoised, 1 failed" in out
    assert len([line for line in err.splitlines() if line.startswith("error:") and "bad.wav" in line]) == 1


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
    assert set(contents(tmp_path)) == {"unet.keras", "unet.json"}
    assert json.loads((tmp_path / "unet.json").read_text())["start"] == "small.keras"


def single_error(err):
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n") and "Errno" not in err
    return err


def test_main_refuses_a_bad_file(bad_file, small_model, capsys):
    before = contents(bad_file.parent)
    assert run_main("denoise", bad_file, bad_file.with_name("out.wav"), "--model", small_model) == 2
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
        (["denoise", "a.wav", "b.wav", "--model", "a.wav"], "a.wav is not a Keras model"),
        (["denoise", "calls", "out", "--model", "missing.keras"], "missing.keras"),
        (["denoise", "a.wav", "b.doc"], "b.doc"),
        (["denoise", "a.wav", "a.wav"], "a.wav is the recording itself"),
        (["denoise", "empty", "out"], "no sound files in empty"),
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


def test_newlines_in_names_stay_in_one_line(tmp_path, small_model, capsys):
    for name in ("a\nb.wav", "calls/a\nb.wav"):
        write(tmp_path / name).write_text("This is no audio.\n")
    assert run_main("denoise", tmp_path / "a\nb.wav", tmp_path / "b.wav", "--model", small_model) == 2
    single_error(capsys.readouterr().err)
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", small_model) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("b.wav")] == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["denoise", "missing.wav", "b.wav"], 2), (["--help"], 0), (["denoise", "a.wav", "b.wav"], 0)],
)
def test_command_line_from_another_folder(tmp_path, small_model, arguments, status):
    write(tmp_path / "a.wav")
    command = [sys.executable, helpers.ROOT / "helpers.py", *arguments]
    if "a.wav" in arguments:
        command += ["--model", small_model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    if status == 2:
        assert single_error(done.stderr) == "error: missing.wav does not exist: check the path\n"
    else:
        assert done.stderr == ""
    assert (tmp_path / "b.wav").exists() == ("a.wav" in arguments)
