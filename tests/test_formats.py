"""What phones, exchanges and recorders write: read to its end, and written whole."""

import contextlib
import errno
import fractions
import io
import os
import re
import signal as signals
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import PIL.Image
import pytest
import soundfile as sf
from conftest import Fixed, piped, visible, write_format

import helpers

RATE = 8000
MODEL = Fixed(0)


def speech_like(seconds=2.0, rate=RATE):
    """A tone in noise, float64 `(samples,)`, whose samples are whole 16-bit numbers."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    return np.round(32768 * (0.3 * np.sin(2 * np.pi * 440 * time) + 0.02 * noise)) / 32768


def write(path, signal=None, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, speech_like() if signal is None else signal, rate, **options)
    return path


def audio_frame(samples, rate=RATE, layout="mono", start=0):
    """A frame of FFmpeg of int16 samples `(n,)`, or of several channels by turns, at the time of the sample `start`."""
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, start, fractions.Fraction(1, rate)
    return frame


def encode(path, codec, signal=None, rate=RATE, tags=(), options=None):
    """Write a file by FFmpeg, as phones do."""
    signal = speech_like(rate=rate) if signal is None else signal
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 32000
        frame = audio_frame(np.round(32767 * signal).astype(np.int16), rate)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def with_bytes(path, content):
    path.write_bytes(content)
    return path


def denoised(source, target, **options):
    """Denoise by a model that changes nothing: (samples, texts of the warnings)."""
    with warnings.catch_warnings(record=True, action="always") as told:
        helpers.denoise_file(source, target, MODEL, **options)
    signal, rate = helpers.read_audio(helpers.target_name(target))
    with helpers.open_audio(source, **options) as audio:
        assert rate == audio.rate
    texts = [str(warning.message) for warning in told if warning.category is UserWarning]
    return signal[0], [text for text in texts if "above 4 kHz" not in text]


def si_sdr(expected, signal):
    n = min(len(expected), len(signal))
    return helpers.si_sdr(expected[:n], signal[:n])


# Read to the end


def wav(stated, samples, tail=b"", magic=b"RIFF", extra=b""):
    """A WAV file of 16 bits whose header states `stated` bytes of sound."""
    head = magic + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + extra
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return head + b"data" + struct.pack("<I", stated) + (32768 * samples).astype("<i2").tobytes() + tail


UNKNOWN = [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 36]


@pytest.mark.parametrize("stated", UNKNOWN)
@pytest.mark.parametrize("extra", [b"", b"note\x03\0\0\0abc\0"])
def test_wav_of_unknown_length(tmp_path, stated, extra):
    signal, told = denoised(with_bytes(tmp_path / "a.wav", wav(stated, speech_like(), extra=extra)), tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like()) and told == []


@pytest.mark.parametrize(("excess", "notes"), [(44, []), (-RATE, ["0.5 s of sound follow"])])
def test_length_is_wrong_and_long_tags_follow(tmp_path, excess, notes):
    tags = b"id3 " + struct.pack("<I", 50_000) + 50_000 * b"\xc3"
    (tmp_path / "a.wav").write_bytes(wav(4 * RATE + excess, speech_like(), tags))
    signal, told = denoised(tmp_path / "a.wav", tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like())
    assert [note in text for note, text in zip(notes, told, strict=True)] == [True] * len(notes)


def test_names_that_end_nowhere_are_sound(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(0, speech_like(), 8000 * b"LIST\0\0\0\0" + b"xy"))
    assert helpers.read_audio(tmp_path / "a.wav")[0].shape == (1, 2 * RATE + 32_001)


TAIL = b"iXML\x05\0\0\0<a/> \0LIST\x0e\0\0\0INFOISFT" + struct.pack("<I", 2) + b"a\0"


@pytest.mark.parametrize("stated", [*UNKNOWN, 2 * RATE])
@pytest.mark.parametrize("tail", [TAIL, TAIL + b"\0"])
def test_tags_behind_sound_of_unknown_length_are_no_sound(tmp_path, stated, tail):
    signal, told = denoised(with_bytes(tmp_path / "a.wav", wav(stated, speech_like(), tail)), tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like()) and len(told) == (stated == 2 * RATE)


def test_tags_behind_sound_of_unknown_length_in_aiff(tmp_path):
    content = bytearray(write(tmp_path / "a.aiff", speech_like()).read_bytes())
    position = content.index(b"SSND") + 4
    content[position : position + 4] = bytes(4)
    signal, told = denoised(with_bytes(tmp_path / "a.aiff", content + b"NAME\0\0\0\x03abc\0"), tmp_path / "b.aiff")
    assert np.array_equal(signal, speech_like()) and told == []


@pytest.mark.parametrize("sizes", [(0, 0), (2**64 - 1, 2**64 - 1)])
def test_rf64_of_unknown_length(tmp_path, sizes):
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, *sizes, 0, 0)
    (tmp_path / "a.rf64").write_bytes(wav(0xFFFFFFFF, speech_like(), magic=b"RF64", extra=ds64))
    signal, told = denoised(tmp_path / "a.rf64", tmp_path / "b.rf64")
    assert np.array_equal(signal, speech_like()) and told == []


def test_sound_behind_the_stated_end_is_read_and_told(tmp_path):
    signal, told = denoised(with_bytes(tmp_path / "a.wav", wav(RATE * 2, speech_like(3))), tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like(3))
    assert len(told) == 1 and "a.wav: 2.0 s of sound follow" in told[0]


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST\x04\0\0\0INFO",
        bytes(5000),
        b"\0id3 \x08\0\0\0" + bytes(8),
        bytes(90_000) + b"LIST\x04\0\0\0INFO",
        60 * b"\x11",  # 4 ms
    ],
)
def test_what_follows_the_samples_is_no_sound(tmp_path, tail):
    signal = speech_like()
    result, told = denoised(with_bytes(tmp_path / "a.wav", wav(2 * len(signal), signal, tail)), tmp_path / "b.wav")
    assert np.array_equal(result, signal) and told == []


@pytest.mark.parametrize("seconds_before", [0, 2])
def test_wav_of_a_crashed_recorder_with_a_long_silence(tmp_path, seconds_before):
    signal = np.concatenate([speech_like(seconds_before), np.zeros(9 * RATE), speech_like()])
    (tmp_path / "a.wav").write_bytes(wav(2 * RATE * seconds_before, signal))
    assert np.array_equal(denoised(tmp_path / "a.wav", tmp_path / "b.wav")[0], signal)


@pytest.mark.parametrize("ending", [".au", ".aiff", ".caf"])
@pytest.mark.parametrize("seconds", [0, 1])
def test_header_that_states_too_little(tmp_path, ending, seconds):
    path = write(tmp_path / f"a{ending}", speech_like(3))
    content = bytearray(path.read_bytes())
    chunk, size, before = {".au": (b".snd", 4, 0), ".aiff": (b"SSND", 4, 8), ".caf": (b"data", 8, 4)}[ending]
    position = content.index(chunk) + (8 if ending == ".au" else 4)
    content[position : position + size] = (2 * RATE * seconds + before).to_bytes(size, "big")
    signal, told = denoised(with_bytes(path, content), tmp_path / f"b{ending}")
    assert np.array_equal(signal, speech_like(3))
    assert ["2.0 s of sound follow" in text for text in told] == [True] * seconds


@pytest.mark.parametrize("ending", [".wav", ".rf64", ".w64", ".caf", ".aiff", ".au", ".sph"])
def test_cut_file_is_read_as_far_as_it_goes(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", speech_like(3), format=helpers.FORMATS[ending])
    signal, told = denoised(with_bytes(path, path.read_bytes()[:25000]), tmp_path / f"b{ending}")
    assert len(signal) > 10_000 and np.array_equal(signal, speech_like(3)[: len(signal)])
    assert len(told) == 1 and "seems to have been cut: it ends after 1." in told[0]


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_cut_sphere_file_of_other_fields_is_told(tmp_path, subtype):
    path = write(tmp_path / "a.sph", speech_like(3), format="NIST", subtype=subtype)
    assert not denoised(path, tmp_path / "b.wav")[1]
    _, told = denoised(with_bytes(path, path.read_bytes()[:13000]), tmp_path / "c.wav")
    assert len(told) == 1 and "seems to have been cut: it ends after 1.5 s" in told[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_recordings_that_were_joined_are_read_to_the_last(tmp_path, subtype):
    path = write(tmp_path / "a.ogg", format="OGG", subtype=subtype)
    denoised(with_bytes(path, 2 * path.read_bytes()), tmp_path / "b.wav")
    assert sf.info(tmp_path / "b.wav").duration == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".aiff", ".caf", ".au"])
def test_second_recording_in_a_file_is_told(tmp_path, ending):
    path = write(tmp_path / f"a{ending}")
    signal, told = denoised(with_bytes(path, 2 * path.read_bytes()), tmp_path / "b.wav")
    assert len(signal) == 2 * RATE and "another recording follows" in told[0]


def test_empty_wav_stays_empty(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(0, np.zeros(0), b"LIST\x04\0\0\0INFO"))
    with pytest.raises(ValueError, match=r"a\.wav: there is no audio"):
        denoised(tmp_path / "a.wav", tmp_path / "b.wav")


@pytest.mark.parametrize("size", [0, 0x7F000008])  # the second is SoX's
def test_aiff_of_unknown_length(tmp_path, size):
    content = bytearray(write(tmp_path / "a.aiff").read_bytes())
    for position in (4, content.index(b"COMM") + 10, content.index(b"SSND") + 4):
        content[position : position + 4] = struct.pack(">I", size)
    signal, told = denoised(with_bytes(tmp_path / "a.aiff", content), tmp_path / "b.aiff")
    assert np.array_equal(signal, speech_like()) and told == []


def test_flac_of_unknown_length(tmp_path):
    signal, told = denoised(piped(tmp_path / "a.flac", speech_like(20)), tmp_path / "b.flac")
    assert np.array_equal(signal, speech_like(20)) and told == []
    whole, (part, _) = helpers.read_audio(tmp_path / "a.flac"), helpers.read_audio(tmp_path / "a.flac", 1, 2)
    assert np.array_equal(whole[0][0], signal) and np.array_equal(part[0], signal[RATE : 3 * RATE])


@pytest.mark.parametrize("known", [True, False])
def test_cut_flac_is_read_as_far_as_it_goes(tmp_path, known):
    path = (write if known else piped)(tmp_path / "a.flac", speech_like(20))
    content = path.read_bytes()
    signal, told = denoised(with_bytes(path, content[: len(content) * 3 // 5]), tmp_path / "b.flac")
    assert 5 * RATE < len(signal) < 15 * RATE and np.array_equal(signal, speech_like(20)[: len(signal)])
    assert len(told) == 1 and "seems to have been cut" in told[0]


def mp3_frames(content):
    """The file without the tags and the frame that state its length, as streams and loggers write it."""
    start = content.index(b"Xing") if b"Xing" in content else content.index(b"Info")
    return content[content.index(content[content.rindex(b"\xff", 0, start) :][:2], start) :]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_that_does_not_state_its_length_is_read_whole(tmp_path, mode):
    silent = np.concatenate([np.zeros(20 * RATE), speech_like(20)])  # an estimate by the first frames is far off
    write(tmp_path / "a.mp3", silent, bitrate_mode=mode, compression_level=0.5)
    (tmp_path / "b.mp3").write_bytes(mp3_frames((tmp_path / "a.mp3").read_bytes()))
    signal, told = denoised(tmp_path / "b.mp3", tmp_path / "c.wav")
    assert len(silent) <= len(signal) < len(silent) + 3 * 1152 and told == []


def test_mp3_keeps_its_number_of_samples(tmp_path):
    write(tmp_path / "a.mp3", speech_like(3.3))
    signal, told = denoised(tmp_path / "a.mp3", tmp_path / "b.mp3")
    assert len(signal) == len(speech_like(3.3)) and told == []


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_adpcm_keeps_its_number_of_samples(tmp_path, subtype):
    write(tmp_path / "a.wav", speech_like(7), subtype=subtype)
    signal, told = denoised(tmp_path / "a.wav", tmp_path / "b.wav")
    assert np.array_equal(signal, sf.read(tmp_path / "a.wav", dtype="float32")[0]) and told == []


@pytest.mark.parametrize("n_blocks", [26, 27])  # an odd number of bytes is filled up
@pytest.mark.parametrize("filled", [True, False])  # Asterisk does not
def test_gsm_ends_with_its_last_block(tmp_path, n_blocks, filled):
    write(tmp_path / "a.wav", speech_like()[: 320 * n_blocks], subtype="GSM610")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content if filled else content[: content.index(b"data") + 8 + 65 * n_blocks])
    signal, told = denoised(tmp_path / "a.wav", tmp_path / "b.wav")
    assert len(signal) == 320 * n_blocks and si_sdr(speech_like(), signal) > 10 and told == []


@pytest.mark.parametrize(
    ("name", "subtype", "block"),
    [
        ("a.wav", "GSM610", 320),
        ("a.gsm", "GSM610", 160),
        ("a.wav", "IMA_ADPCM", 505),
        ("a.wav", "MS_ADPCM", 500),
    ],
)
def test_block_that_was_cut_is_left_out(tmp_path, name, subtype, block):
    if name == "a.gsm":
        write_raw(tmp_path / name, subtype)
    else:
        write(tmp_path / name, subtype=subtype)
    whole = helpers.read_audio(tmp_path / name)[0][0]
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - 50)
    signal, told = denoised(tmp_path / name, tmp_path / "b.flac")
    assert len(whole) - 2.5 * block < len(signal) < len(whole)
    assert np.abs(signal - whole[: len(signal)]).max() < 1e-4 and "cut" in told[-1]


def test_ima_adpcm_of_other_blocks_keeps_its_number_of_samples(tmp_path):
    encode(tmp_path / "a.wav", "adpcm_ima_wav", speech_like(3))  # 2041 samples a block; libsndfile's hold 505
    signal, told = denoised(tmp_path / "a.wav", tmp_path / "b.wav")
    assert len(signal) == sf.info(tmp_path / "a.wav").frames == sf.info(tmp_path / "b.wav").frames and told == []


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "PCM_U8"])
def test_aiff_of_an_odd_number_of_bytes_keeps_its_number_of_samples(tmp_path, subtype):
    write(tmp_path / "a.wav", speech_like()[:8001], subtype=subtype)
    signal, told = denoised(tmp_path / "a.wav", tmp_path / "b.aiff")
    assert len(signal) == 8001 and si_sdr(speech_like(), signal) > 10 and told == []


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda: (np.zeros((RATE, 2)), RATE), "was changed while it was read"),
        (lambda: (speech_like(), 2 * RATE), "was changed while it was read"),
        (lambda: (speech_like(1), RATE), "became shorter while it was read"),
        (lambda: (np.zeros(0), RATE), "became shorter while it was read"),
        (lambda: (-speech_like(), RATE), "was changed while it was read"),
    ],
)
def test_recording_that_changes_while_it_is_read_stops_no_other(tmp_path, monkeypatch, second, message):
    for name in "ab":
        write(tmp_path / f"calls/{name}.wav")
    hear, heard = helpers._level_and_length, []

    def hear_then_change(chunks, rate):
        heard.append(hear(chunks, rate))
        if len(heard) == 1:
            write(tmp_path / "calls/a.wav", *second())
        return heard[-1]

    monkeypatch.setattr(helpers, "_level_and_length", hear_then_change)
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", MODEL)
    assert table["status"].to_list() == ["failed", "done"]
    assert f"a.wav: it {message}" in table["error"][0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.wav"]


def test_error_that_nobody_thought_of_stops_no_other(tmp_path, calls):
    class Fails:
        def predict_on_batch(self, inputs):
            if inputs.any():
                raise RuntimeError("out of luck")
            return inputs

    write(calls / "b.wav", np.zeros(RATE))
    table = helpers.denoise_folder(calls, tmp_path / "out", Fails())
    assert table["status"].to_list() == ["failed", "done"]
    assert "a.wav: it can't be denoised (RuntimeError('out of luck'))" in table["error"][0]


@pytest.mark.parametrize("time", [0, 2 * 10**9])  # of the first one's last change, in seconds
def test_recording_that_another_one_took_the_place_of_is_not_denoised(tmp_path, monkeypatch, time):
    """Its tags would be those of the first, its sound the other's; a longer one only seems to have grown."""
    source, other = write(tmp_path / "a.wav"), write(tmp_path / "new/a.wav", speech_like(9))
    os.utime(source, (time, time))
    os.utime(other, (10**9, 10**9))
    openings, open_audio = [], helpers.open_audio

    def replacing(path, *arguments):
        openings.append(path)
        if len(openings) == 2:
            os.replace(other, source)
        return open_audio(path, *arguments)

    monkeypatch.setattr(helpers, "open_audio", replacing)
    with pytest.raises(ValueError, match="was changed while it was read"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no names for open files")
def test_what_takes_the_name_of_a_recording_is_not_read(tmp_path, monkeypatch):
    """It may be a link to what its owner may not read, whose sound would get the rights of the first one."""
    source, secret = write(tmp_path / "a.wav"), write(tmp_path / "secret.wav", speech_like(9))
    for path in (source, secret):
        os.utime(path, (10**9, 10**9))
    check_layout = helpers._check_layout

    def replacing(*arguments):
        source.unlink()
        source.symlink_to(secret)
        return check_layout(*arguments)

    monkeypatch.setattr(helpers, "_check_layout", replacing)
    helpers.denoise_file(source, tmp_path / "b.wav", MODEL)
    assert np.array_equal(helpers.read_audio(tmp_path / "b.wav")[0][0], speech_like())


def test_recording_that_grows_is_denoised_as_far_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav(0, speech_like(20)))
    monkeypatch.setattr(helpers, "BLOCK", 7)

    class Grows:
        def predict_on_batch(self, inputs):
            with (tmp_path / "a.wav").open("ab") as file:
                file.write(bytes(RATE))
            return 0 * inputs

    with pytest.warns(UserWarning, match=r"a\.wav grew while it was read: denoise it again"):
        helpers.denoise_file(tmp_path / "a.wav", tmp_path / "b.wav", Grows())
    assert np.array_equal(sf.read(tmp_path / "b.wav")[0], speech_like(20))


