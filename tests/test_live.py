"""Tests of denoising a recording while it is made."""

import base64
import io
import itertools
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from conftest import Fixed, decibel, noise, tone
from hypothesis import example, given
from hypothesis import strategies as st

import helpers


class Changing:
    """Takes all or nothing for noise, in turn: what a network does that changes its mind at each join."""

    def __init__(self):
        self.shares = itertools.cycle(np.float32([0, 1]))

    def predict_on_batch(self, inputs):
        return next(self.shares) * inputs


def streamed(noisy, sizes=(160,), rate=8000, latency=0.5, model=None, mix=1.0):
    """What the stream makes of a recording that comes in chunks of these sizes, in turn."""
    ends = np.cumsum(np.resize(sizes, noisy.shape[-1] // min(sizes) + 1))
    chunks = np.split(noisy, ends[ends < noisy.shape[-1]], axis=-1)
    return np.concatenate(list(helpers.denoise_stream(chunks, rate, latency, model or Fixed(0.5), mix)), axis=-1)


@given(
    st.sampled_from([(), (1,), (3,)]),
    st.integers(1, 20_000),
    st.sampled_from([4000, 8000, 8001, 11025, 16000, 44100]),
    st.floats(0.032, 3),
    st.lists(st.integers(1, 9000), min_size=1, max_size=5),
)
@example((), 3000, 8000, 0.032, [1])
@example((2,), 20_000, 8000, 100.0, [160])
def test_no_sample_is_lost_or_late(shape, n_samples, rate, latency, sizes):
    noisy = noise(*shape, n_samples)
    came, went = 0, []

    def chunks():
        nonlocal came
        for size in itertools.cycle(sizes):
            if came >= n_samples:
                return
            assert sum(piece.shape[-1] for piece in went) >= came - latency * rate
            chunk = noisy[..., came : came + size]
            came += chunk.shape[-1]
            yield chunk

    for piece in helpers.denoise_stream(chunks(), rate, latency, Fixed(0.5)):
        assert piece.dtype == np.float32 and piece.shape[:-1] == shape
        went.append(piece)
    enhanced = np.concatenate(went, axis=-1)
    assert enhanced.shape == noisy.shape
    at_once = streamed(noisy, [n_samples], rate, latency)
    assert np.array_equal(enhanced, at_once)  # the sizes of the chunks change nothing


@pytest.mark.parametrize("rate", [4000, 8000, 8001, 11025, 16000, 44100])
@pytest.mark.parametrize("latency", [0.05, 0.25, 1])
def test_stream_is_aligned(rate, latency):
    noisy = tone(700, 3 * rate, rate)
    assert decibel(streamed(noisy, rate=rate, latency=latency, model=Fixed(0)) - noisy + 1e-30, noisy) < -60
    left = streamed(noisy, rate=rate, latency=latency, model=Fixed(1))
    assert decibel(left[rate // 10 : -rate // 10], noisy) < (-60 if rate == 8000 or latency > 0.05 else -30)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_with_a_large_latency_it_is_denoise(call, fixed_model, rate):
    noisy = np.stack([signal := helpers.resample(call, 8000, rate), 0.1 * signal[::-1]])
    expected = helpers.denoise(noisy, rate, fixed_model, mix=0.8)
    enhanced = streamed(noisy, rate=rate, latency=30, model=fixed_model, mix=0.8)
    assert decibel(enhanced - expected + 1e-30, expected) < -60


def test_no_click_is_at_a_join():
    noisy = tone(187, 16000)
    enhanced = streamed(noisy, latency=0.1, model=Changing())
    assert 0.01 < np.mean(enhanced**2) < 0.1  # parts of it are removed
    # A jump in the middle of the tone would be as large as it is.
    assert np.abs(np.diff(enhanced)).max() < 1.5 * np.abs(np.diff(noisy)).max()


def test_level_is_that_of_the_last_second_and_falls_slowly(monkeypatch):
    levels = []
    monkeypatch.setattr(helpers, "predict_noise", lambda noisy, level, *_: levels.append(level[0]) or 0 * noisy)
    noisy = noise(32000)
    noisy[16000:] /= 1000
    streamed(noisy, latency=0.2)
    heard = range(1600, 32001, 800)  # half of the latency is the step, the other half look-ahead
    same = [level for n, level in zip(heard, levels, strict=False) if n <= 16000]
    assert same == pytest.approx([np.std(noisy[max(0, n - 9600) : n]) for n in heard if n <= 16000], rel=0.02)
    fall_db = 20 * np.log10(levels[heard.index(32000)] / levels[heard.index(25600)])
    assert fall_db == pytest.approx(-helpers.RELEASE * 0.8, abs=0.01)


def test_an_hour(monkeypatch):
    """Neither memory nor work grows with the length of the call."""
    sizes = []

    def removed(block, *_):
        sizes.append(block.shape[-1])
        return np.zeros_like(block)

    monkeypatch.setattr(helpers, "_removed", removed)
    second, length = noise(1, 8000), 0
    chunks = itertools.repeat(second, 3600)
    tracemalloc.start()
    for piece in helpers.denoise_stream(chunks, 8000, 2.0, Fixed(0)):
        length += piece.shape[-1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length == 3600 * 8000
    assert len(sizes) == pytest.approx(3600, abs=2) and max(sizes) <= 3 * 8000
    assert peak < 10e6


def test_sender_may_use_its_memory_again():
    noisy, memory = noise(8000), np.empty(160, np.float32)

    def chunks():
        for start in range(0, 8000, 160):
            memory[:] = noisy[start : start + 160]
            yield memory

    enhanced = np.concatenate(list(helpers.denoise_stream(chunks(), 8000, model=Fixed(0))))
    assert np.array_equal(enhanced, noisy)


def test_stream_of_integers():
    samples = np.int16(32767 * noise(8000))
    enhanced = np.concatenate(list(helpers.denoise_stream([samples], 8000, model=Fixed(0))))
    assert np.array_equal(enhanced, samples / np.float32(32768))


class Breaks:
    def __iter__(self):
        raise ConnectionError("the line is dead")


BAD = [
    ([np.zeros((2, 100))], r"a chunk has the shape \(2, 100\): expected \('samples',\)"),
    ([np.float32(0)], r"a chunk has the shape \(\)"),
    ([np.zeros((160, 2))], r"a chunk has the shape \(160, 2\): expected"),
    ([np.zeros((0, 100))], r"a chunk has the shape \(0, 100\)"),
    ([np.zeros((1, 1, 1))], r"a chunk has the shape \(1, 1, 1\)"),
    ([np.float32([np.nan, 0])], "NaN or infinite"),
    (["text"], "could not convert string"),
    (Breaks(), "the line is dead"),
]


@pytest.mark.parametrize(
    ("n_before", "bad", "message"),
    [(5000, *row) for row in BAD] + [(0, *row) for row in BAD[1:]],  # the first chunk may have two channels
)
def test_what_came_before_bad_input_is_yielded(n_before, bad, message):
    before = [noise(n_before)] if n_before else []
    length = 0
    with pytest.raises((ValueError, ConnectionError), match=message):
        for piece in helpers.denoise_stream(itertools.chain(before, bad), 8000, model=Fixed(0.5)):
            length += len(piece)
    assert length == n_before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_before_a_bad_one_of_the_same_chunk_are_yielded(bad):
    chunk = noise(4000).reshape(2, 2000)
    chunk[1, 1500] = bad
    length = 0
    with pytest.raises(ValueError, match="NaN or infinite"):
        for piece in helpers.denoise_stream([chunk], 8000, model=Fixed(0.5)):
            length += piece.shape[-1]
    assert length == 1500


@pytest.mark.parametrize("chunks", [[], [np.zeros(0)], [np.zeros((2, 0))] * 3])
def test_stream_that_never_sends_anything(chunks):
    with pytest.raises(ValueError, match="there is no audio in it"):
        list(helpers.denoise_stream(chunks, 8000, model=Fixed(0.5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": 0.03}, "a latency of 0.03 s is not possible"),
        ({"latency": np.nan}, "a latency of nan s"),
        ({"latency": np.inf}, "a latency of inf s"),
        ({"mix": 2}, "a mix of 2"),
        ({"sample_rate": 8000.5}, "resample"),
        ({"sample_rate": 10}, "10 Hz"),
    ],
)
def test_stream_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        list(helpers.denoise_stream([noise(100)], **{"sample_rate": 8000, "model": Fixed(0.5), **options}))


# From other programs


def piped(data, **options):
    target = io.BytesIO()
    helpers.denoise_pipe(io.BytesIO(data), target, model=Fixed(0.5), **options)
    return target.getvalue()


def wav(signal, subtype="PCM_16", rate=8000, stated=None, tail=b""):
    """A WAV file of a signal whose header states another number of bytes."""
    file = io.BytesIO()
    sf.write(file, signal.T, rate, subtype, format="WAV")
    data = file.getvalue()
    if stated is not None:
        start = data.index(b"data") + 4
        data = data[:start] + struct.pack("<I", stated) + data[start + 4 :]
    return data + tail


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize(("shape", "rate"), [((20_000,), 8000), ((2, 20_000), 16000)])
def test_wav_stream_keeps_the_format(subtype, shape, rate):
    noisy = noise(*shape)
    enhanced = piped(wav(noisy, subtype, rate))
    assert enhanced[4:8] == b"\xff" * 4  # of unknown length
    file = sf.SoundFile(io.BytesIO(enhanced))
    assert (file.subtype, file.samplerate) == (subtype, rate)
    signal = file.read(shape[-1] + 1, dtype="float32").T
    assert signal.shape == shape
    assert decibel(signal - noisy / 2, noisy) < (-20 if subtype == "PCM_U8" else -30)


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_wav_stream_of_unknown_length(stated):
    noisy = noise(20_000)
    assert piped(wav(noisy, stated=stated)) == piped(wav(noisy))


def test_stream_in_rf64():
    noisy, ds64 = wav(noise(20_000)), b"ds64" + struct.pack("<IQQQI", 28, 2**64 - 1, 2**64 - 1, 0, 0)
    expected, enhanced = piped(noisy), piped(b"RF64" + noisy[4:12] + ds64 + noisy[12:])
    assert enhanced == expected[:12] + ds64 + expected[12:]
    assert len(sf.SoundFile(io.BytesIO(enhanced)).read(30_000)) == 20_000


def test_what_follows_the_samples_of_a_wav_stream_is_no_sound():
    noisy = noise(20_000)
    assert piped(wav(noisy, tail=b"LIST\x04\0\0\0INFO")) == piped(wav(noisy))


@pytest.mark.parametrize("mix", [0, 0.5, 1])
@pytest.mark.parametrize("raw", ["ulaw", "alaw", "slin"])
def test_stream_without_a_header(raw, mix):
    noisy = helpers.encode(noise(20_000), raw)
    enhanced = piped(noisy, raw=raw, rate=16000, latency=0.25, mix=mix)
    assert len(enhanced) == len(noisy)
    left = helpers.decode(enhanced, raw) - (1 - mix / 2) * helpers.decode(noisy, raw)
    assert decibel(left[:, 200:-200] + 1e-30, helpers.decode(noisy, raw)) < -25


@pytest.mark.parametrize(("told", "rate"), [(None, 8000), (16000, 16000)])
def test_rate_of_a_stream_without_a_header_is_what_is_told(told, rate, monkeypatch):
    rates = []
    monkeypatch.setattr(helpers, "denoise_stream", lambda chunks, rate, *_: rates.append(rate) or chunks)
    piped(bytes(100), raw="ulaw", rate=told)
    assert rates == [rate]


def test_loud_streams_are_clipped():
    loud = 3 * tone(440)
    assert np.abs(helpers.decode(helpers.encode(loud))).max() <= 1
    assert np.sign(helpers.decode(helpers.encode(loud)))[0, 100:] == pytest.approx(np.sign(loud)[100:], abs=1)


def test_writer_stops_within_a_sample():
    data = wav(noise(2, 8000))
    with pytest.warns(UserWarning, match="ends within a sample: its last 3 bytes are left out"):
        enhanced = piped(data[:-1])
    assert len(enhanced) == len(data) - 4


def test_stream_that_ends_before_its_stated_end_is_told():
    data = wav(noise(24_000))
    with pytest.warns(UserWarning, match=r"ends 32000 bytes \(2\.0 s\) before the end that its header states"):
        enhanced = piped(data[:-32_000])
    assert len(enhanced) == len(data) - 32_000


PADDED = wav(noise(1000), "PCM_24").replace(struct.pack("<HH", 3, 24), struct.pack("<HH", 4, 24))


COMMENT = b"INFOICMT" + struct.pack("<I", 24) + b"fmt of the tape: 7 \xff\xff\xff\xff\xff"


@pytest.mark.parametrize(("name", "content"), [(b"LIST", COMMENT), (b"note", b"abc")])
def test_stream_with_something_before_its_format(name, content):
    data, chunk = wav(noise(1000)), name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    assert len(piped(data[:12] + chunk + data[12:])) == len(data) + len(chunk)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, "it is no WAV.*--raw"),
        (b"This is no audio.\n" * 10, {}, "it is no WAV.*--raw"),
        (wav(noise(100))[:30], {}, "ends within its header"),
        (wav(noise(100))[:12] + b"JUNK\xff\xff\xff\x7f", {}, "longer than that of any recorder"),
        (wav(noise(100))[:44], {}, "there is no audio"),
        (PADDED, {}, "its samples are padded from 3 to 4 bytes: send PCM_24"),
        (wav(noise(100)).replace(b"fmt ", b"none"), {}, "its sample format can't be read"),
        (wav(noise(100)).replace(struct.pack("<I", 8000), bytes(4)), {}, "states a rate that no recording has"),
        (b"", {"raw": "slin"}, "there is no audio"),
        (bytes(1000), {"raw": "vox"}, "vox can't be denoised: send it as ulaw, alaw, slin"),
        (bytes(1000), {"raw": "mp3"}, "mp3 can't be denoised: send it as PCM_U8"),
        (wav(noise(1000), "GSM610"), {}, "GSM610 can't be denoised"),
        (wav(noise(1000)), {"latency": 0}, "a latency of 0 s"),
    ],
)
def test_bad_streams_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        piped(data, **options)


def test_media_messages_of_telephone_providers():
    """20 ms of u-law in base64, in and out."""
    noisy = helpers.encode(noise(8000))
    messages = [{"payload": base64.b64encode(noisy[i : i + 160]).decode()} for i in range(0, len(noisy), 160)]
    chunks = (helpers.decode(base64.b64decode(message["payload"]), "ulaw") for message in messages)
    pieces = helpers.denoise_stream(chunks, 8000, latency=0.25, model=Fixed(0))
    sent = [{"payload": base64.b64encode(helpers.encode(piece, "ulaw")).decode()} for piece in pieces]
    received = b"".join(base64.b64decode(message["payload"]) for message in sent)
    assert np.array_equal(helpers.decode(received), helpers.decode(noisy))


@pytest.fixture
def command(fixed_model):
    return [sys.executable, str(helpers.ROOT / "helpers.py"), "denoise", "-", "-", "--model", str(fixed_model)]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
@pytest.mark.parametrize("rate", [8000, 44100])
def test_between_two_ffmpeg(tmp_path, command, rate):
    noisy = noise(2, 3 * rate)
    sf.write(tmp_path / "call.wav", noisy.T, rate)
    ffmpeg = ["ffmpeg", "-loglevel", "error"]
    with (
        subprocess.Popen([*ffmpeg, "-i", tmp_path / "call.wav", "-f", "wav", "-"], stdout=subprocess.PIPE) as first,
        subprocess.Popen(command, stdin=first.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as middle,
        subprocess.Popen([*ffmpeg, "-i", "-", tmp_path / "out.wav"], stdin=middle.stdout) as last,
    ):
        assert middle.stderr.read() == b""
    assert (first.returncode, middle.returncode, last.returncode) == (0, 0, 0)
    enhanced, new_rate = sf.read(tmp_path / "out.wav", dtype="float32")
    assert new_rate == rate and enhanced.T.shape == noisy.shape
    assert decibel(enhanced.T - noisy / 2, noisy) < -30


def test_writer_in_real_time(command):
    """20 ms of u-law at a time: what comes out lags behind by no more than the latency, and the time to compute it."""
    came, waits = [], []
    options = ["--raw", "ulaw", "--rate", "8000", "--latency", "0.1"]
    with subprocess.Popen(command + options, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def write():
            for _ in range(100):
                process.stdin.write(bytes(range(160)))
                process.stdin.flush()
                came.append(time.monotonic())
                time.sleep(0.02)
            process.stdin.close()

        writer = threading.Thread(target=write)
        writer.start()
        went = 0
        while data := process.stdout.read1():
            went += len(data)
            waits.append(time.monotonic() - came[(went - 1) // 160])
        writer.join()
    assert process.returncode == 0 and went == 16000
    assert len(waits) > 10  # as it goes, not at the end
    assert np.median(waits) < 1  # Python's start keeps only the first ones waiting


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process at once")
@pytest.mark.parametrize("number", helpers.STOPS)
def test_interrupted_stream_loses_nothing_that_came(command, number):
    options = ["--raw", "ulaw", "--rate", "8000"]
    with subprocess.Popen(
        command + options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(bytes(8000))
        process.stdin.flush()
        went = len(process.stdout.read(6000))
        time.sleep(0.5)  # it waits for more
        process.send_signal(number)
        assert went + len(process.stdout.read()) == 8000
        assert process.stderr.read() == b"error: interrupted\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize("n_bytes", [2000, 20_000])  # it ends while the signal waits, or goes on
def test_signal_while_it_computes_loses_nothing_that_came(n_bytes):
    class Interrupted(Fixed):
        n_signals = 1

        def predict_on_batch(self, inputs):
            for _ in range(self.n_signals):
                signal.raise_signal(signal.SIGINT)
            self.n_signals = 0
            return super().predict_on_batch(inputs)

    class Source(io.BytesIO):
        def read1(self, size):
            return super().read1(min(size, 1000))

    handler = signal.default_int_handler
    signal.signal(signal.SIGINT, handler)  # a job in the background was started without it
    source, result = Source(bytes(n_bytes)), io.BytesIO()
    with pytest.raises(KeyboardInterrupt):
        helpers.denoise_pipe(source, result, model=Interrupted(0.5), raw="ulaw")
    assert len(result.getvalue()) == source.tell() <= 5000
    assert signal.getsignal(signal.SIGINT) == handler

    model, result = Interrupted(0.5), io.BytesIO()
    model.n_signals = 2  # who asks again does not want to wait
    with pytest.raises(KeyboardInterrupt):
        helpers.denoise_pipe(Source(bytes(n_bytes)), result, model=model, raw="ulaw")
    assert len(result.getvalue()) == 0


def test_output_without_a_buffer_gets_one(tmp_path, monkeypatch):
    # Of what it is given while a signal comes, it may take a part alone.
    targets = []
    monkeypatch.setattr(helpers, "denoise_pipe", lambda source, target, *_, **__: targets.append(target))
    with io.TextIOWrapper(io.FileIO(tmp_path / "out", "w"), write_through=True) as unbuffered:  # as python -u has it
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        monkeypatch.setattr(sys, "stdout", unbuffered)
        assert helpers.main(["denoise", "-", "-"]) == 0
    assert isinstance(targets[0], io.BufferedWriter)


@pytest.mark.parametrize("raw", ["ulaw", "alaw", "slin", "vox"])
def test_encode_is_undone_by_decode(raw):
    signal = tone(440, level=0.5)
    whole_numbers = (32768 * signal).astype(np.int16)
    for samples in (signal, whole_numbers):
        decoded = helpers.decode(helpers.encode(samples, raw), raw)
        assert decoded.shape == (1, 8000) and decibel(decoded[0] - signal, signal) < -15


@pytest.mark.parametrize("raw", ["ulaw", "alaw", "slin"])
def test_encode_refuses_nan(raw):
    with pytest.raises(ValueError, match="samples are NaN"):
        helpers.encode(np.full(100, np.nan, np.float32), raw)


def test_reader_goes_away(command):
    with subprocess.Popen(
        [*command, "--raw", "ulaw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(bytes(8000))
        process.stdin.flush()
        process.stdout.read(100)
        process.stdout.close()
        try:
            process.stdin.write(bytes(100_000))
            process.stdin.close()
        except BrokenPipeError:
            pass
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX pipe is needed")
def test_pause_of_an_input_that_does_not_wait_is_no_end(command):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with subprocess.Popen([*command, "--raw", "ulaw"], stdin=reader, stdout=subprocess.PIPE) as process:
        for _ in range(2):
            os.write(writer, bytes(8000))
            assert process.stdout.read(2000)  # it has read what there is
            os.set_blocking(reader, False)  # who shares it can do so at any time
        time.sleep(0.2)
        os.write(writer, bytes(8000))
        os.close(writer)
        os.close(reader)
        assert len(process.stdout.read()) == 20_000
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell is needed")
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_standard_streams_are_told_in_one_sentence(closed, command):
    line = f"{shlex.join(command)} --raw ulaw {closed}"
    done = subprocess.run(["sh", "-c", line], input=bytes(800), capture_output=True)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: standard input or output is closed")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [("-", "b.wav"), ("a.wav", "-"), ("-", "-", "-"), ("-", "a.wav", "-")])
def test_streams_stand_for_both_ends(arguments, capsys):
    assert helpers.main(["denoise", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: - stands for standard input and output")
