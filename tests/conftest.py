"""What more than one of the test files uses."""

import functools
import os
import signal
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import settings
from hypothesis import strategies as st

import helpers

matplotlib.use("Agg")
settings.register_profile("reproducible", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("reproducible")
os.environ.pop("SPEECH_CORPUS", None)


@pytest.fixture(autouse=True)
def clean_state(monkeypatch):
    """No test sees the user's corpus, and none leaves figures or what the command line sets for its process behind."""
    monkeypatch.delenv("SPEECH_CORPUS", raising=False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    handlers = {number: signal.getsignal(number) for number in helpers.STOPS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def locked(monkeypatch):
    """No folder that is named "locked" can be listed, not even by root."""
    scandir = os.scandir

    def refused(folder):
        if os.path.basename(folder) == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)


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


def piped(path, signal, **options):
    """Write a FLAC file whose header does not state its number of samples, as what comes through a pipe."""
    content = bytearray(write(path, signal, **options).read_bytes())
    content[21] &= 0xF0  # the number has 36 bits
    content[22:26] = bytes(4)
    path.write_bytes(content)
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


@pytest.fixture
def calls(tmp_path):
    """A folder of recordings, with a.wav in it."""
    return write(tmp_path / "calls/a.wav").parent


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
def call():
    """20 s of a noisy call at 8 kHz: speech and noise of the sample."""
    files = helpers.list_speech(SAMPLE)
    speech = np.concatenate([helpers.load_audio(path) for path in files[files["split"] == "test"]["path"]])[:160000]
    other = np.concatenate([helpers.load_audio(path) for path in helpers.list_noise(SAMPLE)["path"][:40:4]])
    return helpers.blend(speech, np.resize(other, speech.shape), 5)[1]


@pytest.fixture(scope="session")
def small_unet():
    return functools.partial(helpers.unet, widths=(4,), n_blocks=(0,))


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


def run_python(code, *arguments, **options):
    """Run a program in another process, which finds helpers, and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=helpers.ROOT, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(folder, *arguments, stderr=subprocess.PIPE, env=None):
    """Run the command line as users do, in a folder and in a process of its own."""
    command = [sys.executable, helpers.ROOT / "helpers.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def speech():
    return helpers.load_audio(helpers.list_speech(SAMPLE)["path"][0], duration=4)