# Formats that FFmpeg reads


@pytest.mark.parametrize(
    ("name", "codec", "rate", "exact"),
    [
        ("a.m4a", "aac", 8000, True),
        ("a.mp4", "aac", 44100, True),
        ("a.aac", "aac", 16000, False),
        ("a.amr", "libopencore_amrnb", 8000, False),
        ("a.3gp", "libopencore_amrnb", 8000, False),
        ("a.webm", "libopus", 48000, True),
        ("a.wma", "wmav2", 16000, False),
        ("a.g722", "g722", 16000, True),
        ("a.wav", "g726", 8000, True),
        ("a.mp2", "mp2", 16000, False),
        ("a.mka", "flac", 8000, True),
        ("a.voc", "pcm_s16le", 8000, True),
    ],
)
def test_formats_of_phones_are_read(tmp_path, name, codec, rate, exact):
    expected = speech_like(3.3, rate)
    denoised(encode(tmp_path / name, codec, expected, rate), tmp_path / "b.wav")
    signal, told = denoised(tmp_path / name, tmp_path / "b.wav")  # again: FFmpeg would tell only once what it guesses
    assert told == []
    assert len(signal) == pytest.approx(len(expected), abs=0 if exact else 4096)
    if exact and codec not in ("g722", "g726"):  # they delay
        assert si_sdr(expected, signal) > 5


@pytest.mark.parametrize("rate", [8000, 48000])
def test_delay_of_opus_is_trimmed(tmp_path, rate):
    signal, _ = denoised(encode(tmp_path / "a.webm", "libopus", speech_like(3.3, rate), rate), tmp_path / "b.wav")
    assert len(signal) == 3.3 * 48000 and si_sdr(speech_like(3.3, 48000), signal) > 5


def test_24_bits_are_kept(tmp_path):
    signal = np.round(2**23 * 0.3 * np.sin(np.arange(20 * RATE))) / 2**23
    piped(tmp_path / "a.flac", signal, subtype="PCM_24")
    helpers.denoise_file(tmp_path / "a.flac", tmp_path / "b.flac", MODEL)
    assert np.array_equal(sf.read(tmp_path / "b.flac")[0], signal)
    assert sf.info(tmp_path / "b.flac").subtype == "PCM_24"


def with_times(path, starts):
    """Write a Matroska file with 0.5 s of sound for each of the times in s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for i, start in enumerate(starts):
            samples = np.round(32768 * speech_like(len(starts) / 2)).astype(np.int16)[RATE // 2 * i :][: RATE // 2]
            container.mux(stream.encode(audio_frame(samples, start=round(start * RATE))))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("starts", [(0, 0.5, 4, 4.5), (100, 100.5, 104, 104.5)])
def test_pauses_that_a_browser_left_out_keep_their_time(tmp_path, starts):
    signal, told = denoised(with_times(tmp_path / "a.mka", starts), tmp_path / "b.wav")
    assert np.array_equal(signal, np.insert(speech_like(), RATE, np.zeros(3 * RATE))) and told == []


@pytest.mark.parametrize("starts", [(0, 0.56, 0.94, 1.56), (0, 0.5, 0.7, 1.5), (100, 100.5, 101, 101.5)])
def test_times_that_are_only_inexact_leave_no_gap(tmp_path, starts):
    signal, told = denoised(with_times(tmp_path / "a.mka", starts), tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like()) and told == []


def test_nobody_is_silent_for_a_day(tmp_path):
    signal, _ = denoised(with_times(tmp_path / "a.mka", (0, 0.5, 90_000, 90_000.5)), tmp_path / "b.wav")
    assert np.array_equal(signal, speech_like())


def test_pauses_do_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "LONGEST_SILENCE", 60)
    path = with_times(tmp_path / "a.mka", (0, 50, 100))  # each of them could be true
    with pytest.raises(ValueError, match=r"a\.mka: its times tell of more than 8 hours of silence"):
        helpers.denoise_file(path, tmp_path / "b.wav", MODEL)
    assert visible(tmp_path) == ["a.mka"]


def test_log_of_a_day_keeps_its_pauses(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "LONGEST_SILENCE", 1)
    assert helpers.read_audio(with_times(tmp_path / "a.mka", (0, 20, 40)))[0].shape[-1] > 40 * RATE


def test_many_channels_of_a_high_rate_do_not_fill_the_memory(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros((100, 64), np.int16), 48_000)
    with pytest.raises(ValueError, match=r"a\.wav: 64 channels at 48000 Hz do not fit into memory"):
        helpers.denoise_file(tmp_path / "a.wav", tmp_path / "b.wav", MODEL)


def test_header_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "LONGEST_HEADER", 1000)
    junk = b"JUNK" + struct.pack("<I", 2000) + bytes(2000)
    (tmp_path / "a.wav").write_bytes(wav(9, speech_like(), extra=junk))  # which states too little
    with pytest.raises(ValueError, match="its header is longer than that of any recorder"):
        helpers.read_audio(tmp_path / "a.wav")


def test_junk_that_looks_like_ogg_is_passed_quickly(tmp_path, monkeypatch):
    checked, checksum = [], helpers._ogg_checksum
    monkeypatch.setattr(helpers, "_ogg_checksum", lambda page: checked.append(page) or checksum(page))
    path = write_format(tmp_path / "a.ogg", "VORBIS", RATE, 1)
    n_pages = sum(map(bool, helpers._ogg_pages(path)))
    path.write_bytes(path.read_bytes() + 10_000 * b"OggS")
    checked.clear()
    assert sum(map(bool, helpers._ogg_pages(path))) == n_pages == len(checked)


def with_hole(path, seconds, start, size):
    """Write an M4A file that has `size` zero bytes, `start` bytes after its sound begins."""
    content = bytearray(encode(path, "aac", speech_like(seconds)).read_bytes())
    start += content.index(b"mdat")
    content[start : start + size] = bytes(size)
    return with_bytes(path, content)


def test_what_is_lost_in_the_middle_becomes_silence_and_is_told(tmp_path):
    signal, told = denoised(with_hole(tmp_path / "a.m4a", 9, 30_000, 6000), tmp_path / "b.wav")
    assert len(signal) == 9 * RATE and len(told) == 1 and "a.m4a is damaged: " in told[0]


def pages(content):
    """Where the pages of an Ogg file begin that hold its sound."""
    return [match.start() for match in re.finditer(b"OggS", content)][2:]


OGG_DAMAGES = {
    "two bytes of a page": lambda sound, first, second: sound[: first + 99] + b"\xaa\xbb" + sound[first + 101 :],
    "its length": lambda sound, first, second: sound[: first + 26] + b"\xff" + sound[first + 27 :],
    "all of it": lambda sound, first, second: sound[:first] + sound[second:],
    "all of it, now zeros": lambda sound, first, second: sound[:first] + bytes(second - first) + sound[second:],
}


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("damage", OGG_DAMAGES)
def test_lost_page_of_an_ogg_becomes_silence_and_is_told(tmp_path, subtype, damage):
    sound = write(tmp_path / "a.ogg", speech_like(40), format="OGG", subtype=subtype).read_bytes()
    places = pages(sound)
    (tmp_path / "b.ogg").write_bytes(OGG_DAMAGES[damage](sound, *places[len(places) // 2 :][:2]))
    signal, told = denoised(tmp_path / "b.ogg", tmp_path / "b.wav")
    rate = len(signal) / 40
    assert rate in (8000, 48000) and len(told) == 1 and "s that are lost became silence" in told[0]
    level = np.abs(signal.reshape(400, -1)).mean(axis=1)
    assert (level[:60] > 0.1).all() and (level[-60:] > 0.1).all() and (level < 0.01).sum() >= 8


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("damage", ["first", "last", "cut"])
def test_lost_page_at_an_end_of_an_ogg_is_told(tmp_path, subtype, damage):
    sound = bytearray(write(tmp_path / "a.ogg", speech_like(20), format="OGG", subtype=subtype).read_bytes())
    if damage == "cut":
        del sound[-1:]
    else:
        sound[pages(sound)[0 if damage == "first" else -1] + 99] ^= 255
    _, told = denoised(with_bytes(tmp_path / "b.ogg", sound), tmp_path / "b.wav")
    assert len(told) == 1 and ("is damaged" if damage == "first" else "seems to have been cut") in told[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_what_follows_an_ogg_is_no_damage(tmp_path, subtype):
    source = write(tmp_path / "a.ogg", format="OGG", subtype=subtype)
    signal, told = denoised(with_bytes(source, source.read_bytes() + bytes(100_000)), tmp_path / "b.wav")
    assert len(signal) == 2 * RATE and told == []


@pytest.mark.parametrize("filler", [bytes, lambda size: b"\xaa" * size])
@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.mp3", "libmp3lame")])
def test_hole_in_a_file_without_times_is_told(tmp_path, name, codec, filler):
    source = encode(tmp_path / name, codec, speech_like(10))
    content = source.read_bytes()
    begin, size = len(content) // 2, len(content) // 8
    source.write_bytes(content[:begin] + filler(size) + content[begin + size :])
    signal, told = denoised(source, tmp_path / "b.wav")
    assert len(signal) > 8 * RATE and len(told) == 1 and "is left out, and what follows comes earlier" in told[0]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.wma", "wmav2"), ("a.avi", "pcm_s16le"), ("a.voc", "pcm_u8"), ("a.mp4", "aac")]
)
def test_file_that_was_cut_is_told(tmp_path, name, codec, share):
    source = tmp_path / name
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"} if name == "a.mp4" else {}
    content = encode(source, codec, speech_like(10), options=options).read_bytes()
    signal, told = denoised(with_bytes(source, content[: int(share * len(content))]), tmp_path / "b.wav")
    assert len(signal) < 9 * RATE and len(told) == 1 and "seems to have been cut" in told[0]


def test_recording_of_a_phone_that_was_not_ended_is_explained(tmp_path):
    source = encode(tmp_path / "a.m4a", "aac")
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"a\.m4a is not audio .*its index is missing, which recorders"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)


def test_mp3_in_matroska_is_not_cut(tmp_path):
    signal, told = denoised(encode(tmp_path / "a.mkv", "libmp3lame", speech_like(5)), tmp_path / "b.wav")
    assert len(signal) / RATE == pytest.approx(5, abs=0.1) and told == []


@pytest.mark.parametrize("filler", [bytes, lambda size: b"\xaa" * size])
@pytest.mark.parametrize("options", [{}, {"live": "1"}])  # by a browser, too, in one go
def test_what_a_webm_loses_becomes_silence_and_is_told(tmp_path, options, filler):
    source = encode(tmp_path / "a.webm", "libopus", speech_like(20, 48000), 48000, options=options)
    content = source.read_bytes()
    begin = len(content) // 2
    source.write_bytes(content[:begin] + filler(4096) + content[begin + 4096 :])
    signal, told = denoised(source, tmp_path / "b.wav")
    assert len(signal) / 48000 == pytest.approx(20, abs=0.05)
    assert len(told) == 1 and "s that are lost became silence" in told[0]


def test_live_webm_that_was_cut_is_told(tmp_path):
    source = encode(tmp_path / "a.webm", "libopus", speech_like(10, 48000), 48000, options={"live": "1"})
    source.write_bytes(source.read_bytes()[:-100])
    assert "seems to have been cut" in denoised(source, tmp_path / "b.wav")[1][0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.au", {"subtype": "ALAW"}),
        ("a.aiff", {"subtype": "ULAW"}),
        ("b.aiff", {"subtype": "GSM610"}),
        ("a.w64", {"subtype": "ALAW"}),
        ("a.ul", {"subtype": "ULAW", "format": "RAW"}),
        ("a.vox", {"subtype": "VOX_ADPCM", "format": "RAW"}),
        ("a.gsm", {"subtype": "GSM610", "format": "RAW"}),
        ("b.wav", {"subtype": "GSM610"}),
    ],
)
def test_zeros_that_a_crash_left_are_no_sound(tmp_path, name, options):
    channels = 2 if options["subtype"] in ("ULAW", "ALAW", "PCM_U8") and "format" not in options else 1
    source = write(tmp_path / name, np.tile(speech_like(10)[:, None], channels), **options)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    signal, told = denoised(source, tmp_path / "out.wav")
    assert -0.01 < 5 - len(signal) / RATE < 0.05 and np.abs(signal).max() < 0.5
    assert "seems to have been cut: it ends after 5.0 s" in told[-1]


def test_file_of_zeros_alone_is_refused(tmp_path):
    (tmp_path / "a.ul").write_bytes(bytes(16000))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no audio in it"):
        helpers.denoise_file(tmp_path / "a.ul", tmp_path / "b.wav", MODEL)


def test_silence_at_the_end_is_sound(tmp_path):
    call = np.append(speech_like(), np.zeros(2 * RATE))
    for subtype in ("PCM_16", "ULAW", "PCM_U8"):
        source = write(tmp_path / f"{subtype}.wav", call, subtype=subtype)
        signal, told = denoised(source, tmp_path / "out" / source.name)
        assert len(signal) == len(call) and told == []


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [("a.m4a", "aac", "7.1"), ("a.mka", "aac", "7.1"), ("a.m4a", "alac", "7.1(wide)"), ("a.webm", "libopus", "7.1")],
)
def test_eight_channels(tmp_path, name, codec, layout):
    rate, channels = 48000, np.outer(np.linspace(0.1, 1, 8), speech_like(1, 48000))
    resampler = av.AudioResampler({"aac": "fltp", "alac": "s16p"}.get(codec, "s16"), layout, rate)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = audio_frame(np.int16(32767 * channels.T).ravel(), rate, layout)
        for converted in (*resampler.resample(frame), None):
            container.mux(stream.encode(converted))
    signal, _ = helpers.read_audio(tmp_path / name)
    assert signal.shape[0] == 8
    assert np.abs(signal).max() == pytest.approx(np.abs(channels).max(), rel=0.1)
    assert (np.abs(signal).mean(axis=1) > 0.015).sum() >= 7  # AAC leaves only the lowest notes to one of them


@pytest.mark.parametrize("damage", ["a bit", "zeros", "missing"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_what_a_flac_loses_becomes_silence_and_is_told(tmp_path, damage, rate):
    source = write(tmp_path / "a.flac", speech_like(10, rate), rate)
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    if damage == "missing":
        del content[middle : middle + 4096]
    else:
        content[middle : middle + 2048] = bytes(2048) if damage == "zeros" else content[middle : middle + 2048]
        content[middle] ^= 4
    signal, told = denoised(with_bytes(source, content), tmp_path / "b.wav")
    assert len(signal) == 10 * rate and len(told) == 1 and "s that are lost became silence" in told[0]
    for part in (slice(0, 4 * rate), slice(6 * rate, None)):
        assert np.array_equal(signal[part], speech_like(10, rate)[part])
    with pytest.warns(UserWarning, match="became silence"):
        assert np.array_equal(helpers.read_audio(source)[0][0], signal)
    for start in (1, 4.5, 8):
        piece = helpers.read_audio(source, start, 1.5)[0][0]
        assert np.array_equal(piece, signal[int(start * rate) :][: int(1.5 * rate)])


@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.mp3", "libmp3lame")])
def test_frames_of_another_rate_are_left_out_if_they_are_few(tmp_path, name, codec):
    source = tmp_path / name
    first, other = (encode(source, codec, speech_like(4, rate), rate).read_bytes() for rate in (16000, 8000))
    signal, told = denoised(with_bytes(source, first + other[: len(other) // 8]), tmp_path / "b.wav")
    assert len(signal) / 16000 == pytest.approx(4, abs=0.2) and len(told) == 1 and f"{name} is damaged" in told[0]
    source.write_bytes(first + other)
    with pytest.raises(ValueError, match="its rate or its channels change on the way: split it"):
        helpers.read_audio(source)


def test_tags_between_appended_mp3_are_no_damage(tmp_path):
    source = encode(tmp_path / "a.mp3", "libmp3lame", tags={"title": "a call"})
    signal, told = denoised(with_bytes(source, 2 * source.read_bytes()), tmp_path / "b.wav")
    assert len(signal) > 4 * RATE and told == []


def test_single_frame_that_is_lost_moves_nothing(tmp_path):
    whole = denoised(encode(tmp_path / "a.m4a", "aac", speech_like(9)), tmp_path / "a.wav")[0]
    signal, told = denoised(with_hole(tmp_path / "b.m4a", 9, 30_000, 20), tmp_path / "b.wav")
    assert len(signal) == 9 * RATE and len(told) == 1 and "0.1 s that are lost became silence" in told[0]
    assert np.array_equal(signal[-2 * RATE :], whole[-2 * RATE :])


def test_pauses_of_amr_keep_their_time(tmp_path):
    """200 ms of speech in turn with as much of which AMR tells only that nobody speaks."""
    content = encode(tmp_path / "a.amr", "libopencore_amrnb", speech_like(2)).read_bytes()
    size = (len(content) - 6) // 100
    frames = [content[start : start + size] for start in range(6, len(content), size)]
    pauses = [frames[i] if i // 10 % 2 == 0 else [b"\x7c", b"\x44" + bytes(5)][i % 2] for i in range(100)]
    signal, told = denoised(with_bytes(tmp_path / "b.amr", content[:6] + b"".join(pauses)), tmp_path / "b.wav")
    assert len(signal) == 2 * RATE and told == []
    level = np.abs(signal.reshape(10, -1)).mean(axis=1)
    assert (level[::2] > 0.1).all() and (level[1::2] < 0.02).all()


def test_av_is_imported_only_when_it_is_needed(tmp_path):
    write(tmp_path / "a.wav")
    code = "import sys, helpers; helpers.read_audio(sys.argv[1]); assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.wav")], check=True, cwd=helpers.ROOT)


@pytest.mark.parametrize("name", ["a.m4a", "a.wav", "a.mp3"])
@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder}/secret.wav\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.wav\n",
    ],
)
def test_playlist_opens_no_other_file(tmp_path, name, playlist):
    write(tmp_path / "secret.wav")
    (tmp_path / name).write_text(playlist.format(folder=tmp_path))
    with pytest.raises(ValueError, match="is not audio that can be read"):
        helpers.read_audio(tmp_path / name)


def g726(path, states=1.0, tail=b""):
    """Write a WAV of G.726, which libsndfile can't read, that states so much of its sound, with bytes behind it."""
    content = bytearray(encode(path, "g726").read_bytes())
    place = content.index(b"data") + 4
    struct.pack_into("<I", content, place, int(states * struct.unpack_from("<I", content, place)[0]))
    return with_bytes(path, content + tail)


def test_wav_of_g726_that_states_too_little(tmp_path):
    whole = helpers.read_audio(g726(tmp_path / "a.wav"))[0]
    signal, told = denoised(g726(tmp_path / "a.wav", states=0.5), tmp_path / "b.wav")
    assert np.array_equal(signal, whole[0]) and len(told) == 1 and "sound follows the end" in told[0]


def test_a_few_bytes_behind_a_wav_of_g726_are_no_sound(tmp_path):
    whole = helpers.read_audio(g726(tmp_path / "a.wav"))[0]
    assert np.array_equal(helpers.read_audio(g726(tmp_path / "a.wav", tail=b"\r\n"))[0], whole)


@pytest.fixture(scope="module")
def picture():
    """A tag with a picture that is larger than what FFmpeg looks at."""
    return b"ID3\4\0\0" + bytes(2_000_000 >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(2_000_000)


@pytest.mark.parametrize("seconds", [9, 40])  # FFmpeg looks at 64 kB of sound
@pytest.mark.parametrize(("ending", "codec"), [("aac", "aac"), ("ac3", "ac3")])
def test_recording_behind_a_large_picture_is_known_by_its_ending(tmp_path, picture, ending, codec, seconds):
    whole = encode(tmp_path / f"a.{ending}", codec, speech_like(seconds, rate=32_000), rate=32_000)
    tagged = with_bytes(tmp_path / f"b.{ending}", picture + whole.read_bytes())
    assert np.array_equal(*(helpers.read_audio(path)[0] for path in (whole, tagged)))


@pytest.mark.parametrize("ending", ["m4a", "aac", "flac", "ogg"])
def test_mp3_behind_a_large_picture_is_known_by_its_content(tmp_path, picture, ending):
    write(tmp_path / "a.mp3", speech_like(9), format="MP3")
    tagged = with_bytes(tmp_path / f"b.{ending}", picture + (tmp_path / "a.mp3").read_bytes())
    assert np.array_equal(*(helpers.read_audio(path)[0] for path in (tmp_path / "a.mp3", tagged)))


@pytest.mark.filterwarnings("ignore:.*seems to have been cut")
@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(("start", "end"), [(5000, None), (0, -5000)])
def test_flac_without_its_head_or_end_is_read_behind_a_large_picture_too(tmp_path, picture, tagged, start, end):
    write(tmp_path / "a.flac", speech_like(9), format="FLAC")
    (tmp_path / "b.flac").write_bytes(picture * tagged + (tmp_path / "a.flac").read_bytes()[start:end])
    assert helpers.read_audio(tmp_path / "b.flac")[0].shape[-1] > 5 * RATE


def test_errors_name_files_as_users_do(tmp_path, monkeypatch):
    """Not by their number, by which they are read."""
    path = write(tmp_path / "a.wav")

    def lacks_descriptors(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files", "/proc/self/fd/9")

    monkeypatch.setattr(helpers, "_reader", lacks_descriptors)
    with pytest.raises(OSError, match=r"a\.wav"):
        helpers.read_audio(path)


def test_what_is_no_recording_is_told_by_its_ending(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"what a telephone might write")
    with pytest.raises(ValueError, match="its index is missing, which recorders write at the end"):
        helpers.read_audio(tmp_path / "a.m4a")


def with_picture(sound, picture):
    """The bytes of an MP3 file with a picture in front."""
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame + sound


def test_picture_is_not_decoded(tmp_path):
    """One of a few bytes may fill the memory."""
    picture = io.BytesIO()
    PIL.Image.new("P", (300, 200)).save(picture, "GIF")
    sound = write(tmp_path / "a.mp3", speech_like(10), format="MP3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(with_picture(sound, b"\0image/gif\0\3\0" + picture.getvalue()))
    with contextlib.closing(helpers._Decoded(tmp_path / "b.mp3")) as reader:
        assert [stream.width for stream in reader.container.streams.video] == [0]
        assert reader.read(-1).shape == helpers.read_audio(tmp_path / "a.mp3")[0].shape


@pytest.mark.parametrize("size", [200_000, 3_000_000])  # of the larger one FFmpeg doesn't see the end at first
def test_cut_mp3_with_a_picture(tmp_path, size):
    source = write(tmp_path / "a.mp3", speech_like(10), format="MP3")
    sound = source.read_bytes()
    source.write_bytes(with_picture(sound[: len(sound) // 2], bytes(size)))
    with pytest.warns(UserWarning, match="seems to have been cut"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)


@pytest.mark.parametrize("ending", [".ogg", ".opus"])
def test_lossy_formats_of_too_many_channels_are_refused(tmp_path, ending):
    source = write(tmp_path / "a.wav", np.tile(speech_like()[:, None], 6))
    with pytest.raises(ValueError, match=r"can't hold 6 channels .*\.wav"):
        helpers.denoise_file(source, tmp_path / f"b{ending}", MODEL)


# Headerless telephony

HEADERLESS = [
    (".ul", "ULAW"),
    (".ulaw", "ULAW"),
    (".mulaw", "ULAW"),
    (".al", "ALAW"),
    (".alaw", "ALAW"),
    (".sln", "PCM_16"),
    (".sln16", "PCM_16"),
    (".vox", "VOX_ADPCM"),
    (".gsm", "GSM610"),
]


def write_raw(path, subtype, rate=RATE):
    return write(path, speech_like(2, rate), rate, format="RAW", subtype=subtype, endian="LITTLE")


@pytest.mark.parametrize(("ending", "subtype"), HEADERLESS)
def test_headerless_files_are_read_by_their_ending(tmp_path, ending, subtype):
    rate = 16000 if ending == ".sln16" else RATE
    source = write_raw(tmp_path / f"a{ending}", subtype, rate)
    signal, told = denoised(source, tmp_path / "b.wav")
    assert len(signal) == 2 * rate and si_sdr(speech_like(2, rate), signal) > 10
    assert [f"end in {ending} are read as {subtype} at {rate} Hz" in text for text in told] == [True]
    with pytest.warns(UserWarning, match="are read as"):
        whole, part = helpers.read_audio(source)[0][0], helpers.read_audio(source, 0.5, 1)[0][0]
    assert np.array_equal(part, whole[rate // 2 : 3 * rate // 2])  # GSM has to be decoded up to there
    assert sf.info(tmp_path / "b.wav").subtype == ("PCM_16" if subtype == "VOX_ADPCM" else subtype)


@pytest.mark.parametrize(("raw", "subtype"), helpers.RAW.items())
def test_raw_files_are_read_as_told(tmp_path, raw, subtype):
    source = write_raw(tmp_path / "a.raw", subtype, 6000)
    with pytest.raises(ValueError, match=r"a\.raw.*--raw ulaw\|alaw\|slin\|vox.*--rate"):
        helpers.read_audio(source)
    signal, rate = helpers.read_audio(source, raw=raw, rate=6000.0)
    assert rate == 6000 and si_sdr(speech_like(2, 6000), signal[0]) > 10
    assert len(helpers.load_audio(source, raw=raw, rate=6000)) == 2 * RATE
    assert helpers.main(["denoise", str(source), str(tmp_path / "b.wav"), "--raw", raw, "--rate", "6000"]) == 0
    assert (sf.info(tmp_path / "b.wav").samplerate, sf.info(tmp_path / "b.wav").frames) == (6000, 12000)


def test_header_counts_more_than_a_headerless_ending(tmp_path):
    source = write(tmp_path / "a.ul", format="WAV")
    assert np.array_equal(helpers.read_audio(source)[0][0], speech_like())


def test_header_counts_more_than_what_is_told(tmp_path):
    helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / "b.wav", MODEL, raw="ulaw", rate=16000)
    assert np.array_equal(sf.read(tmp_path / "b.wav")[0], speech_like())


@pytest.mark.parametrize("rate", [0, -5, 10**11, np.inf, np.nan])
def test_rates_that_recordings_do_not_have_are_refused(tmp_path, rate):
    (tmp_path / "a.ul").write_bytes(bytes(8000))
    with pytest.raises(ValueError, match=f"a sample rate of {rate} Hz"):
        helpers.denoise_file(tmp_path / "a.ul", tmp_path / "b.wav", MODEL, rate=rate)


def test_rate_of_a_headerless_ending_can_be_told(tmp_path):
    signal, told = denoised(write_raw(tmp_path / "a.vox", "VOX_ADPCM", 6000), tmp_path / "b.wav", rate=6000)
    assert len(signal) == 12000 and "6000 Hz" in told[0]


def test_noise_of_a_phone_is_cropped(tmp_path):
    crop = helpers.random_crop(encode(tmp_path / "a.m4a", "aac"), 2000, np.random.default_rng(0))
    assert crop.shape == (2000,) and crop.any()
    with pytest.raises(FileNotFoundError, match=r"b\.m4a does not exist"):
        helpers.random_crop(tmp_path / "b.m4a", 2000, np.random.default_rng(0))


def test_unknown_raw_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mp3 is no sample format.*ulaw"):
        helpers.read_audio(write_raw(tmp_path / "a.raw", "ULAW"), raw="mp3")


# Targets


def test_folder_of_formats_that_are_not_written(tmp_path):
    encode(write(tmp_path / "calls/a.wav").with_name("b.m4a"), "aac")
    write_raw(tmp_path / "calls/c.ULAW", "ULAW")
    write_raw(tmp_path / "calls/d.raw", "ALAW")
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", MODEL, raw="alaw")
    assert table["status"].to_list() == ["done"] * 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert sf.info(tmp_path / "out/d.wav").subtype == "ALAW"
    again = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", MODEL, raw="alaw")
    assert again["status"].to_list() == ["skipped"] * 4


def test_endings_that_tell_their_format_keep_it_in_a_folder(tmp_path):
    write_raw(tmp_path / "calls/a.gsm", "GSM610")
    write_raw(tmp_path / "calls/b.sln16", "PCM_16", 16000)
    write_raw(tmp_path / "calls/c.raw", "PCM_16", 6000)
    table = helpers.denoise_folder(tmp_path / "calls", tmp_path / "out", MODEL, raw="slin", rate=6000)
    assert table["status"].to_list() == ["done"] * 3
    for name, rate in (("a", RATE), ("b", 16000), ("c", 6000)):
        signal, found = sf.read(tmp_path / f"out/{name}.wav")
        assert found == rate and len(signal) == 2 * rate and si_sdr(speech_like(2, rate), signal) > 10


def test_rate_of_an_ending_counts_where_the_sample_format_is_told(tmp_path):
    source = write_raw(tmp_path / "a.sln16", "PCM_16", 16000)
    assert helpers.read_audio(source, raw="slin")[1] == 16000


def test_target_that_is_not_written_becomes_a_wav(tmp_path):
    source = write(tmp_path / "a.wav")
    _, told = denoised(source, tmp_path / "b.m4a")
    assert [path.name for path in tmp_path.iterdir() if path != source] == ["b.wav"]
    assert len(told) == 1 and "b.m4a can't be written: the result is" in told[0]
    denoised(source, tmp_path / "b.m4a")  # its own result may be replaced
    write(tmp_path / "b.wav")
    with pytest.raises(ValueError, match=r"b\.wav is not known to be a result"):
        denoised(source, tmp_path / "b.m4a")
    with pytest.raises(ValueError, match="name another target"):
        denoised(source, tmp_path / "a.m4a")


@pytest.mark.parametrize(
    ("rate", "channels", "ending"),
    [
        (44100, 1, ".opus"),
        (8000, 9, ".flac"),
        (96000, 1, ".mp3"),
        (8000, 3, ".mp3"),
        (8000, 2, ".wav49"),
        (500_000, 1, ".ogg"),
        (8000, 256, ".ogg"),
    ],
)
def test_what_the_target_cannot_hold_is_refused_before_any_work(tmp_path, rate, channels, ending):
    source = write(tmp_path / "a.wav", np.zeros((300, channels)), rate)
    with pytest.raises(ValueError, match=rf"b\{ending} can't hold {channels} channels at {rate} Hz"):
        helpers.denoise_file(source, tmp_path / f"b{ending}", model="no model is needed for that")


@pytest.mark.parametrize("ending", [".flac", ".mp3", ".opus", ".ogg", ".wav", ".caf"])
@pytest.mark.parametrize("loss", [1, 0.5])
def test_disk_that_fills_when_libsndfile_closes_the_file(tmp_path, monkeypatch, ending, loss):
    close = helpers.sf.SoundFile.close

    def cut_when_closed(file):
        name, writes = file.name, file.mode == "w" and not file.closed
        close(file)
        if writes and not isinstance(name, io.BytesIO):
            os.truncate(name, int(os.path.getsize(name) * (1 - loss)))

    source = write(tmp_path / "a.wav", speech_like(5))
    monkeypatch.setattr(helpers.sf.SoundFile, "close", cut_when_closed)
    with pytest.raises(OSError, match=rf"b\{ending} could not be written .*: check the disk"):
        helpers.denoise_file(source, tmp_path / f"b{ending}", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_mark_that_does_not_reach_the_disk_is_told(tmp_path, monkeypatch):
    """It lies behind the sound, and libsndfile does not tell."""
    close = sf.SoundFile.close

    def cut_when_closed(file):
        name, writes = file.name, file.mode == "w" and not file.closed
        close(file)
        if writes and not isinstance(name, io.BytesIO):
            os.truncate(name, os.path.getsize(name) - 40)

    source = write(tmp_path / "a.wav")
    monkeypatch.setattr(helpers.sf.SoundFile, "close", cut_when_closed)
    with pytest.raises(OSError, match=r"b\.wav could not be written .*: check the disk"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_result_that_can_not_be_begun_is_told_without_its_number(tmp_path, monkeypatch):
    open_file = sf.SoundFile

    def refuses_to_write(path, mode="r", *arguments, **options):
        if mode != "r" and isinstance(path, bytes):
            raise sf.LibsndfileError(2, f"Error opening {path!r}: ")
        return open_file(path, mode, *arguments, **options)

    source = write(tmp_path / "a.wav")
    monkeypatch.setattr(helpers.sf, "SoundFile", refuses_to_write)
    with pytest.raises(OSError, match=r"b\.wav could not be written \(System error\.\): check the disk"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)


def test_result_that_does_not_reach_the_disk_is_told(tmp_path, monkeypatch):
    source = write(tmp_path / "a.wav")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match=r"b\.wav could not be written \(Input/output error\): check the disk"):
        helpers.denoise_file(source, tmp_path / "b.wav", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(("limit", "audio_format"), [(2 * RATE * 4, "RF64"), (2 * RATE * 4 + 1, "WAV")])
def test_wav_that_grows_too_long_becomes_rf64(tmp_path, monkeypatch, limit, audio_format):
    monkeypatch.setattr(helpers, "WAV_LIMIT", limit)
    denoised(write(tmp_path / "a.flac"), tmp_path / "b.wav")
    assert sf.info(tmp_path / "b.wav").format == audio_format


def test_long_wav_in_gsm_stays_one(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "WAV_LIMIT", RATE)
    denoised(write(tmp_path / "a.wav", subtype="GSM610"), tmp_path / "b.wav")
    assert sf.info(tmp_path / "b.wav").subtype == "GSM610"


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "PCM_16"])
def test_what_is_a_little_beyond_full_scale_does_not_turn_over(tmp_path, subtype):
    signal = 0.92 * np.sin(np.arange(2 * RATE) * 0.1)
    helpers.denoise_file(write(tmp_path / "a.wav", signal, subtype=subtype), tmp_path / "b.wav", Fixed(-0.09))
    result, _ = sf.read(tmp_path / "b.wav")
    assert 1 < 1.09 * np.abs(signal).max() < 1.005
    np.testing.assert_allclose(result, 1.09 * signal, atol=0.04)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file with a hole may take the disk")
@pytest.mark.parametrize("states", [0xFFFFFFFF, 1000])
def test_wav_beyond_4_gb_is_read_to_its_end(tmp_path, states):
    path = write(tmp_path / "a.wav")
    with path.open("rb+") as file:
        header = file.read(44)
        file.seek(40)
        file.write(struct.pack("<I", states))
        file.seek(5 << 30)
        file.write(b"\x10\x20" * RATE)
    n = ((5 << 30) - len(header)) // 2 + RATE
    with helpers.open_audio(path) as audio:
        assert audio.n_samples == n
        audio.skip(n - RATE)
        np.testing.assert_array_equal(audio.read(2 * RATE), np.full((1, RATE), 0x2010 / 32768, np.float32))
        assert not audio.fault()


def test_signal_while_a_header_is_mended_ends_the_run(tmp_path, monkeypatch):
    """libsndfile reads such files by way of Python, which drops what is raised there."""
    path = write(tmp_path / "a.wav", speech_like(60))
    path.write_bytes(path.read_bytes()[:40] + b"\xff" * 4 + path.read_bytes()[44:])
    readinto, interrupts = helpers._Mended.readinto, iter([signals.SIGINT])

    def interrupted(self, buffer):
        if self.tell() > 100_000:
            for number in interrupts:
                signals.raise_signal(number)
        return readinto(self, buffer)

    monkeypatch.setattr(helpers._Mended, "readinto", interrupted)
    monkeypatch.setattr(helpers, "BLOCK", 5)
    signals.signal(signals.SIGINT, signals.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        helpers.denoise_file(path, tmp_path / "b.wav", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_signal_while_a_layout_is_checked_ends_the_run(tmp_path, monkeypatch):
    interrupts = iter([signals.SIGINT])

    class Interrupted(io.BytesIO):
        def write(self, data):
            for number in interrupts:
                signals.raise_signal(number)
            return super().write(data)

    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(helpers.io, "BytesIO", Interrupted)
    signals.signal(signals.SIGINT, signals.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        helpers.denoise_file(path, tmp_path / "b.ogg", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


class BadDisk(io.FileIO):
    """A file of which no more than the first 100 bytes can be read."""

    def read(self, size=-1):
        if self.tell() + size > 100:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.wav", "pcm_s16le"), ("a.opus", "libopus")])
def test_a_disk_that_fails_is_no_end(tmp_path, monkeypatch, name, codec):
    path = encode(tmp_path / name, codec)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    monkeypatch.setattr(Path, "open", lambda path, mode: BadDisk(path))
    for read in (helpers.read_audio, lambda path: helpers.denoise_file(path, tmp_path / "b.wav", MODEL)):
        with pytest.raises(ValueError, match=rf"{name}.* can't be read \(Input/output error\): check the disk"):
            read(path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def with_checksum(page):
    return page[:22] + helpers._ogg_checksum(page) + page[26:]


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_pauses_that_only_the_times_of_opus_tell_of(tmp_path, name):
    """So WebRTC recorders write what a browser that hears silence does not send."""
    path = write(tmp_path / name, speech_like(4, 48000), 48000, format="OGG", subtype="OPUS")
    head, tags, first, second, *pages = helpers._ogg_pages(path)  # of 1 s each
    for i, page in enumerate(pages):
        time = int.from_bytes(page[6:14], "little") + 3 * 48000
        pages[i] = page[:6] + time.to_bytes(8, "little") + page[14:]
    path.write_bytes(b"".join(map(with_checksum, (head, tags, first, second, *pages))))
    signal, warned = denoised(path, tmp_path / f"b{path.suffix}")
    seconds = np.abs(signal[: 7 * 48000]).reshape(7, -1).mean(axis=1)
    assert list(seconds[[0, 3, 6]] > 0.1) == [True, False, True] and not warned
    assert abs(len(signal) - 7 * 48000) < 48000 * 0.05


def without_every_tenth_packet(page):
    """A page of Ogg whose packets take one segment each."""
    position, packets = 27 + page[26], []
    for size in page[27:position]:
        packets.append(page[position : position + size])
        position += size
    kept = [packet for i, packet in enumerate(packets) if i % 10 != 5]
    return page[:26] + bytes([len(kept)]) + bytes(map(len, kept)) + b"".join(kept)


def test_packets_of_opus_that_were_lost_on_the_way(tmp_path):
    """So write recorders of RTP, here with each loss too short for a pause."""
    path = write(tmp_path / "a.opus", speech_like(30, 48000), 48000, format="OGG", subtype="OPUS")
    head, tags, *pages = helpers._ogg_pages(path)
    path.write_bytes(b"".join(map(with_checksum, (head, tags, *map(without_every_tenth_packet, pages)))))
    signal, told = denoised(path, tmp_path / "b.opus")
    assert abs(len(signal) - 30 * 48000) < 0.3 * 48000 and not told


def test_opus_that_does_not_say_that_it_ends(tmp_path):
    path = write(tmp_path / "a.opus", speech_like(5, 48000), 48000, format="OGG", subtype="OPUS")
    *pages, last = helpers._ogg_pages(path)
    last = last[:5] + bytes([last[5] & ~4]) + last[6:]
    signal, told = denoised(with_bytes(path, b"".join(map(with_checksum, (*pages, last)))), tmp_path / "b.opus")
    assert abs(len(signal) - 5 * 48000) < 1000 and "seems to have been cut" in told[0]


def test_a_minute_of_vorbis_at_a_high_rate(tmp_path):
    """libvorbis ended the process when it got so much at once."""
    denoised(write(tmp_path / "a.wav", np.zeros(60 * 48000), 48000), tmp_path / "b.ogg")
    assert sf.info(tmp_path / "b.ogg").frames == 60 * 48000


TAGS = {"title": "Call 4711", "artist": "Agent Smith", "date": "2024-05-01", "comment": "café"}
ALL_TAGS = TAGS | {"album": "May", "genre": "Speech", "copyright": "We", "tracknumber": "7", "license": "none"}


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3"])
def test_tags_are_carried_over(tmp_path, ending):
    with sf.SoundFile(tmp_path / f"a{ending}", "w", RATE, 1) as file:
        for name, text in (TAGS if ending == ".mp3" else ALL_TAGS).items():  # in MP3 the mark takes the number's place
            setattr(file, name, text)
        file.write(speech_like())
    denoised(tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    with sf.SoundFile(tmp_path / f"a{ending}") as before, sf.SoundFile(tmp_path / f"b{ending}") as after:
        held, carried = before.copy_metadata(), after.copy_metadata()
        for name in set(ALL_TAGS) & set(held):  # in MP3 the comment comes behind the mark
            assert carried[name].endswith(held[name]) and (carried[name] == held[name] or name == "comment")
        assert "title" in held


@pytest.mark.parametrize("comment", ["ü", "für", "Grüße", "Grüße aus Köln und Zürich"])
def test_comments_of_mp3_are_not_ascii_alone(tmp_path, comment):
    with sf.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.comment = comment
        file.write(speech_like())
    helpers.denoise_file(tmp_path / "a.flac", tmp_path / "b.mp3", MODEL)
    with helpers.open_audio(tmp_path / "b.mp3") as audio:
        assert audio.tags["comment"].strip().endswith(f" {comment}")


def test_long_tags_of_mp3_are_not_ascii_alone(tmp_path):
    with sf.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        file.title, file.comment = "Zoë grün", "Agent 12 of the team of Zoë"
        file.write(speech_like())
    denoised(tmp_path / "a.flac", tmp_path / "b.mp3")
    with sf.SoundFile(tmp_path / "b.mp3") as file:
        assert file.title == "Zoë grün" and file.comment.endswith("Agent 12 of the team of Zoë")


LATIN_1 = b"LIST\x14\0\0\0INFOINAM\x07\0\0\0" + "Müller\0\0".encode("latin-1")


def test_tags_in_latin_1_are_carried_over(tmp_path):
    denoised(with_bytes(tmp_path / "a.wav", wav(4 * RATE, speech_like(), extra=LATIN_1)), tmp_path / "b.wav")
    with sf.SoundFile(tmp_path / "b.wav") as file:
        assert file.title == "Müller"


def test_tags_in_latin_1_that_ffmpeg_reads_are_carried_over_but_for_a_letter(tmp_path):
    denoised(g726(tmp_path / "a.wav", tail=LATIN_1), tmp_path / "b.wav")
    with sf.SoundFile(tmp_path / "b.wav") as file:
        assert file.title.startswith("M") and file.title.endswith("ller")


def test_voice_message_stays_opus(tmp_path):
    denoised(write(tmp_path / "a.ogg", format="OGG", subtype="OPUS"), tmp_path / "b.ogg")
    assert sf.info(tmp_path / "b.ogg").subtype == "OPUS"


@pytest.mark.parametrize(("name", "codec"), [("a.mka", "pcm_s16le"), ("a.ogg", "libopus")])
def test_second_track_is_told(tmp_path, name, codec):
    with av.open(str(tmp_path / name), "w") as container:
        streams = [container.add_stream(codec, rate=RATE, layout="mono") for _ in range(2)]
        for stream in streams:
            container.mux([*stream.encode(audio_frame(np.zeros(2 * RATE, np.int16))), *stream.encode(None)])
    _, told = denoised(tmp_path / name, tmp_path / "b.wav")
    assert len(told) == 1 and "2 sound tracks: only the first" in told[0]


def test_picture_that_is_longer_than_the_sound_is_no_cut(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 16
        picture.pix_fmt = "yuv420p"
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        container.mux([*stream.encode(audio_frame(np.zeros(RATE, np.int16))), *stream.encode(None)])
        for _ in range(50):
            container.mux(picture.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(picture.encode(None))
    signal, told = denoised(tmp_path / "a.mkv", tmp_path / "b.wav")
    assert len(signal) == RATE and told == []


def test_tags_of_a_phone_are_carried_over(tmp_path):
    denoised(encode(tmp_path / "b.m4a", "aac", tags=TAGS), tmp_path / "c.wav")
    with sf.SoundFile(tmp_path / "c.wav") as file:
        assert {name: getattr(file, name) for name in TAGS} == TAGS


def test_broadcast_chunk_is_carried_over(tmp_path):
    bext = b"Call to the desk".ljust(256, b"\0") + b"Recorder 7".ljust(32, b"\0") + b"REF1".ljust(32, b"\0")
    bext += b"2024-05-0112:00:00" + struct.pack("<QH", 123456789, 1) + bytes(64 + 190)
    chunk = b"bext" + struct.pack("<I", len(bext)) + bext
    denoised(with_bytes(tmp_path / "a.wav", wav(4 * RATE, speech_like(), extra=chunk)), tmp_path / "b.wav")
    content = (tmp_path / "b.wav").read_bytes()
    start = content.index(b"bext") + 8
    assert content[start : start + 346] == bext[:346]


# Names and messages


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are Unicode there")
@pytest.mark.parametrize("ending", [".wav", ".m4a"])
def test_names_that_are_not_utf8(tmp_path, ending, capsys):
    name = os.fsdecode(b"caf\xe9")
    plain = write(tmp_path / "a.wav") if ending == ".wav" else encode(tmp_path / "a.m4a", "aac")
    (tmp_path / "in").mkdir()
    plain.rename(tmp_path / "in" / f"{name}{ending}")
    (tmp_path / "in" / f"bad {name}.wav").write_bytes(b"no sound")
    denoised(tmp_path / "in" / f"{name}{ending}", tmp_path / f"{name}.flac")
    assert helpers.main(["denoise", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / f"{name}.wav").exists()
    assert r"bad caf\xe9.wav" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="such names are not possible there")
def test_messages_of_two_files_are_never_merged(tmp_path, capsys):
    for name in ("a  b.wav", "a b.wav", "a\nb.wav"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"no sound")
    helpers.main(["denoise", str(tmp_path / "in"), str(tmp_path / "out")])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 3 and r"a\nb.wav" in "".join(errors)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mp3", b"<html>" * 100, "it holds no MP3|Format not recognised"),
        ("a.wav", wav(2000, speech_like(1)).replace(struct.pack("<I", RATE), bytes(4)), "a rate that no recording has"),
    ],
)
def test_what_libsndfile_misnames(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        helpers.read_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("ending", "comment"), [(".mp3", "Agent 12"), *((ending, 70_000 * "a") for ending in (".mp3", ".flac"))]
)
def test_results_of_recordings_with_a_comment_are_known(tmp_path, ending, comment):
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    with sf.SoundFile(source, "w", RATE, 1) as file:
        file.comment = comment
        file.write(0.1 * np.random.default_rng(0).standard_normal(20 * RATE))  # more than is read to find the mark
    for _ in range(2):  # what bears the mark is replaced
        helpers.denoise_file(source, target, MODEL)
    helpers.denoise_file(target, tmp_path / f"c{ending}", MODEL)
    for path in (target, tmp_path / f"c{ending}"):
        assert len(set(helpers._marks(path))) == 1
        with sf.SoundFile(path) as file:
            assert file.comment.endswith(comment[-100:])


def test_damaged_wav_gets_no_advice_that_cannot_help(tmp_path):
    junk = b"JUNK" + struct.pack("<I", 13) + bytes(13)
    (tmp_path / "a.wav").write_bytes(wav(2 * RATE, speech_like(), extra=junk))
    with pytest.raises(ValueError, match=r"a\.wav is not audio that can be read") as caught:
        helpers.read_audio(tmp_path / "a.wav")
    assert "ffmpeg" not in str(caught.value)


# Level


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "ULAW"), ("a.wav", "PCM_16"), ("a.mp3", "MPEG_LAYER_III")])
def test_call_that_is_clipped_keeps_its_level(tmp_path, name, subtype):
    clipped = np.clip(4 * speech_like(), -1, 1)
    source = write(tmp_path / name, clipped, subtype=subtype)
    with warnings.catch_warnings(action="error"):
        helpers.denoise_file(source, tmp_path / "b.wav", Fixed(-0.06))
    expected, result = (sf.read(path)[0] for path in (source, tmp_path / "b.wav"))
    soft = np.abs(expected) < 0.8
    assert np.std(result[soft]) == pytest.approx(1.06 * np.std(expected[soft]), rel=0.02)


def test_call_that_is_loud_and_not_clipped_is_not_limited(tmp_path):
    signal = 0.8 * np.sin(np.arange(2 * RATE) * 0.1)
    with pytest.warns(UserWarning, match=r"b\.wav: attenuated by 1\.\d dB"):
        helpers.denoise_file(write(tmp_path / "a.wav", signal), tmp_path / "b.wav", Fixed(-0.5))
    assert helpers.si_sdr(signal[200:-200], sf.read(tmp_path / "b.wav")[0][200:-200]) > 40


def test_attenuation_of_0_db_is_none(tmp_path):
    source = write(tmp_path / "a.wav", 1.003 * np.sin(np.arange(RATE)), subtype="FLOAT")
    assert denoised(source, tmp_path / "b.flac")[1] == []


# Arrays


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8"])
def test_whole_numbers_are_scaled_by_their_type(dtype):
    sound = speech_like()
    info = np.iinfo(dtype)
    half = (info.max - info.min + 1) / 2
    whole = np.round(sound * half + (half if info.min == 0 else 0)).astype(dtype)
    enhanced = helpers.denoise(whole, model=MODEL)
    assert enhanced.dtype == np.float32 and np.abs(enhanced - sound).max() <= 0.51 / half + 1e-6


@pytest.mark.parametrize("shape", [(8000, 2), (8000, 70)])
def test_arrays_of_samples_and_channels_are_refused(shape):
    with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}\).*transpose it"):
        helpers.denoise(np.zeros(shape), model=MODEL)
