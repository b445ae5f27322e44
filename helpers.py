"""Speech enhancement with a U-Net: the vocabulary of the notebooks, from audio files to an enhanced recording.

Read it from top to bottom: each section names the notebook that introduces it.
Signals are float32 in [-1, 1] (larger values are kept, never wrapped), of shape `(samples,)` or `(channels, samples)`.
Spectrograms are complex64 of shape `(..., 128 bins, frames)`. Both are librosa's order of axes.

Run `python helpers.py --help` for the command line.
"""

import os
import signal as signals  # a signal is a sound here

if __name__ == "__main__":  # the imports that follow take half a second, and Ctrl-C would show a traceback of them
    for number in (signals.SIGINT, signals.SIGTERM):
        signals.signal(number, lambda number, _: os.write(2, b"error: interrupted\n") and os._exit(128 + number))

import argparse
import collections
import contextlib
import errno
import fnmatch
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import logging
import math
import operator
import platform
import re
import runpy
import shlex
import shutil
import struct
import sys
import tarfile
import tempfile
import threading
import time
import uuid
import warnings
import zipfile
import zlib
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf
import soxr

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that is open
    fcntl = None

STOPS = [signals.SIGINT, signals.SIGTERM]  # what ends a run; so does a closed terminal, but under nohup
if hasattr(signals, "SIGHUP") and signals.getsignal(signals.SIGHUP) != signals.SIG_IGN:
    STOPS.append(signals.SIGHUP)

# ONNX Runtime reports its use to its maker, unless this stands before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class _Pandas:
    """Pandas, imported on first use: a third of the start-up. Several threads may be the first."""

    def __getattr__(self, name):
        import pandas

        return getattr(pandas, name)


pd = _Pandas()

ROOT = Path(__file__).resolve().parent
MODEL = ROOT / "data" / "unet.keras"
RUNTIME_MODEL = MODEL.with_suffix(".onnx")  # the same network for ONNX Runtime, which starts in a tenth of the time

SAMPLE_RATE = 8000  # Hz: the rate of telephone calls; the highest frequency that it can hold is 4000 Hz
MIN_DURATION = 1.0  # s: a shorter file does not fill a frame and is left out of the corpus
HOP_LENGTH_FRAME = 8064  # samples from one speech frame to the next: 1.008 s, and the length of a frame
HOP_LENGTH_FRAME_NOISE = 5000  # samples from one noise frame to the next: they overlap, which makes more of them
N_SAMPLES = 50  # blends that are made when no number is given
N_FFT = 255  # samples under an STFT window: 32 ms, and 255 // 2 + 1 = 128 frequency bins, 31 Hz apart
HOP_LENGTH_FFT = 63  # samples from one STFT window to the next: 8 ms, so that a frame of 8064 has 128 columns

# ---------------------------------------------------------------------------------------------------------------------
# Corpus and audio files: notebook 01
# ---------------------------------------------------------------------------------------------------------------------

FORMATS = {  # the file name's ending, and what libsndfile, which reads and writes the format, calls it
    ".wav": "WAV",
    ".wave": "WAV",
    ".wav49": "WAV",
    ".wav16": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".au": "AU",
    ".snd": "AU",
    ".sph": "NIST",
    ".caf": "CAF",
    ".w64": "W64",
    ".rf64": "RF64",
}
CODECS = {  # endings with one sample format of their own
    ".ogg": "VORBIS",
    ".oga": "VORBIS",
    ".opus": "OPUS",
    ".mp3": "MPEG_LAYER_III",
    ".wav49": "GSM610",
}


def find_corpus(corpus=None):
    """Return the folder of the corpus: `corpus` if it is named, else `$SPEECH_CORPUS` if set, else `data/corpus` if
    downloaded, else `data/sample`.

    Raises FileNotFoundError if `$SPEECH_CORPUS` names no folder.
    """
    if corpus is not None:
        return Path(os.path.expanduser(corpus))
    chosen = os.environ.get("SPEECH_CORPUS")
    if chosen:
        # A notebook's kernel starts in notebooks/, a script in the folder above: try the path from both.
        for folder in (Path(chosen).expanduser(), ROOT / chosen):
            if folder.is_dir():
                return folder.resolve()
        raise FileNotFoundError(f"SPEECH_CORPUS names the folder {chosen}, which does not exist: correct or unset it")
    downloaded = ROOT / "data" / "corpus"
    return downloaded if (downloaded / "LibriSpeech").is_dir() else ROOT / "data" / "sample"


def _files_below(root, excluded=None):
    """The files below a folder, with what is hidden, and the errors (OSError) of folders that can't be read.

    What lies below the folder `excluded` is left out.
    """
    found, unread, seen, tops = [], [], set(), [root]
    for top in tops:  # folders behind links are added, and come last: each is listed where it really lies
        for folder, folders, files in os.walk(top, onerror=unread.append):
            real = Path(os.path.realpath(folder))
            if real in seen or (excluded and real.is_relative_to(excluded)):
                folders.clear()
                continue
            seen.add(real)
            hidden = [name for name in folders if name.startswith(".")]
            folders[:] = sorted(set(folders) - set(hidden))
            found += [Path(folder, name) for name in files + hidden]
            tops += [Path(folder, name) for name in folders if os.path.islink(os.path.join(folder, name))]
    return found, unread


def _sounds(folder):
    """The sound files below a folder, behind links as well, but hidden ones, sorted; a warning tells of those to
    convert first, and of folders that can't be read."""
    files, unread = _files_below(folder) if folder.exists() else ([], [])
    paths = sorted(path for path in files if not path.name.startswith("."))
    left_out = [f"{error.filename}: {error.strerror}" for error in unread]
    left_out += [f"{path}: convert it to wav" for path in paths if path.suffix.lower() in (*DECODED, *HEADERLESS)]
    if left_out:
        warnings.warn(f"{len(left_out)} files or folders left out:\n" + "\n".join(left_out), stacklevel=3)
    return [path for path in paths if path.suffix.lower() in FORMATS]


def _with_durations(table):
    """Add the column `duration` in seconds; name in a warning, and leave out, what cannot be read or is too short."""
    durations, left_out = {}, []
    for path in table["path"]:
        try:
            info = sf.info(_encoded(path))
            if info.duration < MIN_DURATION:
                left_out.append(f"{path}: {info.duration:.2f} s is shorter than {MIN_DURATION} s")
            elif _is_unknown(info.frames):
                left_out.append(f"{path}: it states no length: convert it")
            else:
                durations[path] = info.duration
        except sf.LibsndfileError as error:
            left_out.append(f"{path}: {error.error_string}")
    if left_out:
        warnings.warn(f"{len(left_out)} files left out:\n" + "\n".join(left_out), stacklevel=3)
    table["duration"] = table["path"].map(durations)
    return table.dropna(subset="duration", ignore_index=True)


def list_speech(corpus=None):
    """List the speech files of a corpus: LibriSpeech in its own layout, and other voices as extra speech.

    LibriSpeech is `LibriSpeech/<subset>/<speaker>/<chapter>/*.flac`, extra speech `speech/<subset>/<speaker>/*` in any
    sound format. Returns a DataFrame with the columns path, subset, speaker, chapter, utterance, split and duration
    (seconds). The split is by speaker: numbers divisible by 10 are for testing, numbers that end in 1 for validation.
    Extra speech has "<subset>/<speaker>" as speaker, chapter 0, and is for training.
    Files that are unreadable or shorter than MIN_DURATION are left out, with a warning that names them.
    Raises FileNotFoundError if the corpus holds no speech, and ValueError if a folder of LibriSpeech is no number.
    """
    corpus, rows = find_corpus(corpus), []
    for path in sorted(corpus.glob("LibriSpeech/*/*/*/*.flac")):
        subset, speaker, chapter = path.parts[-4:-1]
        if not (speaker.isdecimal() and chapter.isdecimal()):
            advice = f"put other voices into {corpus / 'speech'}"
            raise ValueError(f"{path}: speakers and chapters are numbers there; {advice}")
        split = {0: "test", 1: "validation"}.get(int(speaker) % 10, "train")
        rows.append((path, subset, int(speaker), int(chapter), path.stem, split))
    for path in _sounds(corpus / "speech"):
        subset, speaker = (*path.relative_to(corpus / "speech").parts[:-1], "", "")[:2]
        rows.append((path, subset, f"{subset}/{speaker}", 0, path.stem, "train"))
    if not rows:
        raise FileNotFoundError(
            f"no speech in {corpus}: it should hold LibriSpeech/<subset>/<speaker>/<chapter>/*.flac"
        )
    return _with_durations(pd.DataFrame(rows, columns=["path", "subset", "speaker", "chapter", "utterance", "split"]))


def list_noise(corpus=None):
    """List the noise files of a corpus: ESC-50 in its own layout, and every other folder of audio as extra noise.

    Returns a DataFrame with the columns path, category, fold, split and duration (seconds). The split is by ESC-50's
    folds: 1 is for testing, 2 for validation. Extra noise has its folder's name as category, fold 0, and is for
    training; `speech/` and `rir/` are no noise. Files that are unreadable or shorter than MIN_DURATION are left out,
    with a warning that names them.
    Raises FileNotFoundError if the corpus holds no noise, and ValueError if the table of ESC-50 can't be read.
    """
    corpus, rows, held_out = find_corpus(corpus), [], set()
    for meta in sorted(corpus.glob("ESC-50*/meta/esc50.csv")):
        try:
            types = {"filename": str, "fold": int, "category": str}
            clips = pd.read_csv(meta, usecols=list(types), dtype=types, keep_default_na=False)
        except ValueError as error:
            raise ValueError(f"{meta} is no table of clips: {error}") from error
        for clip in clips.sort_values("filename").itertuples():
            split = {1: "test", 2: "validation"}.get(clip.fold, "train")
            rows.append((meta.parents[1] / "audio" / clip.filename, clip.category, clip.fold, split))
            if split != "train":
                held_out.update(clip.filename.split("-")[1:2])
    for folder in sorted(corpus.iterdir() if corpus.is_dir() else []):
        others = ("LibriSpeech", "speech", "rir", "archives", "unpacking")  # the last two of `download_corpus`
        if folder.is_dir() and folder.name not in others and not folder.name.startswith(("ESC-50", ".")):
            # Other sets come from Freesound as ESC-50 does, and their names begin with its number of the recording, or
            # as ESC-50's do: none may be in two splits.
            numbers = {path: re.match(r"(\d+)(?:-(\d+))?", path.stem) for path in _sounds(folder)}
            files = (path for path, found in numbers.items() if not found or held_out.isdisjoint(found.groups()))
            rows.extend((path, folder.name, 0, "train") for path in files)
    if not rows:
        raise FileNotFoundError(f"no noise in {corpus}: it should hold ESC-50/audio/*.wav and ESC-50/meta/esc50.csv")
    return _with_durations(pd.DataFrame(rows, columns=["path", "category", "fold", "split"]))


def of_split(split, corpus, speech, noise):
    """The tables of speech and noise of a corpus, cut down to one split; raise ValueError if one of them lacks it."""
    parts = [table[table["split"] == split] for table in (speech, noise)]
    if min(map(len, parts)) == 0:
        raise ValueError(f"{corpus} has no speech or no noise for {split}: see the splits in data/README.md")
    return parts


def list_rooms(corpus=None):
    """List the room impulse responses of a corpus, the sound files below its folder `rir`; an empty list if none.

    What cannot be read or is silent is left out, with a warning that names it.
    """
    rooms, left_out = [], []
    for path in _sounds(find_corpus(corpus) / "rir"):
        try:
            (rooms if load_audio(path).any() else left_out).append(path)
        except (ValueError, OSError):
            left_out.append(path)
    if left_out:
        warnings.warn(f"{len(left_out)} rooms left out:\n" + "\n".join(map(str, left_out)), stacklevel=2)
    return rooms


def _by_number(file, path):
    """A path that leads to an open file, whatever other users put in the place of its `path`; on Linux alone."""
    number = f"/proc/self/fd/{file.fileno()}"
    return Path(number) if os.path.exists(number) else path  # which a system may hide


@contextlib.contextmanager
def _held(path):
    """Yield a path that leads to the file that `path` names now."""
    with open(path, "rb") as file:
        yield _by_number(file, Path(path))


@contextlib.contextmanager
def written_whole(path, source=None, opened=None):
    """Yield a hidden path beside `path` to write to: it becomes `path` when all is written, and else is removed.

    What is made from the file `source` gets its time of change, and can be read by nobody who can't read `source`.
    Folders that are missing are made, and can be listed by nobody who can't list those of `source`. `opened` is a path
    `_by_number` of `source`.
    """
    path, opened = Path(path), opened or source
    part = path.with_name(f".{uuid.uuid4().hex}.part{path.suffix}")  # two writers must not meet
    # Its time as it is now: what it gains while it is read is not in the result.
    origin = Path(opened).stat() if source and Path(opened).exists() else None
    mode = 0o666
    if origin:
        mode = _mode_of_readers(opened, path)
        _make_folder(path.parent, _absolute(source).parent)
        if _has_access_list(path.parent, "default"):
            mode = 0o600  # not for those whom the folder's list names
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "xb", opener=functools.partial(os.open, mode=mode)) as file:
            written = _by_number(file, part) if origin else part  # Keras wants to see the name's ending
            if origin and _of_one_group(mode, written, Path(opened)) != mode:
                written.chmod(0o600)
            if fcntl:
                with contextlib.suppress(OSError):  # not all network drives have locks
                    fcntl.flock(file, fcntl.LOCK_EX)  # as long as this process lives: see `remove_abandoned`
                    try:
                        written.write_bytes(b"\0")  # an empty one is taken for not locked yet
                    except OSError:  # on SMB a lock shuts out what is opened again, as libraries do
                        fcntl.flock(file, fcntl.LOCK_UN)
            yield written
            if origin:
                os.utime(written, ns=(origin.st_mtime_ns, origin.st_mtime_ns))
                if written.stat().st_mtime_ns < origin.st_mtime_ns:  # FAT keeps every second second
                    os.utime(written, ns=(origin.st_mtime_ns + 2_000_000_000,) * 2)
            if origin and fcntl and not (part.exists() and os.path.samestat(part.lstat(), os.fstat(file.fileno()))):
                raise OSError("what was written was removed by another program")
            if fcntl:  # as long as the lock holds
                os.replace(part, path)
        if not fcntl:  # Windows renames no open file
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _absolute(path):
    """The absolute path of a file, with its links, but without `..`, which leads out of where a link leads to."""
    path = Path(path).absolute()
    if ".." not in path.parts:
        return path
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _make_folder(folder, *models):
    """Make a folder that can be listed by nobody who can't list all of the folders `models`: names tell who called
    whom.

    What is missing above it has the folders above `models` as its models.
    """
    if not folder.exists() and folder != folder.parent:  # a drive may be missing
        _make_folder(folder.parent, *(model.parent for model in models))
        mode = 0o600 if _has_access_list(folder.parent, "default") else 0o666
        for model in models:
            mode &= _mode_of_readers(model, folder)
        folder.mkdir(mode | (mode & 0o444) >> 2, exist_ok=True)
        if _of_one_group(mode, folder, *models) != mode:
            folder.chmod(0o700)


def _mode_of_readers(source, target):
    """Mode bits with which nobody but its owner can read `target` who can't read `source`."""
    source = Path(source)
    mode, group = _mode(source) & 0o666, source.stat().st_gid
    source, target = source.resolve(), Path(target).parent.resolve() / Path(target).name  # a link is replaced
    for folder in set(source.parents) - set(target.parents):  # who may not pass a folder can't read what is in it
        passes = _mode(folder)
        if folder.stat().st_gid != group:  # to the folder, members of the file's group are any others
            passes = passes & 0o001 | (passes & 0o001) << 3
        mode &= 0o600 | 6 * (passes & 0o011)
    return mode | 0o600


def _of_one_group(mode, *paths):
    """The bits `mode` for files or folders, or the owner's alone if they are of several groups and not for all to read.

    Else another group could read what one may, or a group what it is shut out of.
    """
    groups = {path.stat().st_gid for path in paths}
    return mode if len(groups) == 1 or mode & 0o044 == 0o044 else mode & 0o700


def _mode(path):
    """The mode bits of a file or folder; its owner's alone if it has an access list, where the group's are a mask."""
    mode = path.stat().st_mode
    return mode & ~0o077 if _has_access_list(path) else mode


def _has_access_list(path, kind="access"):
    try:
        return f"system.posix_acl_{kind}" in os.listxattr(path)
    except (AttributeError, OSError):  # not all systems and drives have them
        return False


PARTS = f".{'[0-9a-f]' * 32}.part*"  # what `written_whole` names its files, as a pattern


def parts_below(folder):
    """The files that `written_whole` has not finished, or was killed in, below a folder: a list of paths."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in fnmatch.filter(names, PARTS)]


def remove_abandoned(parts):
    """Remove those of the files of `written_whole` whose writers were killed: those that nobody holds a lock on."""
    for part in filter(os.path.isfile, parts):
        with contextlib.suppress(OSError):  # its writer lives, or another run was faster
            now = part.stat()
            if not now.st_size and time.time() - now.st_mtime < 60:  # s; its writer is about to lock it
                continue
            if fcntl:
                with part.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    with part.open("rb") as again:
                        again.read(1)  # fails on SMB, where its writer may live without a lock
            part.unlink()


_STDERR = threading.Lock()  # two threads that put back what they found would leave it silent for ever


@contextlib.contextmanager
def _libraries_silent():
    """Hide what libraries in C write to the standard error stream past Python."""
    with _STDERR:
        try:
            stderr = os.dup(2)
        except OSError:  # a service may have none
            yield
            return
        try:
            with open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def read_audio(path, offset=0.0, duration=None, raw=None, rate=None):
    """Read a sound file as it is.

    Args:
        path: a file in any format that libsndfile or FFmpeg reads (wav, flac, ogg, mp3, m4a, amr, wma, ...).
        offset: where to start, in seconds.
        duration: how much to read, in seconds; to the end by default.
        raw: "ulaw", "alaw", "slin" (16 bits, little-endian) or "vox": the sample format of a file without a header,
            of one channel; by default its ending tells, as .ul and .gsm do.
        rate: the rate of such a file in Hz; by default that of its ending, or 8000.

    Returns: (signal, rate), float32 `(channels, samples)` in [-1, 1], beyond it only from files of floats, and the
    sample rate in Hz. If all is read, and the file was cut or is damaged, a warning tells.
    Raises: OSError, mostly FileNotFoundError, for a file that can't be opened, and ValueError for one that holds no
    readable audio, or if `offset` or `duration` is negative, infinite, or no time at all.
    """
    if not (0 <= offset < math.inf and (duration is None or 0 < duration < math.inf)):
        advice = "choose an offset of 0 or more, and a duration above 0"
        raise ValueError(f"{path}: {duration} s from {offset} s on can't be read: {advice}")
    with open_audio(path, raw, rate) as audio:
        try:
            if offset:
                audio.skip(round(offset * audio.rate))
            signal = audio.read(-1 if duration is None else round(duration * audio.rate))
            fault = audio.fault() if duration is None else ""
        except (sf.LibsndfileError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
    for text in filter(None, (audio.note, fault and f"{path} {fault}")):
        warnings.warn(text, stacklevel=2)
    if signal.size == 0:
        advice = "choose an earlier offset" if offset else "check that the recording is not empty"
        raise ValueError(f"{path} holds no audio at {offset:.2f} s: {advice}")
    return signal, audio.rate


def to_float(samples):
    """Scale whole numbers of any type to [-1, 1), as float32: by 32768 for int16, around 128 for uint8."""
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples - (half if samples.dtype.kind == "u" else 0)) / half).astype(np.float32)


def load_audio(path, offset=0.0, duration=None, raw=None, rate=None):
    """Load a sound file as one channel at 8 kHz: float32 `(samples,)`, the mean of the file's channels.

    Arguments and errors are those of `read_audio`, and a ValueError if samples are NaN or infinite.
    """
    signal, rate = read_audio(path, offset, duration, raw, rate)
    if not np.isfinite(signal).all():
        raise ValueError(f"{path}: samples are NaN or infinite: repair the recording first")
    return resample(signal.mean(axis=0), rate, SAMPLE_RATE)


def resample(signal, rate, new_rate):
    """Resample float32 `(samples,)` or `(channels, samples)` from one rate to another, both in Hz, by libsoxr.

    Between equal rates it returns the signal itself.
    """
    if rate == new_rate:
        return signal
    # A copy in C order: by older numpy, a single sample of several channels has strides that soxr does not take.
    return fix_length(soxr.resample(signal.T.copy(), rate, new_rate).T, math.ceil(signal.shape[-1] * new_rate / rate))


def _check_one_channel(signal):
    if np.ndim(signal) != 1:
        raise ValueError(f"expected one channel (samples,), got the shape {np.shape(signal)}: choose a channel")


def fix_length(signal, size):
    """Cut a signal `(..., samples)` to `size` samples, or append zeros."""
    missing = max(0, size - signal.shape[-1])
    return np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, missing)])[..., :size]


ARCHIVES = [  # address, checksum, and how the name of the folder that the archive holds begins
    (
        "https://www.openslr.org/resources/31/train-clean-5.tar.gz",
        "md5:5df7d4e78065366204ca6845bb08f490",
        "LibriSpeech/train-clean-5",
    ),
    (
        "https://www.openslr.org/resources/31/dev-clean-2.tar.gz",
        "md5:6d7ab67ac6a1d2c993d050e16d61080d",
        "LibriSpeech/dev-clean-2",
    ),
    (
        "https://github.com/karolpiczak/ESC-50/archive/33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
        "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
        "ESC-50",
    ),
]


LICENCES = {  # of the public sets that a corpus may hold, by the folder's name, for the card of a model trained on them
    "LibriSpeech": "CC BY 4.0",
    "ESC-50": "CC BY-NC 3.0",
    "ESC-50-master": "CC BY-NC 3.0",
    "UrbanSound8K": "CC BY-NC 3.0",
}


def download_corpus(folder=ROOT / "data" / "corpus", archives=ARCHIVES):
    """Download Mini LibriSpeech (460 MB) and ESC-50 (600 MB) and unpack them; what is already there is kept.

    Args:
        folder: where to. `find_corpus` finds the default.
        archives: list of (address, checksum such as "md5:..." or None, folder inside the archive, or how its name
            begins).

    Raises OSError, which says what to fetch by hand and where to put it, if a download fails, or if an archive would
    write outside of its folder.
    """
    import pooch

    folder = Path(folder)
    for left in folder.glob(".unpacking-*"):  # of runs that were killed
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)
    for address, checksum, content in archives:
        if any(path.is_dir() for path in folder.glob(f"{content}*")):
            continue
        archive, is_whole = folder / "archives" / Path(address).name, False
        try:
            pooch.retrieve(address, checksum, path=archive.parent, fname=archive.name, progressbar=True)
            is_whole = checksum is not None
            # Moved into place when it is whole, so that an interrupted run leaves nothing that looks complete. Another
            # run may do the same.
            with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-", ignore_cleanup_errors=True) as unpacked:
                _unpack(archive, unpacked)
                (folder / content).parent.mkdir(parents=True, exist_ok=True)
                for found in Path(unpacked).glob(f"{content}*"):
                    if not (folder / content).is_dir():
                        found.rename(folder / content)
            if not (folder / content).is_dir():
                raise ValueError(f"it holds no folder {content}")
        except Exception as error:  # no network, a wrong checksum, or not the expected archive: of many kinds
            if not (is_whole and isinstance(error, OSError)):  # else there is no room to unpack it, or no right
                archive.unlink(missing_ok=True)
            raise OSError(
                f"{address} could not be downloaded ({error}): fetch it by hand and unpack it in {folder}, so that"
                f" {folder / content} exists"
            ) from error


def _unpack(archive, folder):
    """Unpack a tar or zip archive; raise ValueError or tarfile.FilterError if it would write outside of `folder`."""

    def check(names):
        for name in names:
            if name.startswith("/") or ".." in Path(name).parts:
                raise ValueError(f"it would write {name}, outside of its folder")

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            check(file.namelist())
            file.extractall(folder)
    elif hasattr(tarfile, "data_filter"):
        with tarfile.open(archive) as file:
            check(file.getnames())
            file.extractall(folder, filter="data")  # refuses links that lead out
    else:
        raise ValueError("Python before 3.11.4 can't unpack it safely")


def play(signal):
    """Return a player for a signal `(samples,)` or `(2, samples)` at 8 kHz.

    It keeps the level, so that a quiet signal sounds quiet beside a loud one; what exceeds full scale is clipped.
    """
    from IPython.display import Audio

    return Audio(np.clip(to_float(signal), -1, 1), rate=SAMPLE_RATE, normalize=False)


# ---------------------------------------------------------------------------------------------------------------------
# Blending: notebook 03
# ---------------------------------------------------------------------------------------------------------------------


def frame_audio(signal, hop_length=HOP_LENGTH_FRAME):
    """Cut a signal `(samples,)` into frames `(n, 8064)`, one every `hop_length` samples; the last is zero-padded.

    They share their samples, and are read-only: copy them to change them.
    """
    n_hops = -(-max(len(signal) - HOP_LENGTH_FRAME, 0) // hop_length)
    padded = fix_length(signal, size=HOP_LENGTH_FRAME + n_hops * hop_length)
    return librosa.util.frame(padded, frame_length=HOP_LENGTH_FRAME, hop_length=hop_length, axis=0)


def blend(speech, noise, snr_db):
    """Scale noise to a signal-to-noise ratio and add it to speech.

    Args:
        speech, noise: float32 arrays `(..., samples)` of one shape.
        snr_db: power of speech over power of noise, each over all samples, in dB; a number or an array `(...)`.

    Returns: (noise, noisy) of the same shape, with noisy = speech + noise exactly.
    Beside silent speech, where no ratio is defined, the noise keeps its level.
    """
    speech_power = np.mean(np.square(speech, dtype=np.float64), axis=-1, keepdims=True)
    noise_power = np.mean(np.square(noise, dtype=np.float64), axis=-1, keepdims=True)
    wanted_power = speech_power / 10 ** (np.expand_dims(snr_db, -1) / 10)
    defined = (speech_power > 0) & (noise_power > 0)
    gain = np.sqrt(np.divide(wanted_power, noise_power, out=np.ones_like(wanted_power), where=defined))
    noise = (gain * noise).astype(np.float32)
    return noise, speech + noise


def random_crop(path, n_samples, rng):
    """Cut `n_samples` out of a noise file at random, as float32 `(n_samples,)`; a shorter file is repeated.

    Many noise clips are mostly digital silence: the crop is laid around a sample drawn in proportion to its energy.
    Errors are those of `load_audio`.
    """
    with open_audio(path) as audio:
        latest = max(0, (audio.n_samples or 0) / audio.rate - 30)  # of a recording of hours, half a minute is read
    clip = load_audio(path, rng.uniform(0, latest), duration=30)
    energy = np.square(clip, dtype=np.float64) + 1e-12
    start = rng.choice(len(clip), p=energy / energy.sum()) - rng.integers(n_samples)
    return np.take(clip, np.arange(start, start + n_samples), mode="wrap")


def random_blends(speech_frames, noise_frames, n_samples=N_SAMPLES, snr_db=(-5, 15), seed=0):
    """Draw speech and noise frames at random and blend them.

    Args:
        speech_frames, noise_frames: float32 arrays `(n, 8064)`.
        n_samples: how many blends to make.
        snr_db: lowest and highest signal-to-noise ratio in dB; drawn uniformly between them.
        seed: the same seed gives the same blends.

    Returns: (speech, noise, noisy), each float32 `(n_samples, 8064)`, with noisy = speech + noise exactly.
    """
    rng = np.random.default_rng(seed)
    speech = speech_frames[rng.integers(len(speech_frames), size=n_samples)]
    noise = noise_frames[rng.integers(len(noise_frames), size=n_samples)]
    return speech, *blend(speech, noise, rng.uniform(*snr_db, size=n_samples))


def telephone(signal, codec="ULAW", band_hz=(300, 3400)):
    """Pass a signal `(samples,)` at 8 kHz through a telephone channel: a band-pass filter, then a codec and back.

    `codec` is "ULAW" (North America, Japan) or "ALAW" (elsewhere), the two laws of ITU-T recommendation G.711 (1988),
    which keep 8 bits a sample; "GSM610", the first codec of mobile phones; "AMR", the usual one since; or "OPUS", that
    of calls over the internet. `band_hz` are the lowest and highest frequency that pass. Neither filter nor codec
    delays; what exceeds [-1, 1] is clipped. Raises ValueError if samples are NaN or infinite.
    """
    from scipy.signal import butter, sosfiltfilt

    _check_one_channel(signal)
    signal = to_float(signal)
    if not np.isfinite(signal).all():  # the filter would spread them over all samples
        raise ValueError("samples are NaN or infinite: repair the recording first")
    codec = codec.upper()
    band = butter(4, band_hz, "bandpass", fs=SAMPLE_RATE, output="sos")
    # Zeros on both sides let the filter ring out, and let it take signals shorter than itself.
    filtered = sosfiltfilt(band, np.pad(signal, SAMPLE_RATE // 10))[SAMPLE_RATE // 10 : -SAMPLE_RATE // 10]
    filtered = np.clip(filtered, -1, 1)
    if codec == "AMR":  # libsndfile does not have it
        return _amr(filtered)
    coded = io.BytesIO()
    sf.write(coded, filtered, SAMPLE_RATE, format="OGG" if codec == "OPUS" else "WAV", subtype=codec)
    coded.seek(0)
    return fix_length(sf.read(coded, dtype="float32")[0], len(signal))


def _amr(signal):
    """A signal `(samples,)` at 8 kHz after AMR at 12.2 kbit/s (3GPP TS 26.071), without the codec's delay."""
    import av

    encoder, decoder = av.CodecContext.create("libopencore_amrnb", "w"), av.CodecContext.create("amrnb", "r")
    for context in (encoder, decoder):
        context.sample_rate, context.layout = SAMPLE_RATE, "mono"
    encoder.format, encoder.bit_rate = "s16", 12200
    n_delayed, n_frame = 40, 160  # 5 ms of looking ahead, 20 ms
    samples = np.round(32767 * np.pad(signal, (0, n_delayed + -(len(signal) + n_delayed) % n_frame))).astype(np.int16)
    frames = [av.AudioFrame.from_ndarray(part[None], "s16", "mono") for part in samples.reshape(-1, n_frame)]
    for frame in frames:
        frame.sample_rate = SAMPLE_RATE
    packets = [packet for frame in (*frames, None) for packet in encoder.encode(frame)]
    decoded = [frame.to_ndarray()[0] for packet in (*packets, None) for frame in decoder.decode(packet)]
    return np.concatenate(decoded)[n_delayed:][: len(signal)]


def reverberate(signal, response):
    """Place a talker in a room: a signal `(samples,)`, convolved with the room's impulse response `(n,)`.

    The response is scaled to energy 1, which keeps the level, and begins at its peak, the direct sound, so that nothing
    is delayed. Returns float32 `(samples,)`.
    """
    from scipy.signal import oaconvolve

    response = response[np.argmax(np.abs(response)) :]
    response = response / np.sqrt(np.sum(np.square(response, dtype=np.float64)))
    return oaconvolve(signal, response)[: len(signal)].astype(np.float32)


def whisper(signal, rng):
    """Turn a voice into a whisper: a vocoder that excites the spectral envelope of speech with noise.

    The envelope is what the first 25 cepstral coefficients of each STFT window keep: formants, but no pitch. Below
    700 Hz a whisper has little. Float `(samples,)` at 8 kHz to float32 of the same shape.
    """
    cepstrum = np.fft.irfft(np.log(np.abs(stft(signal)) + 1e-6), axis=0)
    cepstrum[25:-24] = 0
    envelope = np.exp(np.fft.rfft(cepstrum, axis=0).real)
    envelope *= np.minimum(1, np.arange(len(envelope)) * SAMPLE_RATE / N_FFT / 700)[:, None]
    excitation = stft(rng.standard_normal(len(signal))) / STFT_GAIN
    return istft(envelope * excitation, len(signal))


# ---------------------------------------------------------------------------------------------------------------------
# Spectrograms: notebooks 02 and 04
# ---------------------------------------------------------------------------------------------------------------------


# librosa has these functions too, but importing them takes longer than denoising a short call.
# A Hann window, periodic: the sample after its last one would be zero again.
WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def stft(signal):
    """Short-time Fourier transform of a signal or a stack of them, as `librosa.stft` computes it.

    float `(..., samples)` to complex64 `(..., 128, 1 + (samples - 1) // 63)`; Hann windows of 255 samples, centred.
    8064 samples become 128 x 128. `istft` undoes it for any length.
    """
    # In double precision the round trip stays an order of magnitude below float32's own rounding.
    centred = np.pad(np.asarray(signal, dtype=np.float64), [(0, 0)] * (np.ndim(signal) - 1) + [(N_FFT // 2,) * 2])
    frames = np.lib.stride_tricks.sliding_window_view(centred, N_FFT, axis=-1)[..., ::HOP_LENGTH_FFT, :]
    return np.fft.rfft(WINDOW * frames).swapaxes(-1, -2).astype(np.complex64)


def istft(spectrogram, length):
    """The exact inverse of `stft`: complex `(..., 128, frames)` to float32 `(..., length)`."""
    # An odd N_FFT can't be inferred from the 128 bins: without it the signal would come out shifted by half a sample.
    frames = WINDOW * np.fft.irfft(spectrogram.swapaxes(-1, -2).astype(np.complex128), N_FFT)
    weights = np.broadcast_to(WINDOW**2, frames.shape[-2:])  # each sample was weighted by all windows that hold it
    signal = overlap_add(frames) / np.maximum(overlap_add(weights), 1e-12)
    return fix_length(signal[..., N_FFT // 2 :], length).astype(np.float32)


def overlap_add(frames):
    """Add frames `(..., n, 255)`, each 63 samples after the one before: `(..., samples)`."""
    n, n_parts = frames.shape[-2], -(-N_FFT // HOP_LENGTH_FFT)
    parts = fix_length(frames, n_parts * HOP_LENGTH_FFT).reshape(*frames.shape[:-1], n_parts, HOP_LENGTH_FFT)
    total = np.zeros((*frames.shape[:-2], n + n_parts - 1, HOP_LENGTH_FFT))
    for i in range(n_parts):
        total[..., i : i + n, :] += parts[..., i, :]
    return total.reshape(*total.shape[:-2], -1)


def magnitude_db(spectrogram):
    """Magnitude in dB, float32 of the same shape: 0 dB is a sine of amplitude 1, silence is -120 dB."""
    return librosa.amplitude_to_db(np.abs(spectrogram), ref=N_FFT / 4, amin=1e-6 * N_FFT / 4, top_db=None)


def signal_level(signal):
    """Root mean square of each signal, float32 `(...)` for `(..., samples)`; 1 for silence, so that it can divide.

    Silence is what lies below 1e-30, so that dividing by the level never overflows.
    """
    return audible_level(np.mean(np.square(signal, dtype=np.float64), axis=-1))


def audible_level(power):
    """The level of signals of float64 `power`, their mean square: see `signal_level`."""
    level = np.sqrt(power).astype(np.float32)
    return np.where(level > 1e-30, level, np.float32(1))


# A signal of root mean square 1 has STFT values of about this size: the root of the window's energy, sum(hann ** 2).
STFT_GAIN = np.float32(np.sqrt(3 / 8 * N_FFT))


def to_network(spectrogram, level):
    """Scale complex `(..., 128, frames)` by the noisy signal's `level` `(...)`: float32 `(..., 128, frames, 2)`.

    The last axis holds the real and the imaginary part. This is the one scaling between signals and the network's
    inputs and targets; it is linear, and `from_network` undoes it.
    """
    scaled = spectrogram / (STFT_GAIN * np.asarray(level)[..., None, None])
    return np.stack([scaled.real, scaled.imag], axis=-1).astype(np.float32)


def from_network(channels, level):
    """The inverse of `to_network`: float32 `(..., 128, frames, 2)` to complex `(..., 128, frames)`."""
    spectrogram = channels[..., 0] + 1j * channels[..., 1]
    return spectrogram * (STFT_GAIN * np.asarray(level)[..., None, None])


# ---------------------------------------------------------------------------------------------------------------------
# The U-Net, its loss and its training: notebook 05
# ---------------------------------------------------------------------------------------------------------------------


@functools.cache
def _keras():
    """Import Keras on first use, since it takes seconds, and without the messages of TensorFlow's start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences what comes later
    with _libraries_silent():  # the first messages come before that has been read
        import keras

        keras.ops.zeros(1)
    return keras


FRAME_MULTIPLE = 16  # four halvings of the time axis: the network takes any number of frames that 16 divides


@functools.cache
def _along():
    """The network's one layer that Keras does not have; a class, made on first use as Keras is imported."""
    keras = _keras()

    @keras.saving.register_keras_serializable("helpers")
    class Along(keras.layers.Layer):
        """Two GRUs that read `(batch, bins, frames, channels)` along one axis, forwards and backwards.

        `axis` is 1, along the bins of each frame, or 2, along the frames of each bin. The result has `2 * units`
        channels. To the GRU what lies on the other axis are more items of the batch (Luo, 2020).
        """

        def __init__(self, units, axis, **options):
            super().__init__(**options)
            self.units, self.axis = units, axis
            # Not Keras' Bidirectional: while a model is loaded, its copies of a layer can be those of another one.
            self.forwards = keras.layers.GRU(units, return_sequences=True)
            self.backwards = keras.layers.GRU(units, return_sequences=True, go_backwards=True)

        def build(self, shape):
            for gru in (self.forwards, self.backwards):
                gru.build((None, None, shape[-1]))
            super().build(shape)

        def compute_output_shape(self, shape):
            return *shape[:-1], 2 * self.units

        def call(self, x):
            ops = keras.ops
            rows = ops.swapaxes(x, 1, 2) if self.axis == 1 else x
            shape = ops.shape(rows)
            rows = ops.reshape(rows, (shape[0] * shape[1], shape[2], shape[3]))
            read = ops.concatenate([self.forwards(rows), ops.flip(self.backwards(rows), axis=1)], axis=-1)
            read = ops.reshape(read, (*shape[:3], 2 * self.units))
            return ops.swapaxes(read, 1, 2) if self.axis == 1 else read

        def get_config(self):
            return {**super().get_config(), "units": self.units, "axis": self.axis}

    return Along


def unet(widths=(32, 48, 80, 128), n_blocks=(0, 1, 3, 6), n_dual=2):
    """Build a U-Net that predicts the noise in a noisy spectrogram.

    Args:
        widths: channels after each halving of frequency and time, from fine to coarse.
        n_blocks: residual blocks at each of these levels; the decoder has one, where it begins.
        n_dual: dual-path blocks at each level but the finest, in the decoder as well.

    Returns: a Keras model from float32 `(batch, 128, frames, 2)`, the noisy spectrogram by `to_network`, to the
    noise's spectrogram of the same shape and scale; 16 must divide the number of frames. With random weights it
    predicts no noise at all, so that it changes nothing.

    The U-Net is Ronneberger's (2015), the complex mask Williamson's (2016), the residual blocks are He's (2016), with a
    gain that is zero at first (Goyal, 2017). GRUs read along frequency and along time: dual-path blocks (Luo, 2020), as
    first put into such a network by Le (DPCRN, 2021).
    The first layer already halves the resolution: full-resolution layers cost the most and bring the least.
    """
    keras = _keras()
    layers, ops = keras.layers, keras.ops

    def normalise(x, gain="ones"):
        return layers.BatchNormalization(momentum=0.95, gamma_initializer=gain)(x)

    def convolve(x, layer, gain="ones"):
        return layers.LeakyReLU(0.1)(normalise(layer(x), gain))

    # Without a gain a block changes nothing at first, so that one can be put into a trained network.
    def residual_blocks(x, n):
        for _ in range(n):
            y = convolve(x, layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False))
            x = x + convolve(y, layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False), gain="zeros")
        return x

    def dual_path_blocks(x):
        for axis in (1, 2) * n_dual:
            read = _along()(x.shape[-1] // 2, axis)(x)
            x = x + normalise(layers.Dense(x.shape[-1], use_bias=False)(read), gain="zeros")
        return x

    # Loudness spans five orders of magnitude; the power 0.3 brings it to about two, close to how we hear it.
    noisy = keras.Input((N_FFT // 2 + 1, None, 2))
    magnitude = _magnitude(noisy)
    x = ops.concatenate([magnitude**0.3, noisy * magnitude**-0.7], axis=-1)  # (batch, 128, frames, 3)

    skips = []
    for width, n in zip(widths, n_blocks, strict=True):  # each level has half of the bins and frames of the one before
        kernel = 3 if skips else 4
        x = convolve(x, layers.Conv2D(width, kernel, strides=2, padding="same", use_bias=False))
        x = residual_blocks(x, n)
        x = dual_path_blocks(x) if skips else x  # at the finest level GRUs would take most of the time
        skips.append(x)
    for level in reversed(range(len(widths) - 1)):
        width, skip = widths[level], skips[level]
        x = convolve(x, layers.Conv2DTranspose(width, 4, strides=2, padding="same", use_bias=False))
        x = convolve(ops.concatenate([x, skip], axis=-1), layers.Conv2D(width, 3, padding="same", use_bias=False))
        x = residual_blocks(x, 1 if level == len(widths) - 2 else 0)
        x = dual_path_blocks(x) if level else x
    passes = keras.initializers.Constant([np.arctanh(1 / 1.5).item(), 0.0])  # the mask is zero at first
    last = layers.Conv2DTranspose(2, 4, strides=2, padding="same", kernel_initializer="zeros", bias_initializer=passes)
    # The mask is that of the noise: 0 lets a bin pass, 1 deletes it. A complex one turns phases as well.
    kept_real, kept_imaginary = ops.split(1.5 * ops.tanh(last(x)), 2, axis=-1)
    mask_real, mask_imaginary = 1 - kept_real, -kept_imaginary
    real, imaginary = ops.split(noisy, 2, axis=-1)
    noise = ops.concatenate(
        [mask_real * real - mask_imaginary * imaginary, mask_real * imaginary + mask_imaginary * real], axis=-1
    )
    return keras.Model(noisy, noise, name="unet")


def transfer_weights(weights, model):
    """Give a U-Net the weights, a list of arrays, of one with the same widths and as many blocks of each kind or fewer.

    Blocks that only the new network has stay what they are at first, identities: it predicts what the old one did
    (Chen, 2016). Raises ValueError, with the model left half filled, if the weights fit no such network.
    """
    weights = list(weights)
    for variable in model.weights:
        if weights and weights[0].shape == tuple(variable.shape):
            variable.assign(weights.pop(0))
    if weights:
        raise ValueError("the model to start from is no `unet` of these widths, with as many blocks or fewer")


def _magnitude(channels):
    """Magnitude `(..., 1)` of real and imaginary parts `(..., 2)`; the 1e-6 keeps gradients of its powers finite."""
    ops = _keras().ops
    return ops.sqrt(ops.sum(ops.square(channels), axis=-1, keepdims=True) + 1e-6)


LOSS_WEIGHTS = {"magnitude": 0.6, "distortion": 0.25, "hearing": 0.2, "intelligibility": 1.0, "mel": 0.3}


def loss_terms(y_true, y_pred):
    """The distances between clean and enhanced speech that `spectral_loss` adds up: a dict of `(batch,)`.

    Args:
        y_true: `(batch, 128, frames, 4)`, the true spectrograms of noise and speech by `to_network`, side by side.
        y_pred: `(batch, 128, frames, 2)`, the predicted spectrogram of the noise.

    `magnitude` is the mean square error of magnitudes to the power 0.3 (Ephrat, 2018; Braun, 2021); `distortion`, minus
    the signal-to-distortion ratio in bels (tens of dB), keeps strong speech intact. `hearing` and `intelligibility`
    imitate a listener, `mel` a speech recogniser: the first two alone leave audible noise.
    """
    ops = _keras().ops
    noise, speech = ops.split(y_true, 2, axis=-1)
    noisy = speech + noise
    enhanced = noisy - y_pred
    magnitude, enhanced_magnitude = _magnitude(speech), _magnitude(enhanced)
    axes = (1, 2, 3)
    floor = 1e-3 * ops.sum(ops.square(noisy), axis=axes) + 1e-6  # 30 dB below the recording is silence
    signal, distortion = (ops.sum(ops.square(x), axis=axes) + floor for x in (speech, speech - enhanced))
    return {
        "magnitude": ops.mean(ops.square(magnitude**0.3 - enhanced_magnitude**0.3), axis=axes),
        "distortion": ops.log10(distortion / signal),
        "hearing": hearing_loss(speech, enhanced),
        "intelligibility": intelligibility_loss(speech, enhanced),
        "mel": mel_loss(speech, enhanced, noisy),
    }


def spectral_loss(y_true, y_pred):
    """How wrong a prediction is, `(batch,)`: the sum of `loss_terms`, weighted by LOSS_WEIGHTS."""
    return sum(LOSS_WEIGHTS[name] * term for name, term in loss_terms(y_true, y_pred).items())


def bark_bands():
    """Weights `(128, 42)` that average the power of STFT bins in bands that are equally wide on the Bark scale."""
    bark = 6 * np.arcsinh(librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT) / 600)  # Wang (1992)
    centres = np.linspace(1, 15, 42)  # as many as in P.862, from 100 Hz to 3.6 kHz, what a telephone lets pass
    weights = np.maximum(0, 1 - 3 * np.abs(bark[:, None] - centres))
    return weights / weights.sum(axis=0)


def hearing_loss(speech, enhanced):
    """How many points of PESQ are lost, roughly: `(batch,)` for spectrograms `(batch, 128, frames, 2)`.

    A differentiable sketch of ITU-T P.862 (2001), whose points P.862.1 maps to those of `measure`, with its constants:
    frames brought to the level of the clean ones, loudness by Zwicker's law in bands as wide as those of the ear, a
    difference that counts only beyond masking, noise that was added counting more than speech that was lost, and the
    worst moments counting more than the mean. Martin-Donas (2018) trained with such a distance first.
    """
    ops = _keras().ops
    power = ops.mean(ops.sum(ops.square(speech), axis=-1), axis=(1, 2)) + 1e-4
    scale = 1e7 * 2.764e-3 * STFT_GAIN**2 / power[:, None, None]  # speech is heard at one level, 79 dB

    def bark_power(spectrogram):
        return scale * ops.einsum("bftc,fk->btk", ops.square(spectrogram), bark_bands().astype(np.float32))

    def loudness(power, threshold=0.4):
        return 0.1866 * (threshold / 0.5) ** 0.23 * ((0.5 + 0.5 * power / threshold) ** 0.23 - 1)

    clean, result = bark_power(speech), bark_power(enhanced)
    # P.862 forgives what changes a frame's level alone, by a gain that keeps a fifth of what it was 16 ms, or two
    # frames, before; these are the first three terms of that.
    gain = (ops.sum(clean, axis=-1) + 5e3) / (ops.sum(result, axis=-1) + 5e3)
    gain = ops.pad(ops.clip(gain, 3e-4, 5.0), ((0, 0), (2, 0)), "symmetric")
    result = result * (0.55 * gain[:, 2:] + 0.25 * gain[:, 1:-1] + 0.2 * gain[:, :-2])[..., None]
    clean_loudness, result_loudness = loudness(clean), loudness(result)
    masked = 0.25 * ops.minimum(clean_loudness, result_loudness)
    disturbance = ops.relu(ops.abs(result_loudness - clean_loudness) - masked)
    added = ((result + 50) / (clean + 50)) ** 1.2
    added = ops.where(added < 3, 0.0, ops.minimum(added, 12.0))
    in_frame = 9.4 * ops.sqrt(ops.mean(ops.square(disturbance), axis=-1) + 1e-4)
    added_in_frame = 15.5 * ops.mean(disturbance * added, axis=-1)

    def over_time(frames):  # the worst moments of each 320 ms count most
        pieces = ops.average_pool(ops.minimum(frames, 45.0)[..., None] ** 6, 40, 20, padding="same")
        return ops.sqrt(ops.mean((pieces + 1e-6) ** (1 / 3), axis=(1, 2)))

    return 0.1 * over_time(in_frame) + 0.0309 * over_time(added_in_frame)


def third_octave_bands():
    """Weights `(128, 15)` that add up the power of STFT bins in third octaves from 150 Hz to 3.8 kHz."""
    frequency = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT)[:, None]
    centres = 150 * 2 ** (np.arange(15) / 3)
    return (np.abs(np.log2(np.maximum(frequency, 1) / centres)) < 1 / 6).astype(np.float32)


def intelligibility_loss(speech, enhanced):
    """How much intelligibility is lost: 1 - ESTOI, roughly, `(batch,)` for spectrograms `(batch, 128, frames, 2)`.

    ESTOI (Jensen, 2016) compares how loudness moves: in pieces of 384 ms, the envelopes of third octaves, normalised
    over time and then over the bands, are correlated. Silent frames, 40 dB below the loudest, don't count.
    """
    ops = _keras().ops

    def pieces(frames):  # (batch, ..., frames) to (batch, ..., pieces, 48 frames of 8 ms)
        return ops.extract_sequences(frames, 48, 12)

    def normalised(x, axis):
        x = x - ops.mean(x, axis=axis, keepdims=True)
        return x / ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=True) + 1e-6)

    def envelopes(spectrogram):  # (batch, 15 bands, pieces, 48)
        power = ops.einsum("bftc,fk->bkt", ops.square(spectrogram), third_octave_bands())
        return normalised(normalised(pieces(ops.sqrt(power + 1e-6)), axis=-1), axis=1)

    correlation = ops.sum(envelopes(speech) * envelopes(enhanced), axis=1)
    power = ops.sum(ops.square(speech), axis=(1, 3))
    audible = pieces(ops.cast(power > 1e-4 * ops.max(power, axis=-1, keepdims=True), "float32"))
    return ops.sum((1 - correlation) * audible, axis=(1, 2)) / (ops.sum(audible, axis=(1, 2)) + 1)


def mel_loss(speech, enhanced, noisy):
    """How far log-mel spectra, what speech recognisers read, are apart: bels, `(batch,)`.

    For spectrograms `(batch, 128, frames, 2)`: 40 bands of equal width on the mel scale. What lies 40 dB below the
    loudest band of the noisy one counts as silence. In decibels a faint consonant weighs as much as a loud vowel.
    """
    ops = _keras().ops
    mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=40)
    speech, enhanced, noisy = (ops.einsum("bftc,kf->bkt", ops.square(x), mel) for x in (speech, enhanced, noisy))
    floor = 1e-4 * ops.max(noisy, axis=(1, 2), keepdims=True) + 1e-6
    return ops.mean(ops.abs(ops.log10(speech + floor) - ops.log10(enhanced + floor)), axis=(1, 2))


class BlendedSpeech:
    """An endless supply of training batches, blended on the fly; batch `i` depends on the seed and on `i` alone.

    Args:
        speech, noise: tables by `list_speech` and `list_noise`, already cut down to one split.
        rooms: files of room impulse responses, as `list_rooms` lists them.
        batch_size: blends in a batch.
        n_frames: STFT frames in a blend; 512 are 4 s.
        seed: another seed gives other blends.

    `source[i]` is `(inputs, targets)`, float32 `(batch_size, 128, n_frames, 2)` and `(batch_size, 128, n_frames, 4)`:
    the noisy spectrogram, and those of noise and speech side by side. Memory use does not depend on the corpus.
    Raises ValueError if one of the tables is empty.
    """

    def __init__(self, speech, noise, rooms=(), batch_size=6, n_frames=512, seed=0):
        if min(len(speech), len(noise)) == 0:
            raise ValueError(f"{len(speech)} files of speech and {len(noise)} of noise can't be blended: give both")
        self.speech, self.noise, self.rooms = speech, noise, rooms
        self.batch_size, self.seed = batch_size, seed
        self.n_samples = n_frames * HOP_LENGTH_FFT

    def __getitem__(self, index):
        speech, noise, level, tilts = self.signals(index)
        speech, noise = (to_network(stft(x) * tilt, level) for x, tilt in zip((speech, noise), tilts, strict=True))
        return speech + noise, np.concatenate([noise, speech], axis=-1)

    def signals(self, index):
        """What batch `index` is made of: speech and noise, float32 `(batch_size, n_samples)`; the level `(batch_size,)`
        that the network is told; and for each of the two the gains of `random_tilts`, `(batch_size, 128, 1)`."""
        rng = np.random.default_rng((self.seed, index))
        blends = [self.readable_blend(rng) for _ in range(self.batch_size)]
        speech, noise, noisy = np.swapaxes(blends, 0, 1)  # each (batch_size, n_samples)
        # Calls hold pauses and loud words: the network must not rely on speech at one level.
        level = signal_level(noisy) * 10 ** (rng.uniform(-10, 10, self.batch_size) / 20)
        return speech, noise, level, [self.random_tilts(rng) for _ in range(2)]

    def readable_blend(self, rng):
        """A `random_blend`. A damaged file must not end a training: a warning tells, and other files are drawn."""
        for _ in range(20):
            try:
                return self.random_blend(rng)
            except (ValueError, OSError, sf.LibsndfileError) as error:
                warnings.warn(f"left out of the training: {error}", stacklevel=2)
        return self.random_blend(rng)

    def random_blend(self, rng):
        """One random blend: speech, noise and noisy, each float32 `(n_samples,)`."""
        speech = self.random_talkers(rng)
        noise = self.random_noise(rng) if rng.random() > 0.1 else np.zeros_like(speech)
        noise, noisy = blend(speech, noise, rng.uniform(-7, 20))
        if rng.random() < 0.03:  # nobody speaks
            speech, noisy = np.zeros_like(speech), noise
        if rng.random() < 0.35:  # a call: the codec adds a noise of its own, which depends on the level
            line = self.random_line(rng)
            speech, noisy = line(speech), line(noisy)
            noise = noisy - speech
        return speech, noise, noisy

    def random_talkers(self, rng):
        """Who is to be heard, float32 `(n_samples,)`: one talker, or a second one too, as in a call of one channel."""
        speech = self.random_speech(rng)
        if rng.random() > 0.2:
            return speech
        other = self.random_speech(rng)
        other *= signal_level(speech) / signal_level(other) * 10 ** (rng.uniform(-30, 0) / 20)
        if rng.random() < 0.5:  # both at once
            return speech + other
        turn = np.arange(self.n_samples) // rng.integers(SAMPLE_RATE // 2, 2 * SAMPLE_RATE)
        return np.where((turn + rng.integers(2)) % 2, speech, other)

    def random_speech(self, rng):
        """A crop of an utterance, float32 `(n_samples,)`, at times in a room or whispered; a shorter one is padded."""
        durations = self.speech["duration"].cumsum()
        row = self.speech.iloc[durations.searchsorted(rng.uniform(0, durations.iloc[-1]))]  # each second is as likely
        speed = rng.uniform(0.9, 1.1)
        duration = speed * self.n_samples / SAMPLE_RATE
        speech = load_audio(row.path, rng.uniform(0, max(0, row.duration - duration)), duration)
        speech = self.at_speed(speech, speed)
        if rng.random() < 0.02:
            speech = whisper(speech, rng)
        return self.in_random_room(speech, rng) if rng.random() < 0.1 else speech

    def in_random_room(self, signal, rng):
        """The signal in one of the rooms, where there are any, with the talker near to the microphone or far."""
        if len(self.rooms) == 0:
            return signal
        room = reverberate(signal, load_audio(self.rooms[rng.integers(len(self.rooms))]))
        return room + np.float32(rng.uniform(0, 1)) * signal

    def at_speed(self, signal, speed):
        """Play a signal faster or slower, which shifts its pitch: a few voices and noises sound like many."""
        return fix_length(resample(signal, speed * SAMPLE_RATE, SAMPLE_RATE), size=self.n_samples)

    def random_noise(self, rng):
        """80 % noise clips, one or two at a time; 12 % babble of 3 to 8 voices; 8 % coloured noise."""
        kind = rng.random()
        if kind < 0.8:
            paths = self.noise["path"].iloc[rng.integers(len(self.noise), size=rng.integers(1, 3))]
            speeds = rng.uniform(0.7, 1.4, size=len(paths))
            parts = [
                self.at_speed(random_crop(path, int(speed * self.n_samples), rng), speed)
                for path, speed in zip(paths, speeds, strict=True)
            ]
        elif kind < 0.92:
            parts = [self.random_speech(rng) for _ in range(rng.integers(3, 9))]
        else:  # power falls with frequency to the power 0 (white) to 2 (brown)
            spectrum = np.fft.rfft(rng.standard_normal(self.n_samples))
            spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
            parts = [np.fft.irfft(spectrum, self.n_samples)]
        noise = sum(part / signal_level(part) for part in parts)
        if rng.random() < 0.1:
            noise = self.in_random_room(noise, rng)
        if rng.random() < 0.2:  # it begins or ends
            noise[:: rng.choice([-1, 1])][: rng.integers(self.n_samples)] = 0
        return noise

    def random_line(self, rng):
        """A function that passes a signal through a telephone line of random level, band, codec and packet loss."""
        gain = np.float32(10 ** (rng.uniform(-20, 5) / 20))
        codecs = ["ULAW", "ALAW", "GSM610", "AMR", "OPUS"]
        options = {"codec": rng.choice(codecs, p=[0.25, 0.25, 0.15, 0.2, 0.15])}
        if rng.random() < 0.5:  # not every line has the standard's band
            options["band_hz"] = rng.uniform(50, 350), rng.uniform(3200, 3900)
        loss = rng.uniform(0.01, 0.1) if rng.random() < 0.1 else 0
        arrived = np.repeat(rng.random(-(-self.n_samples // 160)) >= loss, 160)[: self.n_samples]  # packets of 20 ms
        return lambda signal: telephone(gain * signal, **options) * arrived

    def random_tilts(self, rng):
        """Gains of microphones at each bin, `(batch_size, 128, 1)`: mostly flat, at times darker or brighter."""
        tilt_db = rng.uniform(-15, 15, self.batch_size) * (rng.random(self.batch_size) < 0.3)
        position = np.linspace(-0.5, 0.5, N_FFT // 2 + 1)  # of the bin, from 0 to 4 kHz
        return 10 ** (tilt_db[:, None, None] / 20 * position[:, None])


def train(output=MODEL, corpus=None, epochs=24, steps_per_epoch=200, learning_rate=1e-3, start=None, seed=0):
    """Train the U-Net on blends made on the fly, and write the best model with its card.

    Args:
        output: the model's file, `.keras`; beside it are written its card, `.json`, and the model for ONNX Runtime,
            `.onnx`, by `export`. What a resumed run needs lies in a folder `<name>-training`, with the log
            `history.csv`: a killed run, started again with the same arguments, goes on where it was, and with others
            is refused. Remove the folder to start afresh.
        corpus: folder of the corpus; by default that of `find_corpus`.
        epochs, steps_per_epoch: the learning rate falls to zero along their product, as a cosine.
        learning_rate: its highest value, after 200 steps of warm-up.
        start: a trained model's file to go on from, instead of random weights; it may have fewer blocks.
        seed: of the weights and the blends.

    Returns: (model, history), the history as a DataFrame with a row per epoch.
    Raises ValueError or FileNotFoundError, before anything is written, if an argument or the corpus can't be used; and
    ValueError if no epoch had a finite loss, or OSError if a killed run left nothing to go on from, or the corpus can't
    be read any more. TypeError if a count is no whole number. A loss that is NaN ends the training, with a warning.
    """
    output = Path(output)
    if output.suffix != ".keras":
        raise ValueError(f"{output} can't be written: end its name in .keras")
    epochs, steps_per_epoch, seed = map(operator.index, (epochs, steps_per_epoch, seed))  # NumPy's too
    learning_rate = float(learning_rate)
    if min(epochs, steps_per_epoch) < 1:
        raise ValueError(f"{epochs} epochs of {steps_per_epoch} steps are no training: both must be at least 1")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"a learning rate of {learning_rate} is none: choose one above 0, such as 0.001")
    for path in (output, output.with_suffix(".onnx"), output.with_suffix(".json")):
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name another output")
    corpus = find_corpus(corpus)
    speech, noise, rooms = list_speech(corpus), list_noise(corpus), list_rooms(corpus)
    parts = {split: of_split(split, corpus, speech, noise) for split in ("train", "validation")}
    sources = {split: BlendedSpeech(*part, rooms, seed=seed) for split, part in parts.items()}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # what is left out was told already
        pairs = list(held_out_blends(corpus))  # now: what can't be read would else end it behind its last epoch
    remove_abandoned(output.parent.glob(PARTS))
    keras = _keras()
    keras.utils.set_random_seed(seed)
    model, origin, faults = unet(), {}, []
    if start is not None:
        if Path(start).suffix != ".keras":
            raise ValueError(f"training can't go on from {start}: name the model's .keras file")
        transfer_weights(load_model(start).get_weights(), model)
        origin = _card(start)  # read now: the output may take its place

    class Batches(keras.utils.PyDataset):
        """Epochs out of an endless source. Keras asks for batch `index` of the current epoch."""

        def __init__(self, source, n_batches):
            super().__init__(workers=2, max_queue_size=4)
            self.source, self.n_batches, self.epoch = source, n_batches, 0

        def __len__(self):
            return self.n_batches

        def __getitem__(self, index):
            try:
                return self.source[self.epoch * self.n_batches + index]
            except (ValueError, OSError, sf.LibsndfileError) as error:  # of which TensorFlow makes one of its own
                faults.append(error)
                raise

    class Backup(keras.callbacks.BackupAndRestore):
        """Goes on from the epoch before if the last one was written in part, whichever of its files that was."""

        def _load_model(self):
            try:
                super()._load_model()
            except ValueError as error:  # Keras tries the epoch before after an OSError alone
                raise OSError(f"{folder} can't be gone on from ({error}): remove it to start afresh") from error

    class Clock(keras.callbacks.Callback):
        """Tells the batches which epoch it is, also after a restart, and logs the seconds that each epoch takes."""

        def on_epoch_begin(self, epoch, logs=None):
            batches.epoch, self.begin = epoch, time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            logs["seconds"] = time.perf_counter() - self.begin

    folder = output.with_name(output.stem + "-training")
    log, checkpoint, arguments = folder / "history.csv", folder / "best.keras", folder / "arguments.json"
    if not arguments.exists() and not all(path.match(PARTS) for path in folder.glob("*")):
        # It is removed at the end.
        raise ValueError(f"{folder} holds something else than a training: name another output")
    folder.mkdir(parents=True, exist_ok=True)
    own = {"corpus": str(corpus.resolve()), "epochs": epochs, "steps_per_epoch": steps_per_epoch}
    own |= {"learning_rate": learning_rate, "start": start and str(start), "seed": seed}
    begun = json.loads(arguments.read_text()) if arguments.exists() else own
    others = [f"{name} {value}" for name, value in begun.items() if own[name] != value]
    if others:
        raise ValueError(f"{folder} holds a training with {', '.join(others)}: repeat it so, or remove the folder")
    with written_whole(arguments) as part:
        part.write_text(json.dumps(own))
    batches = Batches(sources["train"], steps_per_epoch)
    n_steps = epochs * steps_per_epoch
    n_warmup = min(200, n_steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, n_steps - n_warmup, warmup_target=learning_rate, warmup_steps=n_warmup
    )
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=1.0), loss=spectral_loss)
    model.optimizer.build(model.trainable_variables)  # if the first step does so, TensorFlow compiles it twice
    # A resumed run must not overwrite a better one. Keras begins the log before there is anything to tell.
    best = pd.read_csv(log)["val_loss"].min() if log.exists() and log.stat().st_size else math.inf
    try:
        model.fit(
            batches,
            epochs=epochs,
            shuffle=False,  # the batches are random already, and a resumed run must see them in the same order
            validation_data=Batches(sources["validation"], 10),
            callbacks=[
                Clock(),
                keras.callbacks.TerminateOnNaN(),
                keras.callbacks.ModelCheckpoint(checkpoint, save_best_only=True, initial_value_threshold=best),
                keras.callbacks.CSVLogger(log, append=True),
                # It stays until all is written, and the one before until it is whole.
                Backup(folder / "backup", double_checkpoint=True, delete_checkpoint=False),
            ],
            verbose="auto" if sys.stdout.isatty() else 2,  # a progress bar, but a line per epoch in notebooks and logs
        )
    except Exception as error:
        if not faults:
            raise
        raise OSError(f"{corpus} can't be read any more ({faults[0]}): mend that, and start again to go on") from error
    if not checkpoint.exists():
        raise ValueError(f"no epoch had a finite loss: remove {folder}, and choose a lower learning rate")
    history = pd.read_csv(log).drop_duplicates("epoch", keep="last")  # a run killed between two callbacks repeats one
    if not np.isfinite(history["loss"]).all():
        warnings.warn(f"in epoch {len(history)} the loss was no number, which ended the training", stacklevel=2)
    model = keras.saving.load_model(checkpoint, compile=False)
    hours = len(history) * steps_per_epoch * batches.source.batch_size * batches.source.n_samples / SAMPLE_RATE / 3600
    card = {
        "command": shlex.join(["python", "helpers.py", *sys.argv[1:]]) if sys.argv[0].endswith("helpers.py") else None,
        "start": start and origin,
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batches.source.batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "hours_of_audio": round(hours, 2),
        "hours_of_audio_in_all": round(hours + origin.get("hours_of_audio_in_all", 0), 2),
        "minutes_of_training": round(history["seconds"].sum() / 60, 1),
        **describe(model, corpus, pd.concat([speech, noise]), pairs),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "librosa", "numpy")},
        "history": history.to_dict("list"),
    }
    export(model, output.with_suffix(".onnx"))
    with written_whole(output) as part:
        model.save(part)
    with written_whole(output.with_suffix(".json")) as part:
        part.write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder.rename(f"{folder}.{uuid.uuid4().hex}"))  # half of it could not be gone on with
    return model, history


LITERT_FRAMES = 512  # 4 s: LiteRT runs a recurrent network for a number of frames that is fixed beforehand


def export(model, target):
    """Write a Keras model for a runtime that does without TensorFlow.

    The target's ending chooses: `.onnx` for ONNX Runtime, any number of frames that 16 divides, or `.tflite` for
    LiteRT, one item of LITERT_FRAMES.
    Raises ValueError for another ending, a target that is a folder, or a model that is not Keras'; FileNotFoundError if
    its file is missing.
    """
    target = Path(target)
    if target.suffix not in (".onnx", ".tflite"):
        raise ValueError(f"{target} cannot be written: end its name in one of .onnx, .tflite")
    if target.is_dir():
        raise ValueError(f"{target} is a folder: name a file")
    model = load_model(model)
    if not hasattr(model, "export"):
        raise ValueError("only a Keras model can be exported: name a .keras file")
    remove_abandoned(target.parent.glob(PARTS))
    with written_whole(target) as part:
        if target.suffix == ".onnx":
            _write_onnx(model, part)
        else:  # for any number of frames its loops would be TensorFlow's, which LiteRT lacks
            shape = _keras().InputSpec("float32", (1, N_FFT // 2 + 1, LITERT_FRAMES, 2))
            model.export(part, format="litert", verbose=False, input_signature=[shape])


def _write_onnx(model, target):
    """Write an ONNX file whose GRUs are GRU nodes.

    tf2onnx turns Keras' GRUs into loops, with which a short block takes twice as long. The one that it can translate is
    TensorFlow's for GPUs; which variant of a GRU that is has to be added: Keras' resets the state after multiplying it.
    """
    import onnx
    import tensorflow as tf

    along = _along()

    class AlongInOnnx(along):
        def call(self, x):
            order = (1, 0, 2, 3) if self.axis == 1 else (2, 0, 1, 3)  # the axis to read along comes first
            x = tf.transpose(x, order)
            shape = tf.shape(x)
            rows = tf.reshape(x, (shape[0], shape[1] * shape[2], x.shape[3]))
            state = tf.zeros((2, shape[1] * shape[2], self.units))
            cells = self.forwards.cell, self.backwards.cell
            matrices = [cell.kernel for cell in cells] + [cell.recurrent_kernel for cell in cells]
            arrays = [tf.transpose(matrix) for matrix in matrices] + [cell.bias for cell in cells]
            weights = tf.concat([tf.reshape(array, [-1]) for array in arrays], axis=0)
            options = {"rnn_mode": "gru", "direction": "bidirectional", "is_training": False}
            read = tf.raw_ops.CudnnRNN(input=rows, input_h=state, input_c=state, params=weights, **options)[0]
            read = tf.reshape(read, (*tf.unstack(shape[:3]), 2 * self.units))
            return tf.transpose(read, np.argsort(order))

    def clone(layer):
        return (AlongInOnnx if isinstance(layer, along) else type(layer)).from_config(layer.get_config())

    twin = _keras().models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    twin(twin.input)  # Keras wants it called before
    logging.getLogger("tf2onnx.shape_inference").setLevel(logging.ERROR)  # it warns of an output that nobody uses
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # tf2onnx's own affair
        twin.export(target, format="onnx", verbose=False)
    written = onnx.load(target)
    for node in written.graph.node:
        if node.op_type == "GRU":
            node.attribute.append(onnx.helper.make_attribute("linear_before_reset", 1))
    onnx.save(written, target)


def describe(model, corpus, files, pairs):
    """What a trained network's card says of its size, of its corpus and of its scores on held-out blends: a dict.

    `files` are the tables of `list_speech` and `list_noise` for the folder `corpus`, one below the other, and `pairs`
    are those of `held_out_blends`.
    """
    scores = evaluate(pairs, {"enhanced": functools.partial(denoise, model=model)})
    source = files["path"].map(lambda path: path.relative_to(corpus).parts[0])
    minutes = files.groupby([source, "split"])["duration"].sum() / 60
    minutes = {name: part.droplevel(0).round(1).to_dict() for name, part in minutes.groupby(level=0)}
    is_sample = corpus.resolve().is_relative_to(ROOT / "data" / "sample")  # which is nobody's recording
    licences = {} if is_sample else LICENCES
    return {
        "parameters": model.count_params(),
        "corpus_minutes": minutes,
        "licences": {name: licences.get(name, "not known") for name in minutes},
        "test_scores": scores.groupby("signal").mean(numeric_only=True).round(4).to_dict("index"),
    }


def _card(model):
    """The card of a model's file, without its history; where there is none, the file's name."""
    path = Path(model).with_suffix(".json")
    card = json.loads(path.read_text()) if path.is_file() else {}
    return {"file": Path(model).name, **{key: value for key, value in card.items() if key != "history"}}


# ---------------------------------------------------------------------------------------------------------------------
# Formats of recordings: notebook 07
# ---------------------------------------------------------------------------------------------------------------------


# What FFmpeg, in the package av, reads beside; it is not written.
DECODED = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".aac", ".amr", ".awb", ".3gp", ".3g2", ".3ga", ".wma", ".asf"),
    *(".webm", ".mka", ".mkv", ".spx", ".g722", ".g729", ".mp2", ".ac3", ".wv"),
)
DEMUXERS = (  # FFmpeg's names of the formats that it may take a file for, whatever its ending
    *("aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "asf", "au", "caf", "eac3", "flac", "g722", "g729", "gsm", "loas"),
    *("matroska", "mov", "mp3", "mpeg", "mpegts", "nistsphere", "ogg", "w64", "wav", "wv", "xwma", "avi", "flv", "ape"),
    *("tta", "rm", "voc"),
)
RAW = {"ulaw": "ULAW", "alaw": "ALAW", "slin": "PCM_16", "vox": "VOX_ADPCM"}  # samples without a header, one channel
HEADERLESS = {  # endings of such files, as telephone exchanges write them: sample format and rate in Hz
    ".ul": ("ULAW", 8000),
    ".ulaw": ("ULAW", 8000),
    ".mulaw": ("ULAW", 8000),
    ".al": ("ALAW", 8000),
    ".alaw": ("ALAW", 8000),
    ".sln": ("PCM_16", 8000),
    ".vox": ("VOX_ADPCM", 8000),
    ".gsm": ("GSM610", 8000),
    ".sln44": ("PCM_16", 44100),
} | {f".sln{khz}": ("PCM_16", 1000 * khz) for khz in (12, 16, 24, 32, 48, 96, 192)}


def is_recording(path, raw=None):
    """Whether a file's ending is one that can be read; with `raw`, as in `read_audio`, .raw and .pcm can, too."""
    return Path(path).suffix.lower() in (*FORMATS, *DECODED, *HEADERLESS, *((".raw", ".pcm") if raw else ()))


def target_name(path):
    """The path of the result of a recording: the same, but `.wav` where the format can be read and not written."""
    path = Path(path)
    return path.with_suffix(".wav") if is_recording(path, raw=True) and path.suffix.lower() not in FORMATS else path


def _is_unknown(length):
    """Whether a header's number of bytes is one of those that programs write when they can't know it."""
    room = (1 << 24) + (1 << 10)  # SoX rounds 0x7f000000 to whole samples of all channels
    return length == 0 or length >= 1 << 62 or any(0 <= limit - length < room for limit in (1 << 31, (1 << 32) - 1))


class _Mended(io.FileIO):
    """A file whose first `n` bytes read as `head`, which may be longer."""

    def __init__(self, path, head, n):
        super().__init__(path)
        self.head, self.shift, self.position = head, len(head) - n, 0

    def tell(self):
        return self.position

    def seek(self, offset, whence=os.SEEK_SET):
        size = os.fstat(self.fileno()).st_size + self.shift
        self.position = offset + {os.SEEK_CUR: self.position, os.SEEK_END: size}.get(whence, 0)
        return self.position

    def readinto(self, buffer):
        view = memoryview(buffer).cast("B")
        head = self.head[self.position : self.position + len(view)]
        view[: len(head)], n = head, len(head)
        super().seek(max(self.position, len(self.head)) - self.shift)
        while n < len(view) and (more := super().readinto(view[n:])):
            n += more
        self.position += n
        return n


CHUNKS = {  # formats made of chunks, by their first bytes: how a chunk begins, and where the first one does; which of
    # them holds the sound, and how many bytes it has before that
    b"RIFF": ("<4sI", 12, b"data", 0),
    b"RF64": ("<4sI", 12, b"data", 0),
    b"RIFX": (">4sI", 12, b"data", 0),
    b"FORM": (">4sI", 12, b"SSND", 8),
    b"caff": (">4sQ", 8, b"data", 4),
}
LONGEST_HEADER = 1 << 24  # bytes before the sound: what is longer would fill the memory, and is of no recorder
HEADERS = (*CHUNKS, b"riff", b".snd", b"fLaC", b"OggS")  # how files begin that tell what they hold


def _stated_sound(file, size):
    """Where an open file of `size` bytes holds its sound, by its header.

    Returns: (start, length, patch): the bytes of the sound, and what in the header, as a dict of bytes by their
    position, would say that it goes on to the end of the file. None if the header does not tell.
    """
    magic = file.read(4)
    if magic == b".snd":
        start, stated = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return start, stated, {8: struct.pack(">I", max(0, min(size - start, 0xFFFFFFFF)))}
    if magic == b"NIST":
        header = file.read(1020)
        fields = dict(re.findall(rb"(\w+) -\w+ (\d+)", header))
        factors = [int(fields.get(name, 0)) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
        start = re.match(rb"_1A\n +(\d+)\n", header)
        return int(start[1]) if start else 1024, math.prod(factors), {}
    if magic == b"riff":  # W64 states the length of the whole file
        file.seek(16)
        return 0, int.from_bytes(file.read(8), "little"), {}
    if magic == b"\x30\x26\xb2\x75":  # ASF, or WMA, as well, behind the first bytes of its "File Properties Object"
        properties = re.search(rb"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11.{32}(.{8})", file.read(1 << 16), re.DOTALL)
        return properties and (0, int.from_bytes(properties[1], "little"), {})
    if magic not in CHUNKS:
        return None
    layout, start, sought, before = CHUNKS[magic]
    name, length, long_position, long_length = b"", 0, None, 0
    while name != sought:
        start += length if magic == b"caff" else length + length % 2
        file.seek(min(start, size))
        if len(header := file.read(struct.calcsize(layout))) < struct.calcsize(layout):
            return None
        start, (name, length) = file.tell(), struct.unpack(layout, header)
        if name == b"ds64":
            long_position, long_length = start + 8, int.from_bytes(file.read(16)[8:], "little")
    stated = long_length if length == 0xFFFFFFFF and long_length else length
    if magic == b"caff":
        patch = {start - 8: struct.pack(">Q", size - start)}
    else:
        patch = {start - 4: struct.pack(layout[0] + "I", min(size - start, 0xFFFFFFFF))}
        if long_position:
            patch[long_position] = struct.pack("<Q", size - start)
    return start + before, max(0, stated - before), patch


TAIL_CHUNKS = rb"LIST|id3 |ID3 |bext|iXML|cue |smpl|_PMX|NAME|AUTH|ANNO|COMT"  # that recorders append


def _end_of_sound(file, start, size):
    """Where the sound from `start` on ends in an open file of `size` bytes whose header does not tell: before the
    chunks that fill up the file's last 64 kB, or with the file."""
    begin = max(start, size - (1 << 16))
    file.seek(begin)
    data = file.read(size - begin)
    seen = set()  # a chain that another one runs into does not end as it should, too
    for found in re.finditer(TAIL_CHUNKS, data):
        for order in ("little", "big"):
            end = found.start()
            while (end, order) not in seen and re.match(rb"[ -~]{4}", data[end : end + 4]) and end + 8 <= len(data):
                seen.add((end, order))
                length = int.from_bytes(data[end + 4 : end + 8], order)
                end += 8 + length + length % 2
            if end <= len(data) + 1 and not data[end:].strip(b"\0"):  # the byte that fills it up may be missing
                return begin + found.start()
    return size


def _mended_header(file, size, start, patch):
    """The `start` bytes before the sound of an open file of `size` bytes, as they say that it goes on to the end."""
    if start > LONGEST_HEADER:
        raise ValueError("its header is longer than that of any recorder: convert it first")
    file.seek(0)
    head = bytearray(file.read(start))
    for position, data in patch.items():
        head[position : position + len(data)] = data
    if head.startswith(b"RIFF") and size - start > 0xFFFFFFFF:  # RF64 has room for it (EBU Tech 3306)
        lengths = struct.pack("<4sIQQQI", b"ds64", 28, size + 28, size - start, 0, 0)
        head[:12] = b"RF64\xff\xff\xff\xffWAVE" + lengths
    return bytes(head)


def _compared_with_header(path):
    """Compare a sound file with what its header says.

    Returns: (mended, hidden, is_cut, another): a header with which libsndfile reads to the end of the file, and how
    many bytes it takes the place of, or None if there is nothing to mend; which share of the sound follows its stated
    end; whether it ends before that; and whether another recording follows.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = _stated_sound(file, size)
        if found is None or found[0] >= size:
            return None, 0, False, False
        start, stated, patch = found
        unknown, rest = _is_unknown(stated), size - start - stated
        file.seek(min(start + stated, size))
        follows = b""
        while not follows and (piece := file.read(1 << 20)):  # behind a fill of zeros
            follows = piece if piece[:2].strip(b"\0") else piece.lstrip(b"\0")
        # Other chunks may follow as well, each a name of four letters and a length.
        names = [re.match(rb"([ -~]{4})(....)", follows[i:], re.DOTALL) for i in (0, 1)]
        lengths = [int.from_bytes(name[2], order) for name in names if name for order in ("little", "big")]
        is_chunk = any(length <= rest for length in lengths)
        another = is_chunk and any(name and name[1] in (*CHUNKS, b".snd", b"data", b"SSND") for name in names)
        goes_on = (bool(follows) or (unknown and stated)) and not is_chunk
        if goes_on and patch:
            size = _end_of_sound(file, start, size)
            rest = size - start - stated
            file.seek(0)
            *_, patch = _stated_sound(file, size)
        # libsndfile refuses a CAF file that was cut.
        mended = (_mended_header(file, size, start, patch), start) if patch and (goes_on or rest < 0) else None
    if goes_on:
        return mended, 0 if unknown else rest / max(1, size - start), False, False
    return mended, 0, rest < -24, another  # some programs count a header twice


TURNED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page):
    """The checksum, 4 bytes, of a page of Ogg that holds zeros in its place."""
    # zlib has it for bytes whose bits are turned round, with two inversions that Ogg lacks.
    checksum = zlib.crc32(page.translate(TURNED_BYTES), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return checksum.to_bytes(4, "big").translate(TURNED_BYTES)


def _ogg_pages(path):
    """Yield the pages of an Ogg file (RFC 3533), with zeros for checksum, and b"" for what is none, or damaged."""
    with path.open("rb") as file:
        while header := file.read(27):
            begin, is_page = file.tell() - len(header), len(header) == 27 and header.startswith(b"OggS\0")
            sizes = file.read(header[26]) if is_page else b""
            page = header[:22] + bytes(4) + header[26:] + sizes + file.read(sum(sizes))
            if is_page and _ogg_checksum(page) == header[22:26]:
                yield page
                continue
            yield b""
            file.seek(begin + 1)
            while len(piece := file.read(1 << 16)) > 4:
                found = piece.find(b"OggS\0")  # version 0, the only one
                file.seek((found if found >= 0 else len(piece) - 4) - len(piece), os.SEEK_CUR)
                if found >= 0:
                    break


def _opus_samples(page):
    """How many samples, at 48 kHz, the Opus packets hold that begin in a page of Ogg (RFC 6716, section 3.1)."""
    total, begins, position = 0, not page[5] & 1, 27 + page[26]
    for size in page[27:position]:
        if begins and size:
            kind, code, count = page[position] >> 3, page[position] & 3, page[position + 1] if size > 1 else 0
            frame = 120 << kind % 4 if kind > 15 else 480 << kind % 2 if kind > 11 else (480, 960, 1920, 2880)[kind % 4]
            total += frame * (1, 2, 2, count & 63)[code]
        begins, position = size < 255, position + size
    return total


def _survey_ogg(path):
    """How many streams begin in an Ogg file, whether pages are missing between others, whether its last stream ends
    with a page that says so, and whether an Opus stream has pauses, which only its times tell of."""
    n_begins, is_damaged, last, numbers, is_gap, has_pauses = 0, False, 0, {}, False, False
    totals, leads = {}, {}  # of Opus streams: samples in their packets, and how far their times began ahead of these
    for page in _ogg_pages(path):
        if page:
            last, stream = page[5], page[14:18]
            granule, number = int.from_bytes(page[6:14], "little"), int.from_bytes(page[18:22], "little")
            n_begins += last >> 1 & 1
            is_damaged |= is_gap or not (last & 2 or number == numbers.get(stream, number - 1) + 1)
            numbers[stream] = number
            if last & 2 and page.endswith(b"OpusHead", 0, 36):
                totals[stream] = 0
            elif stream in totals:
                totals[stream] += _opus_samples(page)
                if 0 < granule < 1 << 63:  # else no packet ends here
                    lead = granule - totals[stream]
                    has_pauses |= lead > leads.setdefault(stream, lead) + 12_000  # 0.25 s
        is_gap = not page
    return n_begins, is_damaged, last & 4 > 0, has_pauses


def _is_joined(path):
    """Whether a FLAC file holds several recordings, one after the other."""
    n_begins, data = 0, b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            data = data[-7:] + piece  # too few to find a mark, of 8 bytes, again
            n_begins += len(re.findall(rb"fLaC[\0\x80]\0\0\x22", data))
    return n_begins > 1


def _samples_of_whole_blocks(path, reads_to_end):
    """How many samples the whole blocks of a WAV file in GSM 6.10 or ADPCM hold; `reads_to_end` overrides its header.

    Of a block that is not whole libsndfile makes noise, and it counts the byte that fills an odd length as a block.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, stated, _ = _stated_sound(file, size)
        file.seek(0)
        header = file.read(min(start, LONGEST_HEADER))
    order = "big" if header.startswith(b"RIFX") else "little"
    found = re.search(rb"fmt .{16}(..).{4}(..)", header, re.DOTALL)
    n_bytes, n_samples = (int.from_bytes(field, order) for field in (found.groups() if found else (b"", b"")))
    if not n_bytes * n_samples:  # in a block; not all programs fill these fields
        return math.inf
    return (size - start if reads_to_end else min(stated, size - start)) // n_bytes * n_samples


def _samples_before_zeros(path, n_bytes, n_samples):
    """How many samples come before the zero bytes that a file ends with, if `n_samples` of them take `n_bytes`.

    A recorder that crashed, or a full disk, leaves them.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, *_ = _stated_sound(file, size) or (0,)
        end, piece = size, b""
        while end > start and not piece:
            begin = max(start, end - (1 << 16))
            file.seek(begin)
            piece = file.read(end - begin).rstrip(b"\0")
            end = begin + len(piece)
    return max(0, end - start) // n_bytes * n_samples


class _Reader:
    """An open sound file, read from front to end.

    `rate` is in Hz, `n_samples` what the file states or None, `subtype` libsndfile's name of the sample format, `tags`
    a dict, `bext` the broadcast chunk of a WAV file or None, `another` whether a second recording follows in the file,
    and `note` what to warn of or "".
    """

    bext, note, length = None, "", 0  # samples that were read

    def fault(self):
        """What is wrong with the file, once it was read to its end: words that follow its name, or "".

        Raises ValueError if it is the disk.
        """
        fault = self.found_fault()
        if fault:
            try:  # to FFmpeg a disk that fails is an end like any other
                with self.path.open("rb") as file:
                    while file.read(1 << 20):
                        pass
            except OSError as error:
                raise ValueError(f"it can't be read ({error.strerror}): check the disk, and try again") from None
        return fault

    def found_fault(self):
        """The same, as far as what was read tells."""
        return f"seems to have been cut: it ends after {self.length / self.rate:.1f} s" if self.is_cut() else ""

    def chunks(self, size):
        """Yield float32 `(channels, size)`, the last one shorter."""
        while (chunk := self.read(size)).size:
            yield chunk
            if chunk.shape[-1] < size:  # of a damaged file more might follow, but not at its time
                return

    def skip(self, n):
        """Go on `n` samples further."""
        while n > 0 and (skipped := self.read(min(n, 60 * self.rate)).shape[-1]):
            n -= skipped


class _HeldSignals:
    """A context in which the first of STOPS waits for `released()`, or for the end; a second one does not."""

    def __init__(self):
        self.waiting, self.handlers = None, {}
        if threading.current_thread() is threading.main_thread():  # Python has all signals handled there
            self.handlers = {number: now for number in STOPS if callable(now := signals.getsignal(number))}

    def hold(self, number, frame):
        if self.waiting:
            self.handlers[number](number, frame)
        self.waiting = number

    def __enter__(self):
        for number in self.handlers:
            signals.signal(number, self.hold)

    def __exit__(self, *_):
        for number, handler in self.handlers.items():
            signals.signal(number, handler)
        if self.waiting:
            signals.raise_signal(self.waiting)

    @contextlib.contextmanager
    def released(self):
        try:
            self.__exit__()
            yield
        except KeyboardInterrupt:
            self.waiting, self.handlers = None, {}  # what comes now is no longer held
            raise
        finally:
            self.__enter__()


GET_BROADCAST_INFO, SET_BROADCAST_INFO = 0x10F0, 0x10F1  # commands of libsndfile that soundfile does not offer


def _encoded(path):
    """A path for libsndfile: soundfile can't encode names that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _text(data):
    """Bytes as text: UTF-8, or, as older programs write it, Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _Sndfile(_Reader):
    """A sound file, read by libsndfile; `raw` is (sample format, rate) of a file without a header, of one channel."""

    def __init__(self, path, raw=None):
        self.path, self.decoder = path, None  # which goes on where libsndfile stops
        mended, hidden, self.cut, self.another = (None, 0, False, False) if raw else _compared_with_header(path)
        layout = (raw[1], 1, raw[0], "LITTLE", "RAW") if raw else ()
        self._open(_Mended(path, *mended) if mended else _encoded(path), layout)
        seconds = hidden * self.file.frames / self.file.samplerate
        if seconds >= 0.1:
            self.note = f"{seconds:.1f} s of sound follow the end that its header states, and are read too"
        elif seconds > 0:  # a few bytes that another program left there
            self.close()
            self._open(_encoded(path))
        self.rate, self.channels, self.subtype = self.file.samplerate, self.file.channels, self.file.subtype
        self.n_samples = self.file.frames
        if self.file.format in ("WAV", "WAVEX", "RF64") and self.subtype in ("GSM610", "IMA_ADPCM", "MS_ADPCM"):
            self.n_samples = min(self.n_samples, _samples_of_whole_blocks(path, mended is not None))
        elif raw and self.subtype == "GSM610":  # frames of 33 bytes, 20 ms each
            n_frames, rest = divmod(path.stat().st_size, 33)
            self.n_samples, self.cut = min(self.n_samples, 160 * n_frames), rest > 0
        if self.subtype in ("ULAW", "ALAW", "PCM_U8", "VOX_ADPCM", "GSM610"):  # in these zeros are loud
            blocks = {"VOX_ADPCM": (1, 2), "GSM610": (33, 160) if raw or self.file.format == "AIFF" else (65, 320)}
            n_samples = _samples_before_zeros(path, *blocks.get(self.subtype, (self.channels, 1)))
            if self.n_samples - n_samples > self.rate / 2:
                self.n_samples, self.cut = n_samples, True
        texts = {name: sf._snd.sf_get_string(self.file._file, number) for name, number in sf._str_types.items()}
        self.tags = {name: _text(sf._ffi.string(text)) for name, text in texts.items() if text}
        bext = sf._ffi.new("char[]", 1 << 14)  # with a coding history of up to 15 kB
        if sf._snd.sf_command(self.file._file, GET_BROADCAST_INFO, bext, len(bext)):
            self.bext = bext

    def _open(self, source, layout=()):
        self.source = source
        with self.path.open("rb") as file:
            may_be_mp3 = not layout and file.read(4) not in HEADERS
        # Its decoder comments on damaged files; what other threads say meanwhile is lost.
        with self._signals_held(), _libraries_silent() if may_be_mp3 else contextlib.nullcontext():
            self.file = sf.SoundFile(source, "r", *layout)

    def _signals_held(self):
        """A context to call libsndfile in: what a signal raises while that calls Python would be lost."""
        return _HeldSignals() if isinstance(self.source, _Mended) else contextlib.nullcontext()

    def skip(self, n):
        if self.file.seekable():
            with self._signals_held():
                self.length = self.file.seek(min(n, self.n_samples))
        else:  # GSM 6.10 is not
            super().skip(n)

    def read(self, n):
        """The next `n` samples, or all if it is -1; fewer at the end: float32 `(channels, samples)`."""
        if self.decoder:
            return self.decoder.read(n)
        try:
            left = self.n_samples - self.length
            with self._signals_held():
                samples = self.file.read(left if n < 0 else min(n, left), dtype="float32", always_2d=True).T
        except (sf.LibsndfileError, MemoryError, ValueError) as error:  # a header may promise terabytes, or no end
            if isinstance(error, MemoryError) and n >= 0:  # it is the machine's
                raise
            if self.file.format == "FLAC":  # libsndfile stops where it is damaged, or was cut
                self.decoder = _Decoded(self.path, ".flac")
                self.decoder.skip(self.length)
                return self.decoder.read(n)
            raise ValueError(f"it is damaged ({error}): copy or record it again") from None
        self.length += samples.shape[-1]
        return samples

    def is_cut(self):
        """Whether the file, read to its end, held fewer samples than it states."""
        return self.cut or self.length < self.n_samples

    def found_fault(self):
        return self.decoder.found_fault() if self.decoder else super().found_fault()

    def close(self):
        self.file.close()
        if self.decoder:
            self.decoder.close()
        if isinstance(self.source, _Mended):
            self.source.close()


def _samples(frame):
    """The samples of a frame of PyAV, `(channels, samples)`. Of eight channels its own method reads a ninth one."""
    from av.audio.plane import AudioPlane

    channels, planar = frame.layout.nb_channels, frame.format.is_planar
    kind = {"u8": "u", "flt": "f", "dbl": "f"}.get(frame.format.packed.name, "i")
    planes = [
        np.frombuffer(AudioPlane(frame, i), f"{kind}{frame.format.bytes}", frame.samples * (1 if planar else channels))
        for i in range(channels if planar else 1)
    ]
    return np.stack(planes) if planar else planes[0].reshape(-1, channels).T


@functools.cache
def _sound_decoders():
    """FFmpeg's decoders of sound, by their names, with commas between: the picture in a file may be a trap."""
    import av

    def decodes_sound(name):
        try:
            return av.Codec(name, "r").type == "audio"
        except ValueError:  # it encodes only
            return False

    return ",".join(filter(decodes_sound, sorted(av.codecs_available)))


def _tag_length(file):
    """How many bytes the ID3 tag takes that an open file begins with; 0 if there is none."""
    tag = re.match(rb"ID3...(.{4})", file.read(10), re.DOTALL)
    return 10 + sum(byte << 7 * i for i, byte in enumerate(reversed(tag[1]))) if tag else 0


LONGEST_SILENCE = 8 * 3600  # s, of all pauses of a file with little sound: a few bytes could fill the disk


class _Decoded(_Reader):
    """A sound file, read by FFmpeg."""

    def __init__(self, path, ending=""):
        import av  # it loads the libraries of FFmpeg, which few files need

        self.error, self.path = av.FFmpegError, path
        self.damaged, self.lost, self.longest, self.rate, self.channels = False, 0, 0, None, None
        self.holed, self.ended = False, True
        _, share, self.cut, self.another = _compared_with_header(path)
        hidden = share > 0.01 and share * path.stat().st_size > 1000  # else something else, that is no sound, follows
        av.logging.set_level(av.logging.WARNING)
        av.logging.set_skip_repeated(False)  # else what is told of a second file is left out
        try:
            with av.logging.Capture() as log:
                options = {
                    # A playlist, whatever its ending, may name addresses, and files that are not the user's to show.
                    "protocol_whitelist": "file",
                    "format_whitelist": ",".join(DEMUXERS),
                    "codec_whitelist": _sound_decoders(),
                } | ({"ignore_length": "1"} if hidden else {})
                self.container = self._container(path, ending, options)
                self.format = self.container.format.name
                if self.format == "ogg":
                    _, self.holed, self.ended, _ = _survey_ogg(path)
                self.stream = next((stream for stream in self.container.streams.audio if stream.codec_context), None)
                if self.format == "flac":  # else a damaged frame becomes noise
                    self.stream.codec_context.options = {"err_detect": "crccheck+explode"}
                self.duration = self._stated([text for _, _, text in log])
                self.pieces = self._pieces()
                self.unread = next(self.pieces, None)  # samples that are decoded already
            if self.unread is None:
                raise ValueError("no sound in it can be decoded")
        except av.FFmpegError as error:
            has_no_index = any("moov atom not found" in text for _, _, text in log)
            reason = "its index is missing, which recorders write at the end" if has_no_index else error.strerror
            raise ValueError(reason) from None
        finally:
            av.logging.set_level(None)
        self.tags = {key.lower(): text for key, text in (self.stream.metadata | self.container.metadata).items()}
        n_tracks = len(self.container.streams.audio)
        if hidden:
            # Of other formats FFmpeg does not ignore the stated end.
            is_read = self.format in ("wav", "au", "nistsphere")
            told = "is read too" if is_read else "is not read: convert it by the program that wrote it"
            self.note = f"sound follows the end that its header states, and {told}"
        if n_tracks > 1:
            self.note = f"it holds {n_tracks} sound tracks: only the first one is read"

    @staticmethod
    def _container(path, ending, options):
        """FFmpeg's container: by what it begins with, or, as after a cut or before a large picture, by its ending."""
        import av

        named = next((name for name in DEMUXERS if ending[1:] in av.ContainerFormat(name, "r").extensions), None)
        open_as = functools.partial(av.open, f"file:{path}", options=options, metadata_errors="replace")
        with path.open("rb") as file:
            file.seek(start := _tag_length(file))
            head = file.read(2).ljust(2, b"\0")
        is_mp3 = head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # else FFmpeg takes for it what follows a tag beyond 1 MB
        has_no_head = ending in (".g722", ".g729") or (start > 1_000_000 and not is_mp3)
        try:
            return open_as(format=named if has_no_head else None)
        except av.InvalidDataError:
            return open_as(format=named)

    @property
    def n_samples(self):
        return self.duration and round(self.duration * self.rate)

    def _stated(self, log):
        """The duration in seconds that the container states, or None where FFmpeg estimated it."""
        if self.stream is None or any("Estimating duration" in text for text in log):
            return None
        if self.format == "mp3":  # only this frame tells it
            with self.path.open("rb") as file:
                file.seek(_tag_length(file))  # with a picture it may be large
                if not re.search(rb"Xing|Info|VBRI", file.read(1 << 16)):
                    return None
        if self.stream.duration and self.format != "asf":
            return self.stream.duration * self.stream.time_base
        if len(self.container.streams) > 1:  # it is that of the longest one
            return None
        # This one counts from 0 s, where the sound may begin later.
        late = max(0, self.container.start_time or 0)
        return self.container.duration and (self.container.duration - late) / 1_000_000

    def _packets(self):
        """Yield the packets; the last one, which is empty, asks for what the decoder still holds.

        `damaged` says whether FFmpeg met an error on the way to a packet.
        """
        import av

        packets = self.container.demux(self.stream) if self.stream else iter(())
        while True:
            av.logging.set_level(av.logging.ERROR)
            try:
                with av.logging.Capture() as errors:
                    packet = next(packets, None)
            except self.error:
                packet, errors = None, True
            finally:
                av.logging.set_level(None)
            self.damaged |= bool(errors)
            if packet is None:
                return
            yield packet

    def _frames(self):
        """Yield what the decoder makes, (channels, samples) in any format, and silence where its times leave a gap.

        Browsers leave out pauses; frames that are damaged are left out here.
        """
        first, length = None, 0  # where the first frame begins by its time, and what was yielded, in samples
        silent = 0  # of that, what is silence made up
        other = 0  # s of another rate, or other channels
        is_exact = self.format.startswith(("flac", "matroska", "mov", "ogg"))  # of others FFmpeg reckons the times
        has_no_pauses = self.holed or self.format == "flac"  # what is missing of a holed Ogg file, or of FLAC, is lost
        for packet in self._packets():
            broken = self.damaged
            try:
                frames = packet.decode()
                ends_within = packet.is_corrupt and self.format != "wav"  # there it is only shorter
                self.damaged = ends_within or (broken and packet.size == 0)
            except self.error:
                frames = self._pause(packet)
                is_tag = bytes(packet).startswith(b"ID3")  # of an MP3 that was appended
                self.damaged |= not frames and not is_tag
            self.holed |= broken and length > 0 and packet.size > 0 and len(frames) > 0
            for frame in frames:
                layout = frame.sample_rate, frame.layout.nb_channels
                if self.rate is None:
                    self.rate, self.channels = layout
                    self.subtype = "PCM_24" if frame.format.name.startswith("s32") else "PCM_16"
                    if self.stream.codec_context.name in ("opus", "libopus"):
                        self.subtype = "OPUS"
                if layout != (self.rate, self.channels):
                    other += frame.samples / frame.sample_rate
                    if other > 1:
                        raise ValueError("its rate or its channels change on the way: split it where they do")
                    self.damaged = True  # a few frames that tell nonsense
                    continue
                if frame.time is not None:  # of the frames in one packet only the first has one
                    begin = round(frame.time * self.rate)
                    first = begin - length if first is None else first
                    missing = begin - first - length
                    is_lost = broken or has_no_pauses
                    if missing > (0.01 if is_lost and is_exact else 0.25) * self.rate:
                        for silence in self._silence(begin - first, missing):
                            yield silence
                            length += silence.shape[-1]
                            silent += silence.shape[-1]
                            self.lost += is_lost * silence.shape[-1]
                        if silent > max(LONGEST_SILENCE * self.rate, 60 * (length - silent)):
                            raise ValueError("its times tell of more than 8 hours of silence: convert it first")
                length += frame.samples
                yield _samples(frame)

    def _pause(self, packet):
        """Frames of silence for a packet of AMR which tells that nobody speaks: FFmpeg's decoders refuse those."""
        import av

        # How many samples 20 ms are, and the first bytes of frames that describe the silence, or hold nothing.
        n, pauses = {"amrnb": (160, (8, 15)), "amrwb": (320, (9, 15))}.get(self.stream.codec_context.name, (0, ()))
        if not (packet.size and bytes(packet)[0] & ~4 in [pause << 3 for pause in pauses]):
            return []
        frame = av.AudioFrame.from_ndarray(np.zeros((1, n), np.float32), "fltp", "mono")
        frame.sample_rate = 50 * n
        return [frame]

    def _silence(self, end, n):
        """Yield `n` samples of silence, which end at the sample `end`; none where this can't be true."""
        if n < 3600 * self.rate and end <= (self.n_samples or end):
            size = self.rate // 10
            for start in range(0, n, size):
                yield np.zeros((self.channels, min(size, n - start)), np.float32)

    def _opus_delay(self, first, size):
        """How much of the delay of Opus is left in a first frame, of `first` samples, where all others have `size`.

        FFmpeg takes its length, which is told at 48 kHz, for one at the rate before encoding.
        """
        delay = int.from_bytes((self.stream.codec_context.extradata or b"")[10:12], "little")
        return delay - (size - first) if 0 < size - first < delay < size else 0

    def _pieces(self):
        """Yield float32 `(channels, samples)`, without the padding of the last frame."""
        length = 0
        for frame, following in itertools.pairwise(itertools.chain(self._frames(), [None])):
            if length == 0 and following is not None and self.subtype == "OPUS":
                frame = frame[:, self._opus_delay(frame.shape[-1], following.shape[-1]) :]
            self.longest, length = max(self.longest, frame.shape[-1]), length + frame.shape[-1]
            padding = length - (self.n_samples or length) if following is None else 0
            yield to_float(frame[:, : -padding or None] if 0 <= padding < frame.shape[-1] else frame)

    def read(self, n):
        """The next `n` samples, or all if it is -1; fewer at the end: float32 `(channels, samples)`."""
        pieces, length = [self.unread], self.unread.shape[-1]
        while (length < n or n < 0) and (piece := next(self.pieces, None)) is not None:
            pieces.append(piece)
            length += piece.shape[-1]
        signal = np.concatenate(pieces, axis=-1)
        n = length if n < 0 else min(n, length)
        self.unread, self.length = signal[:, n:], self.length + n
        return signal[:, :n]

    def is_cut(self):
        """Whether the file, read to its end, ends within a frame, or more than two frames earlier than it states.

        Up to two frames decoders leave out at the beginning of MP3.
        """
        if self.format == "ogg":
            return self.damaged or not self.ended
        return self.damaged or self.cut or self.length + max(2 * self.longest, self.rate // 10) < (self.n_samples or 0)

    def found_fault(self):
        if self.lost and not self.is_cut():
            return f"is damaged: {self.lost / self.rate:.1f} s that are lost became silence"
        if self.holed:
            return "is damaged: what can't be read of it is left out, and what follows comes earlier"
        return super().found_fault()

    def close(self):
        self.container.close()


def _reason(error):
    """Why libsndfile can't read a file; its own words for two cases tell of something else."""
    text = str(getattr(error, "error_string", error))
    if text.startswith("File does not exist"):
        return "it holds no MP3"
    return "its header states a rate that no recording has" if "SF_INFO struct" in text else text


def _reader(path, ending):
    """Open a file with a header by libsndfile, or by FFmpeg where libsndfile would not read all of it."""
    reason = None
    try:
        reader = _Sndfile(path)
        # libsndfile stops where it estimated that MP3 ends, and in Ogg where the first of several recordings does; it
        # leaves out what is damaged there, and pauses, and may refuse Opus that was cut; in VOC it takes what lies
        # between two blocks for sound.
        is_partial = "MPEG" in reader.subtype or reader.file.format == "VOC"
        if reader.file.format == "OGG":
            n_streams, is_damaged, is_ended, has_pauses = _survey_ogg(path)
            reader.cut |= not is_ended
            is_partial = n_streams > 1 or is_damaged or has_pauses or (reader.subtype == "OPUS" and not is_ended)
        if not is_partial:
            return reader
        reader.close()
    except (sf.LibsndfileError, TypeError, ValueError) as error:  # off Linux, soundfile raises TypeError for x.raw
        reason = _reason(error)
    try:
        return _Decoded(path, ending)
    except ValueError as error:
        raise ValueError(error if ending in DECODED else reason or error) from None


def _opened(place, path, raw, rate):
    """A `_Reader` of what lies at `place`, which `path` names; `raw` and `rate` are those of `read_audio`."""
    with place.open("rb") as file:
        magic = file.read(4)
    ending = path.suffix.lower()
    subtype, usual_rate = HEADERLESS.get(ending, (None, SAMPLE_RATE))
    subtype = RAW[raw] if raw else subtype
    if magic in HEADERS or not (subtype or ending in (".raw", ".pcm")):
        reader = _reader(place, ending)
        if reader.another or (magic == b"fLaC" and _is_joined(place)):
            reader.note = "another recording follows the first one in it, and is not read: split the file"
        reader.note = reader.note and f"{path}: {reader.note}"
        return reader
    if not subtype:
        raise ValueError(f"it has no header: tell its sample format by --raw {'|'.join(RAW)} and its --rate")
    reader = _Sndfile(place, (subtype, usual_rate if rate is None else int(rate)))
    if not raw:
        reader.note = f"files that end in {ending} are read as {subtype} at {reader.rate} Hz, one channel"
    return reader


@contextlib.contextmanager
def open_audio(path, raw=None, rate=None, opened=None):
    """Open a sound file for reading; a ValueError says in one sentence why it can't be read and what to do.

    `raw` and `rate` are those of `read_audio`, `opened` is a path of `_held`, to read what `path` named then. Yields a
    `_Reader`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: check the path")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: name a sound file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: copy or record it again")
    if raw is not None and raw not in RAW:
        raise ValueError(f"{raw} is no sample format of files without a header: choose from {', '.join(RAW)}")
    if rate is not None:
        _check_rate(rate)
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(_held(opened or path))
            reader = stack.enter_context(contextlib.closing(_opened(place, path, raw, rate)))
        except (sf.LibsndfileError, ValueError) as error:
            advice = "check it, or record it again"
            raise ValueError(f"{path} is not audio that can be read ({_reason(error)}): {advice}") from None
        except OSError as error:
            if error.filename is not None:  # it could not be opened
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise ValueError(f"{path} can't be read ({error.strerror}): check the disk, and try again") from None
        yield reader


# ---------------------------------------------------------------------------------------------------------------------
# Denoising: notebook 07
# ---------------------------------------------------------------------------------------------------------------------

BLOCK = 54  # s that are read, denoised and written at a time
FADE = 0.016  # s in which one block passes into the next
RELEASE = 2  # dB/s by which the level of a stream falls when it becomes softer
CONTEXT = 8  # s on each side of a block that are computed and thrown away: recurrent layers forget slowly


class OnnxModel:
    """A U-Net in an ONNX file, run by ONNX Runtime; it predicts as a Keras model does.

    It runs on as many threads as there are cores for this process, or fewer, if the environment variable
    OMP_NUM_THREADS says so: several processes should not use all cores each.
    """

    def __init__(self, path):
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # on Windows, where the environment variable does nothing
        options = onnxruntime.SessionOptions()
        threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list has one for each level of nesting
        cores = _usable_cores()
        options.intra_op_num_threads = min(int(threads) or cores, cores) if threads.isdecimal() else cores
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        silence = np.zeros((1, N_FFT // 2 + 1, FRAME_MULTIPLE, 2), np.float32)
        noise = self.predict_on_batch(silence)
        if noise.shape != silence.shape or not np.isfinite(noise).all():
            raise ValueError("it does not predict spectrograms (batch, 128, frames, 2)")

    def predict_on_batch(self, inputs):
        """Float32 `(batch, 128, frames, 2)` to the same shape; 16 must divide the number of frames."""
        return self.session.run(None, {self.session.get_inputs()[0].name: inputs})[0]


CGROUP = Path("/sys/fs/cgroup")  # where Linux tells a container its limits


def _usable_cores():
    """How many cores this process may use: those that it is bound to, and no more than its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # version 2, version 1
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or "max" in it
            quota, period = (int(number) for name in names for number in (CGROUP / name).read_text().split())
            if quota > 0:
                cores = min(cores, max(1, quota // period))
    return cores


def load_model(model=MODEL):
    """Return a trained U-Net: that of a `.keras` or `.onnx` file, by default the shipped one; a model as it is.

    A file is read once: who trains the model on changes it for all that load this file.
    Raises FileNotFoundError, or ValueError if the file holds no model, or what is given is none.
    """
    if not isinstance(model, str | Path):
        if not hasattr(model, "predict_on_batch"):
            raise ValueError(f"{model!r} is no model: name its file, or give what `load_model` returns")
        return model
    if not Path(model).is_file():
        raise FileNotFoundError(f"no model at {model}: train one with `python helpers.py train`, or name another file")
    return _read_model(Path(model).resolve(), Path(model).stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_model(path, modified):  # the time of the last change makes sure that a retrained model is read again
    try:
        if path.suffix == ".onnx":
            return OnnxModel(path)
        _along()  # Keras must know the class before it meets it in the file
        model = _keras().saving.load_model(path, compile=False)
        if not model.input_shape[1::2] == model.output_shape[1::2] == (N_FFT // 2 + 1, 2):
            raise ValueError("it does not predict spectrograms (batch, 128, frames, 2)")
        return model
    except ImportError as error:
        advice = "install what is missing (on Windows it may be Microsoft's Visual C++ Redistributable)"
        raise ValueError(f"{path} can't be loaded ({error}): {advice}") from error
    except Exception as error:  # both raise many kinds
        raise ValueError(f"{path} is not a model that can be loaded: train one, or name another file") from error


def upper_edge(inputs):
    """The bin from which on a network's input `(128, frames, 2)` is empty, if that is at 2 to 3.5 kHz, and else 128."""
    magnitude = np.linalg.norm(inputs, axis=-1).mean(axis=-1)
    heard = np.flatnonzero(magnitude > 10 ** (-36 / 20) * np.median(magnitude[10:64]))  # from 0.3 to 2 kHz
    edge = heard[-1] + 1 if len(heard) else 0
    return edge if 64 <= edge < 112 else 128


def with_mirror_image(inputs):
    """A network's input `(128, frames, 2)` with a mirror image of what lies below its `upper_edge` in the band above.

    The network learned on lines whose band ends gently, and took for noise speech whose band ends sharply, as some
    resamplers and codecs cut it. The image is softer towards 4 kHz. Others on the line may have the full band: the edge
    is that of each 1.5 s or more.
    """
    shown = inputs.copy()
    for part in np.array_split(np.arange(inputs.shape[1]), max(1, inputs.shape[1] // 192)):
        edge = upper_edge(inputs[:, part])
        empty = np.arange(edge, len(inputs))
        shown[edge:, part] += inputs[2 * edge - 1 - empty][:, part] * (edge / empty[:, None, None]) ** 4
    return shown


def onsets_after_silence(inputs):
    """The frames of a network's input `(128, frames, 2)` from which it is to be predicted anew.

    They are where a sound begins after 0.25 s, or 1 s before one that follows 3 s, of silence: what lies 50 dB below
    the loud parts, or 30 dB. The recurrent layers learned on 4 s of sound: after silence they take for noise what
    begins then, the more so the less of it they hear. What lies below 94 Hz does not count, as silence in A-law is an
    offset.
    """
    power = np.square(inputs[3:], dtype=np.float64).sum(axis=(0, 2))
    loud = np.average(power, weights=power) if power.any() else 1
    second, starts = SAMPLE_RATE // HOP_LENGTH_FFT, []
    for floor_db, seconds, lead in ((-50, 0.25, 0), (-30, 3, 1)):
        sounding = np.flatnonzero(power > 10 ** (floor_db / 10) * loud)
        starts.append(sounding[np.diff(sounding, prepend=-1) > seconds * second] - lead * second)
    return np.unique(np.concatenate(starts))


def slow_offset(signal, level):
    """The offset (DC) of a signal `(samples,)` at 8 kHz: float64 `(samples,)`, the mean of the second around each.

    It is faded out where it lies 20 to 26 dB below the `level`, as in most recordings, and is zero below that, or in
    less than 0.25 s, which may be of one vowel.
    """
    if len(signal) < SAMPLE_RATE // 4:
        return np.zeros(len(signal))
    total = np.cumsum(np.pad(signal, SAMPLE_RATE // 2, "symmetric"), dtype=np.float64)
    offset = (total[SAMPLE_RATE:] - total[:-SAMPLE_RATE]) / SAMPLE_RATE
    return np.clip(20 * signal_level(offset) / level - 1, 0, 1) * offset


def _predict(model, inputs, behind):
    """What a model predicts from an input `(128, frames, 2)` of any length; `behind` is that of `predict_noise`."""
    n = inputs.shape[1]
    padded = np.pad(inputs, ((0, 0), (0, -n % FRAME_MULTIPLE), (0, 0)), behind)
    return model.predict_on_batch(padded[None])[0, :, :n]


def predict_noise(noisy, level, model, behind="constant"):
    """Predict the noise in signals at 8 kHz: float32 `(channels, samples)` of level `(channels,)` to the same shape.

    An offset is noise that the network need not hear: strong ones were in no training. `behind` is how `numpy.pad` is
    to fill up 16 frames: "constant" for the silence behind a recording, "symmetric" for a mirror image where one goes
    on, since a word that silence seems to cut short is taken for noise.
    """
    noise = np.empty_like(noisy)
    for i, channel in enumerate(noisy):  # one by one: many channels take no more memory than one
        offset = slow_offset(channel, level[i])
        inputs = to_network(stft(channel - offset), level[i])
        shown = with_mirror_image(inputs)
        bounds = itertools.pairwise([0, *onsets_after_silence(inputs), shown.shape[1]])
        # Each piece sees the 384 frames, 3 s, that follow it: before a loud word, a soft one is no noise.
        pieces = [_predict(model, shown[:, a : b + 384], behind)[:, : b - a] for a, b in bounds]
        outputs = np.concatenate(pieces, axis=1)
        size, shown_size = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (outputs, shown))
        share = np.minimum(1, size / np.maximum(shown_size, 1e-9))  # of the image, and so of what is really there
        outputs = np.where(shown == inputs, outputs, share * inputs)
        noise[i] = istft(from_network(outputs, level[i]), len(channel)) + offset
    return noise


def upper_gain(noisy, noise):
    """How much the network attenuates 3 to 4 kHz: `(channels, frames)`, 0 to 1, from signals at 8 kHz and their noise.

    The band above 4 kHz, which it can't hear, is attenuated alike: hiss and consonants reach far beyond.
    """
    high = [np.abs(stft(x)[:, 3 * N_FFT // 8 :]) for x in (noisy, noisy - noise)]
    before, after = (np.sum(np.square(x, dtype=np.float64), axis=1) for x in high)
    return np.sqrt(np.divide(np.minimum(after, before), before, out=np.ones_like(before), where=before > 0))


def _removed(block, rate, start, level, model, behind):
    """What has to be subtracted from a block `(channels, samples)`, which begins `start` samples at 8 kHz after 0 s.

    `behind` is that of `predict_noise`.
    """
    narrow = resample(block, rate, SAMPLE_RATE)
    # All blocks must lie on one grid of network steps; what is left out at the beginning is context.
    lead = -start % (FRAME_MULTIPLE * HOP_LENGTH_FFT)
    narrow = narrow[:, lead:]
    noise = predict_noise(narrow, level, model, behind)

    def widen(signal):
        signal = resample(np.pad(signal, ((0, 0), (lead, 0))), SAMPLE_RATE, rate)
        return fix_length(signal, size=block.shape[-1])

    removed = widen(noise)
    if rate > SAMPLE_RATE:
        frame = (np.arange(block.shape[-1]) / rate * SAMPLE_RATE - lead) / HOP_LENGTH_FFT
        for i in range(len(block)):  # one by one: many channels take less memory so
            one = slice(i, i + 1)
            (gain,) = upper_gain(narrow[one], noise[one])
            gain = np.interp(frame, np.arange(len(gain)), gain)
            removed[i] += (1 - gain) * (block[i] - widen(narrow[one])[0])
    return removed


def _check_mix(mix):
    if not 0 <= mix <= 1:
        raise ValueError(f"a mix of {mix} is not possible: choose from 0, all noise left, to 1, all removed")


def _check_rate(rate):
    if not float(rate).is_integer():
        raise ValueError(f"a sample rate of {rate} Hz is no integer: resample the recording first")
    if not 1000 <= rate <= 1_000_000:
        raise ValueError(f"a sample rate of {rate} Hz is none that recordings have: repair its header, or resample it")


def _level_and_length(chunks, rate):
    """The level of a recording without its offset (DC), float32 `(channels,)`, and its number of samples.

    `chunks` are float32 `(channels, samples)`. Raises ValueError if it is empty, or if samples are NaN or infinite.
    """
    total, power, n_narrow, length = 0.0, 0.0, 0, 0
    for chunk in chunks:
        narrow = resample(chunk, rate, SAMPLE_RATE)
        total += np.sum(narrow, axis=-1, dtype=np.float64)
        power += np.sum(np.square(narrow, dtype=np.float64), axis=-1)
        n_narrow += narrow.shape[-1]
        length += chunk.shape[-1]
    if length == 0:
        raise ValueError("there is no audio in it: check that the recording is not empty")
    if not np.isfinite(power).all():
        raise ValueError("samples are NaN or infinite: repair the recording first")
    return audible_level(np.maximum(0, power / n_narrow - (total / n_narrow) ** 2)), length


def _in_steps(chunks, step):
    """Cut chunks `(channels, samples)` of any size anew, `step` samples each; at the end comes the rest, maybe none."""
    waiting, n = [], 0
    for chunk in chunks:
        waiting.append(chunk)
        n += chunk.shape[-1]
        if n >= step:
            *steps, rest = np.split(np.concatenate(waiting, axis=-1), range(step, n + 1, step), axis=-1)
            yield from steps
            waiting, n = [rest], rest.shape[-1]
    if waiting:
        yield np.concatenate(waiting, axis=-1)


def _joined_blocks(chunks, rate, model, mix, step, context, ahead, level=None):
    """Yield a recording piece by piece, as pairs of float32 arrays, noisy and enhanced, joined without a click.

    No sample waits until more than `step + ahead` have followed it.

    Args:
        chunks: float32 arrays `(channels, samples)` of any size.
        step: after how many samples the network is run again.
        context, ahead: how many samples before and behind those that are yielded it sees.
        level: that of the recording `(channels,)`. None is for a stream: the level is that of what the network sees at
            a time, and falls slowly behind what was louder.
    """
    unit = rate // math.gcd(rate, SAMPLE_RATE)  # so many samples are a whole number at 8 kHz, too
    behind = "symmetric" if level is None else "constant"
    block, start, done, tail, power = None, 0, 0, None, 0.0
    for piece in _in_steps(chunks, step):
        block = piece if block is None else np.concatenate([block, piece], axis=-1)
        end = start + block.shape[-1]
        until = end if piece.shape[-1] < step else end - ahead
        if until <= done:
            continue
        told = level
        if level is None:
            falling = power * 10 ** (-RELEASE / 10 * piece.shape[-1] / rate)
            power = np.maximum(falling, np.var(resample(block, rate, SAMPLE_RATE), axis=-1, dtype=np.float64))
            told = audible_level(power)
        removed = np.float32(mix) * _removed(block, rate, start * SAMPLE_RATE // rate, told, model, behind)
        new = slice(done - start, until - start)
        if tail is not None:  # what the block before made of the first samples passes into what this one does
            n = min(tail.shape[-1], until - done)
            join = slice(done - start, done - start + n)
            removed[:, join] += np.linspace(1, 0, n, dtype=np.float32) * (tail[:, :n] - removed[:, join])
        enhanced = block[:, new] - removed[:, new]
        if not np.isfinite(enhanced).all():
            raise ValueError(f"the level, up to {np.abs(block).max():.0e}, is too high: scale it to [-1, 1]")
        yield block[:, new], enhanced
        tail = removed[:, until - start : until - start + round(FADE * rate)]
        done = until
        start, before = max(0, done - context) // unit * unit, start
        block = block[:, start - before :]


def _denoise_blocks(chunks, rate, model, mix):
    """Yield the recording piece by piece, as pairs of float32 arrays: noisy and enhanced.

    `chunks()` begins to read it and yields float32 `(channels, samples)`. It is read twice: the network has to know the
    level of the whole.
    """
    _check_mix(mix)
    _check_rate(rate)
    level, length = _level_and_length(chunks(), rate)

    def measured():
        left = length
        for chunk in chunks():
            yield chunk[:, :left]
            left -= chunk.shape[-1]
            if left <= 0:  # a recording may have grown since
                return
        raise ValueError("it became shorter while it was read: denoise it again")

    context = CONTEXT * rate
    yield from _joined_blocks(measured(), rate, model, mix, BLOCK * rate, context, context, level)


def denoise(noisy, sample_rate=SAMPLE_RATE, model=RUNTIME_MODEL, mix=1.0):
    """Remove the noise from a recording: noisy minus the noise that the U-Net predicts.

    Args:
        noisy: array `(samples,)` or `(channels, samples)` of any length; each channel is denoised by itself. Whole
            numbers are scaled by their type (`to_float`): int16, as scipy reads it, is divided by 32768.
        sample_rate: its rate in Hz, an integer. The network hears the band below 4 kHz; what lies above is attenuated
            as it attenuates the band from 3 to 4 kHz (`upper_gain`).
        model: a trained U-Net or its file, by default the shipped one.
        mix: how much of the predicted noise is removed, from 0 (none) to 1 (all).

    Returns: float32 array of the same shape and level, without its offset (DC) if that is strong (`slow_offset`). Long
        recordings go through the network in blocks that overlap and fade into each other: the result is as good as that
        of the whole at once, and not quite the same.
    Raises ValueError if the array is empty, has more than two axes, more channels than samples or more than 64, or
        holds NaN, infinity or values near 1e38; if the rate is no integer from 1 kHz to 1 MHz, or `mix` lies outside
        of 0 to 1; FileNotFoundError if the model's file is missing.
    """
    noisy = to_float(noisy)
    if noisy.ndim not in (1, 2) or noisy.size == 0:
        raise ValueError(f"expected an array (samples,) or (channels, samples) that is not empty, got {noisy.shape}")
    channels = np.atleast_2d(noisy)
    n_channels, n_samples = channels.shape
    if n_channels > n_samples:
        raise ValueError(f"an array {noisy.shape} is not (channels, samples), but (samples, channels): transpose it")
    if n_channels > 64:
        raise ValueError(f"{n_channels} channels are more than 64: denoise some of them at a time")
    _check_rate(sample_rate)
    size = BLOCK * int(sample_rate)
    chunks = [channels[:, i : i + size] for i in range(0, n_samples, size)]
    pieces = _denoise_blocks(lambda: chunks, int(sample_rate), load_model(model), mix)
    return np.concatenate([enhanced for _, enhanced in pieces], axis=-1).reshape(noisy.shape)


FLOATS = ("FLOAT", "DOUBLE")  # which hold what lies beyond [-1, 1]
WAV_LIMIT = 2**31  # bytes as floats: a plain WAV file ends at 4 GB, and its samples have up to 8 bytes


def _target_format(source, target):
    """libsndfile's names of the format and the sample format to write: the source's, where the target's ending can."""
    ending = target.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"{target} cannot be written: end its name in one of {', '.join(FORMATS)}")
    audio_format, subtype = FORMATS[ending], source.subtype
    # Blocks of ADPCM would add samples: those of the source may have another size.
    if subtype in ("IMA_ADPCM", "MS_ADPCM") or not sf.check_format(audio_format, subtype):
        subtype = sf.default_subtype(audio_format)
    if audio_format == "OGG" and source.subtype == "OPUS":  # voice messages, whatever their ending
        return audio_format, "OPUS"
    return audio_format, CODECS.get(ending, subtype)


def _check_layout(source, target, audio_format, subtype):
    """Raise ValueError if the target's format can't hold the rate or the channels of the source."""
    # Of six channels or more the last is one for low frequencies; at higher rates libvorbis crashes.
    fits = subtype not in ("VORBIS", "OPUS") or (source.channels < 6 and source.rate <= 200_000)
    try:
        with _HeldSignals():  # what one raises while libsndfile calls Python would be lost
            if fits:
                sf.SoundFile(io.BytesIO(), "w", source.rate, source.channels, subtype, format=audio_format).close()
    except sf.LibsndfileError:
        fits = False
    if not fits:
        size = f"{source.channels} channels at {source.rate} Hz"
        raise ValueError(f"{target} can't hold {size}: denoise the file alone, into one that ends in .wav")


def limited(enhanced, noisy, subtype):
    """Limit an enhanced signal to [-1, 1] where the noisy one, of the sample format `subtype`, is clipped already.

    Else a few samples would turn a whole call down. The two largest values of u-law and A-law count as full scale; what
    codecs such as MP3 make of a clipped sample lies beyond 1, and only floats may mean that.
    """
    level = np.abs(noisy)
    clipped = (level > 0.94) & ((level <= 1) | (subtype not in FLOATS))
    return np.where(clipped, np.clip(enhanced, -1, 1), enhanced)


TAGS = ("title", "artist", "date", "comment", "album", "genre", "copyright", "tracknumber", "license")
MARK = "denoised "  # how the tag begins by which a result is known
MARKED = re.compile(rf"{MARK}[0-9a-f]{{12}}(?:\.[0-9a-f]{{4}})?")  # earlier ones tell neither size nor time


def _mark(source):
    """How the tag begins that a result bears, where its format has one that is free: a hash of its source's path."""
    path = os.path.normcase(source.resolve())
    return MARK + hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _mark_of(source, status):
    """The whole of this tag, with a hash of its source's size and time: ID3v1 has room for 28 letters."""
    state = f"{status.st_size} {status.st_mtime_ns // 10**9}"  # whole seconds, as not all systems tell more
    return f"{_mark(source)}.{hashlib.sha256(state.encode()).hexdigest()[:4]}"


def _marks(target):
    """The marks that a file bears, a list of texts."""
    if not target.is_file():  # a pipe might not end
        return []
    with target.open("rb") as file:
        ends = file.read(1 << 16)
        file.seek(max(file.tell(), target.stat().st_size - (1 << 16)))
        ends += file.read()
    return MARKED.findall(ends.decode("latin-1"))


def _check_replaceable(source, target):
    """Raise ValueError if a target exists, and is not known to be an earlier result of `source`."""
    if os.path.lexists(target) and not any(mark.startswith(_mark(source)) for mark in _marks(target)):
        known = f"{target} is not known to be a result of {source} (not all formats and versions mark them)"
        raise ValueError(f"{known}: name another target, or replace it by --overwrite")


def _set_tags(file, tags):
    """Give a file that is being written tags, a dict, as far as its format can hold them."""
    encoding = "utf-8"
    if file.format == "MP3" and any(len(text.encode()) > 28 for text in tags.values()):
        encoding = "latin-1"  # that of ID3v2, which LAME adds if a text has more than 30 letters
        tags = tags | {"comment": tags["comment"].ljust(31)}
    for name, text in tags.items():
        sf._snd.sf_set_string(file._file, sf._str_types[name], text.encode(encoding, "replace"))


MARKED_LATE = "WAV", "RF64"  # formats whose mark lies behind the sound: some exchanges skip the first 44 bytes of a WAV


def _write(path, store, audio, audio_format, subtype, peak, mark):
    """Write the result of the recording `audio`, with its tags and `mark`: the floats in `store` over `peak`."""
    tags = {name: audio.tags[name] for name in TAGS if name in audio.tags}
    is_late = audio_format in MARKED_LATE
    if audio_format == "MP3":  # which has no tag for software
        comment = re.sub(f"{MARKED.pattern} ?", "", tags.get("comment", ""))
        tags["comment"] = f"{mark['software']} {comment}".strip()
    elif not is_late:
        tags = mark | tags  # first, since `_marks` reads the ends of a file alone
    with sf.SoundFile(_encoded(path), "w", audio.rate, audio.channels, subtype, format=audio_format) as file:
        _set_tags(file, tags)
        if audio.bext:
            sf._snd.sf_command(file._file, SET_BROADCAST_INFO, audio.bext, len(audio.bext))
        while data := store.read(4 * audio.channels << 16):  # libvorbis has all of it on its stack
            samples = np.frombuffer(data, np.float32).reshape(-1, audio.channels)
            # What is a little beyond 1, libsndfile would write as u-law of the other sign.
            file.write(samples if subtype in FLOATS else np.clip(samples / peak, -1, 1))
        if is_late:
            _set_tags(file, mark)


def _check_written(path, length, rate, audio_format):
    """Raise OSError if what was written, `length` samples at `rate`, is not on the disk, or does not read back whole.

    libsndfile does not tell of what fails when it closes a file, such as the mark behind the sound of a WAV.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        with open_audio(path) as audio:
            n_read = sum(chunk.shape[-1] for chunk in audio.chunks(BLOCK * audio.rate))
            is_marked = audio_format not in MARKED_LATE or _marks(path)
            complete = n_read >= length and audio.rate == rate and is_marked
    except ValueError:
        complete = False
    if not complete:
        raise OSError("it does not read back whole")


def denoise_file(source, target, model=RUNTIME_MODEL, mix=1.0, *, raw=None, rate=None, overwrite=False):
    """Denoise a sound file into another: same rate, channels, number of samples and level; the source is not touched.

    The target's format follows its ending; it keeps the source's sample format (PCM_16, ULAW, ...) where it can, and
    its tags, beside a mark that it is denoised. It appears when it is whole, with the source's time of change, and can
    be read by nobody who can't read the source. Where the result would clip it is attenuated, and a warning says by how
    much; where the source is at full scale already, it is limited instead. A target of a format that can't be written
    becomes a `.wav`. Memory does not grow with the length, but with channels times rate: more than 1.5 million samples
    a second are refused. `model` and `mix` are those of `denoise`, `raw` and `rate` those of `read_audio`. Without
    `overwrite` only what bears the mark of this source is replaced.
    Raises: FileNotFoundError, OSError, or ValueError with one sentence that names the file and the remedy.
    """
    source, named, target = Path(source), Path(target), target_name(target)
    if target.is_dir():
        raise ValueError(f"{target} is a folder: name a file in it")
    for folder in target.parents:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{target} would lie in {folder}, which is no folder: name another target")
    begun = source.stat() if source.exists() else None
    with open_audio(source, raw, rate) as audio:
        audio_format, subtype = _target_format(audio, target)
        _check_layout(audio, target, audio_format, subtype)
        if target.exists() and _identity(target) == _identity(source):
            raise ValueError(f"{target} is the recording itself: name another target")
        if not overwrite:
            _check_replaceable(source, target)
        if target != named:
            warnings.warn(f"{named} can't be written: the result is {target}", stacklevel=2)
        if audio.note:
            warnings.warn(audio.note, stacklevel=2)
        if audio.rate > SAMPLE_RATE:  # one text for all files: Python shows it once
            warnings.warn("above 4 kHz, which the network can't hear, all is attenuated as 3 to 4 kHz is", stacklevel=2)

        if audio.channels * audio.rate > 32 * 48_000:  # a block of which takes 4 GB
            size = f"{audio.channels} channels at {audio.rate} Hz"
            raise ValueError(f"{source}: {size} do not fit into memory: split its channels, or resample it first")
        model, reopened = load_model(model), functools.partial(open_audio, source, raw, rate, audio.path)
        try:
            # Whether it clips is known at its end, and it is too large for the memory: it waits in a nameless file.
            with written_whole(target, source, audio.path) as part, tempfile.TemporaryFile(dir=target.parent) as store:
                peak, length, fault = _denoise_into(store, audio, reopened, model, mix, subtype)
                now = source.stat() if source.exists() else begun
                later = now.st_mtime_ns - begun.st_mtime_ns
                grew = later > 0 and now.st_size > begun.st_size and os.path.samestat(now, begun)
                if later and not grew:
                    raise ValueError("it was changed while it was read: denoise it again")
                clips = peak > 1.005 and subtype not in FLOATS  # from 0.05 dB on
                if audio_format == "WAV" and store.tell() >= WAV_LIMIT and sf.check_format("RF64", subtype):
                    audio_format = "RF64"
                if audio_format == "AIFF" and length * audio.channels % 2:
                    # libsndfile takes the byte that fills up an odd number of bytes for a sample.
                    subtype = "PCM_16" if subtype in ("ULAW", "ALAW", "PCM_U8", "PCM_S8") else subtype
                store.seek(0)
                mark = {"software": _mark_of(source, begun)}
                _write(part, store, audio, audio_format, subtype, peak if clips else 1, mark)
                _check_written(part, length, audio.rate, audio_format)
                if not overwrite:  # it may have come meanwhile
                    _check_replaceable(source, target)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        except FileNotFoundError:  # it names what has vanished, the source or the target's folder
            raise
        except (OSError, sf.LibsndfileError, AssertionError) as error:  # soundfile asserts that all were written
            reason = getattr(error, "strerror", None) or getattr(error, "error_string", error)
            advice = ADVICE.get(getattr(error, "errno", None), "check the disk and its room, or choose another format")
            raise OSError(f"{target} could not be written ({reason}): {advice}") from None
    if fault:
        warnings.warn(f"{source} {fault}", stacklevel=2)
    if grew:
        warnings.warn(f"{source} grew while it was read: denoise it again when it is whole", stacklevel=2)
    if clips:
        warnings.warn(f"{target}: attenuated by {20 * np.log10(peak):.1f} dB, else it would clip", stacklevel=2)


def _denoise_into(store, audio, reopened, model, mix, subtype):
    """Denoise the recording `audio`, which `reopened()` opens again, into a file `store`, as floats.

    Returns: (peak, length, fault): the largest magnitude, the number of samples, and what is wrong with the recording.
    """
    from tqdm import tqdm

    peak, length, fault = 0.0, 0, ""

    def chunks():
        nonlocal fault
        with reopened() as file:
            if (file.rate, file.channels) != (audio.rate, audio.channels):
                raise ValueError("it was changed while it was read: denoise it again")
            yield from file.chunks(BLOCK * file.rate)
            fault = file.fault()

    seconds = round((audio.n_samples or 0) / audio.rate)
    with tqdm(total=seconds, unit="s", leave=False, disable=None) as progress:
        for noisy, piece in _denoise_blocks(chunks, audio.rate, model, mix):
            piece = piece if subtype in FLOATS else limited(piece, noisy, audio.subtype)
            peak, length = max(peak, np.abs(piece).max()), length + piece.shape[-1]
            store.write(np.ascontiguousarray(piece.T))
            progress.update(round(piece.shape[-1] / audio.rate))
    return peak, length, fault


ADVICE = {  # what to do about errors that the system tells
    errno.EACCES: "get access to it, or name another",
    errno.EPERM: "get access to it, or name another",
    errno.EROFS: "name another target",
    errno.ENOSPC: "make room on the disk",
    errno.ENAMETOOLONG: "denoise it alone, into a shorter name",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.EFBIG: "raise the limit (ulimit -f), or name another target",
}


def _sentence(error):
    """What an exception says, in one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory: raise its limit, or denoise fewer files at once"
    if isinstance(error, OSError) and error.strerror:  # the system's own: without its number
        parts = (os.fsdecode(error.filename2 or error.filename or ""), error.strerror, ADVICE.get(error.errno))
        return _escaped(": ".join(filter(None, parts)))
    return _escaped(str(error))


def _escaped(text):
    """A text as one line that any terminal shows: a newline becomes \\n, a byte of a name that is not UTF-8 \\xe9."""
    text = os.fsencode(text).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _layout(path, raw, rate):
    """Which of `raw` and `rate` hold for a file of a folder, where others may have a header or an ending that tells."""
    known = (*FORMATS, *DECODED, *(HEADERLESS if raw else ()))
    return (None, None) if path.suffix.lower() in known else (raw, rate)


_WARNINGS = threading.Lock()  # they are caught for all threads of a process, and a worker may have several


def _try_denoise(model, source, target, mix, overwrite, raw=None, rate=None):
    """Denoise a file; return (error, warning): what went wrong, and what to know, each in one line or empty."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # by default a semaphore, which would outlive a worker that is killed
    # They are recorded, since a worker's would end in its own log.
    with _WARNINGS, warnings.catch_warnings(record=True, action="always", category=UserWarning) as told:
        try:
            if overwrite or not _is_done(source, target):  # another run may be faster
                denoise_file(source, target, model, mix, raw=raw, rate=rate, overwrite=overwrite)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                if not overwrite and _is_done(source, target):  # another run was faster
                    return "", ""
            return _sentence(error), ""
        except MemoryError as error:
            return _escaped(f"{source}: {_sentence(error)}"), ""
        except Exception as error:  # what nobody thought of must not stop the other files
            return _escaped(f"{source}: it can't be denoised ({error!r}): check it"), ""
    return "", _escaped("; ".join(str(warning.message) for warning in told if warning.category is UserWarning))


def denoise_folder(source, target, model=RUNTIME_MODEL, mix=1.0, *, raw=None, rate=None, overwrite=False, client=None):
    """Denoise every sound file below the folder `source` into the folder `target`, keeping the tree.

    Links to folders are followed, each real folder once.

    Args:
        source, target: folders; neither may lie in the other. `source` can be a list of files and folders as well: each
            comes to lie in `target` by its own name, as `cp` would put it.
        model, mix: those of `denoise`; with a client, the model is a file, or what can be pickled.
        raw, rate: those of `read_audio`, for files that end in .raw or .pcm; `rate` alone, for all without a header.
        overwrite: whether to replace what is in the target already. By default results are skipped, but for those
            whose source has changed since: they are made again. A file that bears no mark counts as a result if it is
            no older than the source. Any other file that is in the way is an error.
        client: a `distributed.Client` to denoise files at once, by the processes of this machine or of a cluster. Its
            machines must see the same folders, be allowed to write into `target`, which is made by this one, and find
            this module: set PYTHONPATH to its folder where they start. Threads of one process take turns.
            By default, files are denoised one after the other.

    Returns: a DataFrame with a row per file: path; status, one of "done", "skipped", "failed" and "left out", which is
        what is hidden or no sound file by its ending; error, which says why a file failed, or a folder that may not be
        read; and warning, such as that a file was cut. None of them stops the others. If the run is interrupted, what
        would be in the last column is told by warnings.
    Raises ValueError if there is no sound file, if one folder lies in the other, if `target` is none, or if `mix` lies
        outside of 0 to 1.
    """
    from tqdm import tqdm

    _check_mix(mix)
    target = Path(target).resolve()
    if not isinstance(source, str | Path):
        source = list(source)
    elif target.is_dir() and not os.path.isdir(source):  # as on the command line
        source = [source]
    targets, told = _targets(source, target, raw)
    if not (targets or any(status == "failed" for status, *_ in told.values())):
        raise ValueError(_no_sound_files(source) + ("" if raw else "; .raw and .pcm need --raw"))
    remove_abandoned(parts_below(target))
    sources = collections.defaultdict(list)
    for path, result in targets.items():
        sources[result].append(path)
    originals = {identity: path for path in targets if (identity := _identity(path))}
    for result, paths in sources.items():
        if len(paths) > 1:
            error = f"{' and '.join(map(str, paths))} would both become {result}: rename one, or choose another target"
            told |= dict.fromkeys(paths, ("failed", error, ""))
        elif (original := originals.get(_identity(result), paths[0])) != paths[0]:
            error = f"{paths[0]} would become {result}, which is the recording {original}: choose another target"
            told[paths[0]] = ("failed", error, "")
        elif not overwrite:
            try:
                if _is_done(paths[0], result):
                    told[paths[0]] = ("skipped", "", "")
            except OSError as error:  # a folder that may not be entered
                told[paths[0]] = ("failed", _sentence(error), "")
    todo = (path for path in sorted(targets) if path not in told)
    jobs = {path: (path, targets[path], mix, overwrite, *_layout(path, raw, rate)) for path in todo}
    model = str(Path(model).resolve()) if isinstance(model, str | Path) else model
    if client is None:
        loaded = load_model(model) if jobs else None  # once: the file may be replaced meanwhile
        results = ((path, _try_denoise(loaded, *job)) for path, job in jobs.items())
    else:
        results = _denoise_on(client, model, jobs)
    folders = [source] if isinstance(source, str | Path) else [_absolute(path).parent for path in source]
    folders = [Path(folder).resolve() for folder in folders if os.path.isdir(folder)]
    if jobs and folders:
        with contextlib.suppress(OSError):  # each file will tell
            _make_folder(target, *folders)
    try:
        for path, (error, warning) in tqdm(results, total=len(jobs), unit="file", disable=None):
            told[path] = ("failed" if error else "done", error, warning)
    except BaseException:  # there will be no table, and the next run skips what is done
        for warning in dict.fromkeys(warning for *_, warning in told.values() if warning):
            warnings.warn(warning, stacklevel=2)
        raise
    rows = [(path, *told[path]) for path in sorted(told)]
    return pd.DataFrame(rows, columns=["path", "status", "error", "warning"])


def _targets(source, target, raw):
    """The results' paths by those of the sound files, and (status, error, warning) by the paths of all that is none."""
    if isinstance(source, str | Path):
        if target.is_file():
            raise ValueError(f"{target} is not a folder: name one for the results")
        places = {Path(source).resolve(): target}
    else:
        places = {path: target / path.name for path in map(_absolute, source)}
        if not target.is_dir() and (target.exists() or target.suffix.lower() in FORMATS):
            raise ValueError(f"{target} is not a folder: name one for the results of several sources")
    targets, told = {}, {}
    for path, place in places.items():
        if not os.path.isdir(path):  # or it may not be looked at
            targets[path] = target_name(place)
            continue
        if path.resolve().is_relative_to(target) or target.is_relative_to(path.resolve()):
            raise ValueError(f"one of {path} and {target} lies in the other: name a target folder elsewhere")
        files, unread = _files_below(path, target)
        told |= {Path(error.filename): ("failed", _sentence(error), "") for error in unread}
        for file in files:
            if is_recording(file, raw) and not file.name.startswith("."):
                targets[file] = target_name(place / file.relative_to(path))
            else:
                told[file] = ("left out", "", "")
    return targets, told


def _no_sound_files(source):
    """The text of an error: `source` is a folder or a list of them."""
    named = source if isinstance(source, str | Path) else " or ".join(map(str, source))
    return f"no sound files in {named}: they should end in one of {', '.join((*FORMATS, *DECODED, *HEADERLESS))}"


def _identity(path):
    """What is the same for all names of a file, and None if there is none."""
    with contextlib.suppress(OSError):
        status = path.stat()
        # Some drives on Windows, such as those of cloud services, have no numbers.
        return (status.st_dev, status.st_ino) if status.st_ino else os.path.normcase(path.resolve())


def _is_done(source, target):
    """Whether `target` is the result of `source` as it is now: a result bears its source's time, or a later one.

    If its mark tells of another source, or of another size or time, as a copy that is under way has, it is not; but not
    all formats can bear one.
    """
    if not (source.exists() and target.is_file() and target.stat().st_size) or _identity(target) == _identity(source):
        return False
    now = source.stat()
    if now.st_mtime_ns > target.stat().st_mtime_ns:
        return False
    marks = _marks(target)
    return not marks or _mark(source) in marks or _mark_of(source, now) in marks


def _denoise_on(client, model, jobs):
    """Yield (path, (error, warning)) for each file, in the order in which the workers of a cluster get them done."""
    from distributed import KilledWorker, as_completed
    from distributed.scheduler import NoWorkerError

    reasons = {
        KilledWorker: "the processes that denoised it died: denoise it alone",
        NoWorkerError: "no process was left to denoise it: start it again to go on",
    }
    futures = {client.submit(_try_denoise, model, *job, pure=False): path for path, job in jobs.items()}
    for future in (completed := as_completed(futures)):
        # A worker that dies is replaced, and its files are done again; one that kills several workers is given up.
        path = futures[future]
        if future.status == "finished":
            yield path, future.result()
        elif future.status == "error":
            error = future.exception()
            yield path, (_escaped(f"{path}: {reasons.get(type(error)) or _sentence(error)}"), "")
        elif future.status == "lost":  # with the worker that held what it returned: it is done again
            completed.add(future)
        else:
            yield path, (_escaped(f"{path}: the cluster was lost: start it again to go on"), "")


# ---------------------------------------------------------------------------------------------------------------------
# Live: notebook 09
# ---------------------------------------------------------------------------------------------------------------------


def denoise_stream(chunks, sample_rate, latency=0.5, model=RUNTIME_MODEL, mix=1.0):
    """Remove the noise from a recording while it is made: a generator that yields what `denoise` returns, in pieces.

    Args:
        chunks: an iterable of float arrays `(samples,)`, or `(channels, samples)`, of any size, as they come.
        sample_rate: their rate in Hz, an integer.
        latency: for how many seconds of what follows it a sample waits at most, at least 0.032, an STFT window; the
            rest of the chunk that brings them comes on top. Nearly half of it is what the network hears of what
            follows. More of it is better, and less work: 0.5 is 5 times that of `denoise`, 0.1 20 and 0.032 60 times.
        model, mix: those of `denoise`.

    Yields: float32 arrays of the same shape, but any size: together as many samples as came in.
    The level that the network needs is that of the last second or more, and falls by 2 dB/s behind what was louder.
    Memory does not grow with the length.
    Raises ValueError as `denoise` does, if a chunk has another shape than those before it, or if none came; what came
    before that chunk is yielded first, also where `chunks` itself raises an error.
    """
    _check_mix(mix)
    _check_rate(sample_rate)
    if not N_FFT / SAMPLE_RATE <= latency < math.inf:
        raise ValueError(f"a latency of {latency} s is not possible: choose 0.032 s, an STFT window, or more")
    rate, delay, shape, fault = int(sample_rate), int(latency * sample_rate), None, None

    def received():
        nonlocal shape, fault
        try:
            for chunk in chunks:
                chunk = _checked_chunk(chunk, shape)
                shape = chunk.shape[:-1]
                chunk = np.atleast_2d(chunk)
                is_bad = ~np.isfinite(chunk).all(axis=0)
                until = is_bad.argmax() if is_bad.any() else len(is_bad)
                if until:
                    yield chunk[:, :until]
                if until < len(is_bad):
                    raise ValueError("samples are NaN or infinite: repair the recording first")
        except Exception as error:  # raised when what came before has been yielded
            fault = error

    step = max(delay // 2, delay - CONTEXT * rate)
    ahead, silent = delay - step, True
    for _, piece in _joined_blocks(received(), rate, load_model(model), mix, step, max(ahead, rate), ahead):
        silent = False
        yield piece.reshape(*shape, -1)
    if fault:
        raise fault
    if silent:
        raise ValueError("there is no audio in it: check that the recording is not empty")


def _checked_chunk(chunk, shape):
    """A copy of a chunk as float32; raise ValueError if it can't follow those of `shape` (without samples) or None."""
    chunk = np.array(to_float(chunk))  # who sends it may use its memory again
    if shape is not None and chunk.shape[:-1] != shape:
        raise ValueError(f"a chunk has the shape {chunk.shape}: expected {(*shape, 'samples')}, as before")
    if chunk.ndim not in (1, 2) or (chunk.ndim == 2 and not 0 < len(chunk) <= 64):
        raise ValueError(f"a chunk has the shape {chunk.shape}: expected (samples,), or (up to 64 channels, samples)")
    return chunk


def _wav_header(source):
    """Read a WAV stream up to its samples: its header, bytes in a sample of all channels, and bytes of sound."""
    header, frame = bytearray(source.read(12)), 0
    if header[:4] not in (b"RIFF", b"RF64") or header[8:] != b"WAVE":
        raise ValueError("it is no WAV: send one, or tell the sample format of a stream without a header by --raw")
    while len(head := source.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            return bytes(header + head), frame, math.inf if _is_unknown(length) else length
        if len(header) + length > LONGEST_HEADER:
            raise ValueError("its header is longer than that of any recorder: check what sends it")
        content = source.read(length + length % 2)
        if name == b"fmt ":
            frame = int.from_bytes(content[12:14], "little")
        header += head + content
    raise ValueError("it ends within its header: check what sends it")


# Sample formats that a stream can have, as each sample is coded by itself, and its bytes.
STREAMED = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}


def decode(data, raw="ulaw", channels=1):
    """Decode bytes, whole samples of a format in STREAMED or RAW: float32 `(channels, samples)` in [-1, 1]."""
    layout = (SAMPLE_RATE, channels, RAW.get(raw, raw), "LITTLE", "RAW")
    with sf.SoundFile(io.BytesIO(data), "r", *layout) as file:
        return file.read(file.frames, dtype="float32", always_2d=True).T  # of VOX the number has to be told


def encode(signal, raw="ulaw"):
    """The bytes of a signal `(samples,)` or `(channels, samples)`; what exceeds [-1, 1] is clipped, but in floats.
    See `decode`. Raises ValueError if samples are NaN, but in floats."""
    subtype, coded = RAW.get(raw, raw), io.BytesIO()
    signal = to_float(signal)
    if subtype not in FLOATS:
        signal = np.clip(signal, -1, 1)
        if np.isnan(signal).any():  # libsndfile's u-law and A-law would crash
            raise ValueError("samples are NaN: repair the recording first")
    sf.write(coded, signal.T, SAMPLE_RATE, subtype, "LITTLE", "RAW")
    return coded.getvalue()


def _made_blocking(stream):
    """Make a stream wait, as a pause is no end; returns whether it did not, which all who share it can bring about."""
    try:
        waits = os.get_blocking(stream.fileno())
        os.set_blocking(stream.fileno(), True)
    except (AttributeError, OSError):  # it is no file
        return False
    return not waits


def denoise_pipe(source, target, latency=0.5, model=RUNTIME_MODEL, mix=1.0, *, raw=None, rate=None):
    """Denoise a stream of bytes into another as it comes: WAV, also of unknown length, or samples without a header.

    Args:
        source, target: binary files with a buffer, as `open` gives them. The WAV that is written is of unknown length.
        latency, model, mix: those of `denoise_stream`.
        raw: "ulaw", "alaw" or "slin" for samples without a header, of one channel, in `source` and in `target`.
        rate: their rate in Hz, by default 8000.

    What exceeds [-1, 1] is clipped, but in floats. A warning tells if the stream ends within a sample, or before its
    stated end. A KeyboardInterrupt that a signal raises ends the stream, and is raised again when all that came is
    denoised; a second one ends it at once.
    Raises ValueError as `denoise_stream` does, or for a stream that is not of such a format.
    """
    if raw:
        rate = SAMPLE_RATE if rate is None else rate
        header, stated, left, channels, subtype = b"", 0, math.inf, 1, RAW.get(raw, raw)
    else:
        header, stated, left = _wav_header(source)
        # The header of the result is that of the source, with the lengths that tell of none.
        header = b"RIFF\xff\xff\xff\xff" + header[8:-4] + b"\xff\xff\xff\xff"
        try:
            with _HeldSignals():
                info = sf.info(io.BytesIO(header))
        except sf.LibsndfileError as error:
            raise ValueError(f"its sample format can't be read ({_reason(error)}): send PCM") from None
        rate, channels, subtype = info.samplerate, info.channels, info.subtype
    if subtype not in STREAMED:
        others = [name for name, kind in RAW.items() if kind in STREAMED] if raw in RAW else STREAMED
        raise ValueError(f"a stream of {raw or subtype} can't be denoised: send it as {', '.join(others)}")
    frame = channels * STREAMED[subtype]
    if stated > frame:
        raise ValueError(f"its samples are padded from {frame} to {stated} bytes: send {subtype} without that")

    held, interrupted = _HeldSignals(), None

    def receive():
        nonlocal interrupted
        try:
            with held.released():
                while not (data := source.read1(min(left, 1 << 16))) and _made_blocking(source):
                    pass
                return data
        except KeyboardInterrupt as error:  # what came before is still to be denoised
            interrupted = error
            return b""

    def chunks():
        nonlocal left
        rest = b""
        while data := receive():
            left -= len(data)
            data = rest + data
            whole = len(data) // frame * frame
            yield decode(data[:whole], subtype, channels)
            rest = data[whole:]
        if frame <= left < math.inf and not interrupted:
            missing = f"{left} bytes ({left / frame / rate:.1f} s)"
            warnings.warn(f"the stream ends {missing} before the end that its header states", stacklevel=2)
        if rest:
            warnings.warn(f"the stream ends within a sample: its last {len(rest)} bytes are left out", stacklevel=2)

    try:
        with held:
            for piece in denoise_stream(chunks(), rate, latency, model, mix):
                target.write(header + encode(piece, subtype))
                target.flush()
                header = b""
    finally:
        if interrupted:
            raise interrupted


# ---------------------------------------------------------------------------------------------------------------------
# Measures and evaluation: notebook 06
# ---------------------------------------------------------------------------------------------------------------------


def si_sdr(clean, estimate):
    """Scale-invariant signal-to-distortion ratio in dB of `(samples,)` arrays (Le Roux, 2019); NaN for silence.

    How much stronger the part of the estimate that is the clean signal, at any level, is than all the rest. A constant
    offset (DC) of either counts for nothing.
    """
    clean, estimate = (x - np.mean(x, dtype=np.float64) for x in (clean, estimate))
    if not (clean.any() and estimate.any()):
        return np.nan
    target = np.dot(estimate, clean) / np.dot(clean, clean) * clean
    with np.errstate(divide="ignore"):
        return 10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))


def measure(clean, estimate):
    """Measure an estimate against clean speech, both `(samples,)` at 8 kHz.

    Returns a dict: `pesq`, 1.02 to 4.55, the MOS-LQO of ITU-T P.862.1 (2003), narrow band, by the package pesq if it is
    installed, beyond 15 s the mean over pieces; `stoi` and `estoi`, intelligibility (Taal, 2011; Jensen, 2016), by
    pystoi, from about 0, nothing in common, to 1; `si_sdr` in dB. NaN is what can't be told: all of clean speech that
    is silent, all but SI-SDR where it is too short, SI-SDR of a silent estimate, and PESQ if the package is missing.
    Raises ValueError if the arrays are not of one length.
    """
    import pystoi

    if np.ndim(clean) != 1 or np.shape(clean) != np.shape(estimate):
        shapes = f"{np.shape(clean)} and {np.shape(estimate)}"
        raise ValueError(f"expected two arrays (samples,) of one length, got {shapes}")

    def intelligibility(extended):
        if not np.any(clean):
            return np.nan
        # pystoi warns and returns 1e-5 where it has too few frames. It adds random numbers: always the same, and those
        # of others stay as they are.
        with _WARNINGS, warnings.catch_warnings(action="error", category=RuntimeWarning):
            state = np.random.get_state()
            np.random.seed(0)
            try:
                return float(pystoi.stoi(clean, estimate, SAMPLE_RATE, extended=extended))
            except (RuntimeWarning, ValueError):
                return np.nan
            finally:
                np.random.set_state(state)

    return {
        "pesq": _pesq(clean, estimate),
        "stoi": intelligibility(extended=False),
        "estoi": intelligibility(extended=True),
        "si_sdr": float(si_sdr(clean, estimate)),
    }


PESQ_PIECE = 15 * SAMPLE_RATE  # the package's arrays hold 50 stretches of speech, and are written beyond that


def _pesq(clean, estimate):
    """PESQ, of a longer recording the mean over pieces of up to 15 s that hold speech; NaN where there is none."""
    if len(clean) > PESQ_PIECE:
        n_pieces = -(-len(clean) // PESQ_PIECE)
        pieces = zip(np.array_split(clean, n_pieces), np.array_split(estimate, n_pieces), strict=True)
        values = [value for value in itertools.starmap(_pesq, pieces) if np.isfinite(value)]
        return float(np.mean(values)) if values else np.nan
    try:
        import pesq
    except ImportError:  # it has no wheels, so that installing it takes a C compiler
        return np.nan
    if not np.any(clean):
        return np.nan
    if not np.any(estimate):  # the package refuses it
        return 1.0
    try:
        return float(pesq.pesq(SAMPLE_RATE, clean, estimate, "nb"))
    except (pesq.PesqError, ValueError, ZeroDivisionError):
        return np.nan


def dnsmos(signal):
    """What listeners would say of a signal `(samples,)` at 8 kHz, from 1 to 5, as DNSMOS P.835 guesses (Reddy, 2022).

    It takes no clean version: a network judges the speech (`sig`), the background (`bak`) and both (`ovrl`).
    Raises ValueError for an empty signal.
    """
    from speechmos import dnsmos as judge

    if len(signal) == 0:
        raise ValueError("there is no audio in it: check that the recording is not empty")
    scores = judge.run(np.clip(resample(signal, SAMPLE_RATE, 16000), -1, 1), 16000)
    return {name: float(scores[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")}


def margin_of_error(values):
    """Half the width of the 95 % confidence interval of the mean of a Series `(n,)`, by Student's t; NaN below two.

    Student (1908) made it for few values, where 1.96 standard errors promise too much: for five it takes 2.78.
    """
    from scipy import stats

    return stats.t.ppf(0.975, values.count() - 1) * values.sem()


def left_db(sound, voice, enhance=denoise):
    """How much of a sound is left in dB, when it comes in a call between speech of the same level.

    `sound` and `voice` are float32 `(samples,)` at 8 kHz; `enhance` takes and returns such a signal.
    """
    sound = sound * signal_level(voice) / signal_level(sound)
    enhanced = enhance(np.concatenate([voice, sound, voice]))[len(voice) : -len(voice)]
    return float(10 * np.log10(np.mean(np.square(enhanced)) / np.mean(np.square(sound))))


def spectral_subtraction(noisy):
    """A baseline of 1979, after Boll: the enhanced signal `(samples,)` of a noisy one.

    Each bin's magnitude loses 1.5 times its own quiet level, and keeps at least 10 %, which are Berouti's (1979); the
    phase stays noisy.
    """
    spectrogram = stft(noisy)
    magnitude = np.abs(spectrogram)
    noise = 1.5 * np.percentile(magnitude, 20, axis=-1, keepdims=True)
    gain = np.maximum(1 - noise / np.maximum(magnitude, 1e-9), 0.1)
    return istft(gain * spectrogram, len(noisy))


def held_out_blends(corpus=None, n=60, snr_db=(-5, 15), seed=0):
    """Yield `n` pairs for testing, as (name, clean, noisy): speakers and noise that no training has heard.

    `snr_db` are the lowest and the highest SNR, with equal steps between, rounded to whole dB; `seed` draws the files.
    Clean and noisy are float32 `(samples,)` at 8 kHz, up to 6 s long; the name holds the utterance, noise and SNR.
    Raises ValueError if the corpus has no speech or no noise for testing, and as `list_speech` and `list_noise` do.
    """
    corpus = find_corpus(corpus)
    tables = of_split("test", corpus, list_speech(corpus), list_noise(corpus))
    rng = np.random.default_rng(seed)
    for i, snr in enumerate(np.linspace(*snr_db, n).round()):
        utterance, clip = (table.iloc[rng.integers(len(table))] for table in tables)
        clean = load_audio(utterance.path, duration=6)
        _, noisy = blend(clean, random_crop(clip.path, len(clean), rng), snr)
        names = (name.replace(" ", "_") for name in (utterance.utterance, clip.category))
        yield " ".join([f"{i:03d}", *names, f"{snr:+.0f} dB"]), clean, noisy


def paired_files(clean_folder, noisy_folder):
    """Yield (name, clean, noisy) for each sound file of `noisy_folder` and its namesake in `clean_folder`.

    Clean and noisy are float32 `(samples,)` at 8 kHz; hidden files are left out. Raises FileNotFoundError or ValueError
    if there are no files, one has no namesake, or their lengths differ by more than a sample.
    """
    paths = sorted(filter(is_recording, Path(noisy_folder).glob("[!.]*")))
    if not paths:
        raise FileNotFoundError(_no_sound_files(noisy_folder))
    for path in paths:
        clean, noisy = load_audio(Path(clean_folder) / path.name), load_audio(path)
        if abs(len(clean) - len(noisy)) > 1:  # by one they differ where one was resampled by a program that rounds
            raise ValueError(f"{path} has {len(noisy)} samples at 8 kHz, its clean namesake {len(clean)}: align them")
        n = min(len(clean), len(noisy))
        yield path.name, clean[:n], noisy[:n]


def evaluate(pairs, systems=None):
    """Measure the noisy signal of each pair, and what each system makes of it.

    Args:
        pairs: (name, clean, noisy) tuples, as `held_out_blends` and `paired_files` yield them.
        systems: dict from names to functions that take and return a signal `(samples,)` at 8 kHz; by default
            {"enhanced": denoise}, the shipped U-Net.

    Returns: a DataFrame with a row per pair and signal: name, snr_db of the noisy signal, signal ("noisy" or the
    system's name), and the measures. Raises ValueError if a system returns another number of samples.
    """
    from tqdm import tqdm

    systems = {"noisy": np.asarray} | ({"enhanced": denoise} if systems is None else systems)
    rows = []
    for name, clean, noisy in tqdm(pairs, unit="pair", disable=None):
        clean, noisy = to_float(clean), to_float(noisy)
        with np.errstate(divide="ignore", invalid="ignore"):  # clean speech has infinite SNR, silence none
            snr_db = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
        for signal, enhance in systems.items():
            try:
                measures = measure(clean, enhance(noisy.copy()))
            except ValueError as error:
                raise ValueError(f"{signal}, {name}: {error}") from error
            rows.append({"name": name, "snr_db": round(float(snr_db), 2), "signal": signal, **measures})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------------------------
# Plots: notebook 02
# ---------------------------------------------------------------------------------------------------------------------

STYLE = {  # of every figure in the notebooks; `start_notebook` sets it
    # Seven colours that the colour-blind tell apart (Okabe and Ito, 2008), in an order from dark to bright.
    "axes.prop_cycle": "cycler('color', ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 12,  # points: readable on a projector, and where a page shows the figure at half its width
}
DB_RANGE = (-90, -10)  # of every magnitude spectrogram, so that equal colours are equal levels


def _axes(ax, figsize=(9, 2.5)):
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def plot_waveform(signal, title="", ax=None):
    """Plot a signal `(samples,)` at 8 kHz over time in seconds, on the scale from -1 to 1; returns the axes."""
    _check_one_channel(signal)
    ax = _axes(ax)
    ax.plot(np.arange(len(signal)) / SAMPLE_RATE, signal, linewidth=0.5)
    ax.set(xlabel="time (s)", ylabel="amplitude", ylim=(-1, 1), xlim=(0, len(signal) / SAMPLE_RATE))
    ax.set_title(title, parse_math=False)
    return ax


def _plot_bins(values, title, ax, label, **options):
    from librosa.display import specshow

    ax = _axes(ax, figsize=(9, 3.5))
    image = specshow(
        values, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH_FFT, x_axis="s", y_axis="hz", ax=ax, **options
    )
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    ax.set_title(title, parse_math=False)
    return ax


def plot_spectrogram(spectrogram, title="", ax=None):
    """Plot the magnitude of a complex spectrogram `(128, frames)` in dB, on DB_RANGE; returns the axes."""
    low, high = DB_RANGE
    return _plot_bins(magnitude_db(spectrogram), title, ax, "level (dB)", vmin=low, vmax=high, cmap="magma")


def plot_phase(spectrogram, title="", ax=None):
    """Plot the phase of a complex spectrogram `(128, frames)` in radians, in colours that wrap; returns the axes."""
    return _plot_bins(np.angle(spectrogram), title, ax, "phase (rad)", vmin=-np.pi, vmax=np.pi, cmap="twilight")


def plot_comparison(plot, items):
    """Plot several things of one kind below each other.

    Args:
        plot: `plot_waveform`, `plot_spectrogram` or `plot_phase`.
        items: dict from titles to what `plot` takes.

    Returns: array of axes, one per item; time axes are shared.
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(len(items), figsize=(9, 2.3 * len(items)), sharex=True, layout="constrained", squeeze=False)
    for ax, (title, item) in zip(axes[:, 0], items.items(), strict=True):
        plot(item, title, ax)
        ax.label_outer()
    return axes[:, 0]


def plot_history(history, title="", ax=None):
    """Plot the losses of a training, a table or dict with epoch, loss and, if known, val_loss; returns the axes."""
    ax = _axes(ax, figsize=(9, 3.5))
    epochs = np.asarray(history["epoch"]) + 1
    ax.plot(epochs, history["loss"], "o-", label="training")
    if "val_loss" in history:
        ax.plot(epochs, history["val_loss"], "s--", label="validation")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.set_title(title, parse_math=False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


MARKERS = ("s--", "o-", "^:", "d-.", "v--", "x-")  # a line and a marker for each system: colour alone is not enough
MEASURES = {"pesq": "PESQ (1 to 4.55)", "stoi": "STOI (0 to 1)", "estoi": "ESTOI (0 to 1)", "si_sdr": "SI-SDR (dB)"}


def plot_scores(table):
    """Plot a table by `evaluate`: each measure over the SNR in steps of 5 dB; returns an array of axes.

    Points are means, bars their 95 % confidence intervals. Measures that are NaN throughout are left out.
    """
    import matplotlib.pyplot as plt

    measures = [name for name in MEASURES if table[name].notna().any()]
    n_rows = -(-len(measures) // 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(9, 3 * n_rows), layout="constrained", squeeze=False)
    axes, unused = np.split(axes.ravel(), [len(measures)])
    for ax in unused:
        ax.remove()
    for ax, name in zip(axes, measures, strict=True):
        for (signal, rows), style in zip(table.groupby("signal", sort=False), itertools.cycle(MARKERS), strict=False):
            groups = rows.groupby((rows["snr_db"] / 5).round() * 5)[name]
            margin = groups.agg(margin_of_error)
            ax.errorbar(margin.index, groups.mean(), margin, fmt=style, capsize=3, label=signal)
        ax.set(xlabel="SNR of the input (dB)", ylabel=MEASURES[name])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return axes


def show(axes, caption, image=None):
    """Display a figure in a notebook with its caption, which is its alternative text too (JupyterLab drops that).

    Args:
        axes: the figure's axes, or an array of them.
        caption: what the figure shows, in words.
        image: a file name in images/ to save the figure under, for the README.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image, Markdown, display

    figure = np.ravel(axes)[0].figure
    picture = packed_png(figure)
    if image is not None:
        try:
            (ROOT / "images" / image).write_bytes(picture)
        except OSError as error:  # what a class shares is often read-only
            print(f"images/{image} stays as it was ({error.strerror}).")
    display(Image(picture, alt=caption))
    display(Markdown(f"*{caption}*"))
    plt.close(figure)


def packed_png(figure, dpi=100):
    """Draw a figure as the bytes of a PNG file with 256 colours, a third of the size of one with all."""
    import PIL.Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
    # Colours chosen by range rather than by frequency include the few bright dots of a spectrogram, and none is off by
    # more than 2 %.
    palette = PIL.Image.Quantize.MAXCOVERAGE
    PIL.Image.open(drawn).convert("RGB").quantize(256, palette).save(small, "png", optimize=True)
    return small.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# First cell and exercises: all notebooks
# ---------------------------------------------------------------------------------------------------------------------


def start_notebook():
    """Give all figures the style of the course; print OK, or what is wrong with the versions; show these, folded."""
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    plt.rcParams.update(STYLE)
    versions, problems = installed_versions()
    if problems:
        path = ROOT / "requirements.txt"
        print(*problems, f'Run %pip install -r "{path}" in a cell of its own, then restart the kernel.', sep="\n")
    if not (3, 11) <= sys.version_info < (3, 14):
        print(f"Python {platform.python_version()} is not tested: take one from 3.11 to 3.13.")
    elif not problems:
        print("OK: these are versions that the course is tested with.")
    listed = ", ".join([f"Python {platform.python_version()}", *versions])
    display(HTML(f"<details><summary>Versions</summary>{listed}</details>"))


def installed_versions(requirements=ROOT / "requirements.txt"):
    """Compare what is installed with a requirements file.

    Returns: (versions, problems), two lists of texts: each package with its version, and a few words on each package
    that is missing, too old or newer than the file's bounds.
    """
    from packaging.requirements import Requirement

    versions, problems = [], []
    lines = (line.partition("#")[0].strip() for line in Path(requirements).read_text().splitlines())
    for requirement in map(Requirement, filter(None, lines)):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        versions.append(f"{requirement.name} {version}")
        failed = {bound.operator for bound in requirement.specifier if not bound.contains(version, prereleases=True)}
        if failed:
            fault = "newer than what is tested" if failed <= {"<", "<="} else "too old"
            problems.append(f"{requirement.name} {version} is {fault} ({requirement.specifier})")
    return versions, problems


def check(exercise, answer):
    """Print in one line whether the answer to an exercise is right, or a hint.

    Args:
        exercise: the notebook and the number, such as "02.1".
        answer: what the exercise asks for, such as a number or a function; None as long as there is none.

    What is right stands in `notebooks/answers.py`.
    """
    answers = runpy.run_path(ROOT / "notebooks" / "answers.py")
    print(answers["verdict"](exercise, answer))


# ---------------------------------------------------------------------------------------------------------------------
# Command line: notebook 07
# ---------------------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"error: {message} (see python helpers.py --help)\n")


def _path(text):
    if not text:  # an unset shell variable; Path("") would be the current folder
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(text)


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of them: it must be at least 1")
    return int(text)


def _parser():
    parser = _Parser(prog="python helpers.py", description="Speech enhancement with a U-Net, for calls at 8 kHz.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shipped = {"type": _path, "default": RUNTIME_MODEL, "help": "a .keras or .onnx file (default: the shipped model)"}
    command = commands.add_parser("denoise", help="remove the noise from sound files, or from all files of a folder")
    command.add_argument("source", type=_path, nargs="+", help="sound file, folder of them, or - for standard input")
    command.add_argument("target", type=_path, help="file, or folder, to write to, or - for standard output")
    command.add_argument("--model", **shipped)
    shares = "share of the noise to remove, 0 to 1 (default: 1; to transcribe a recording, try 0.7 too)"
    command.add_argument("--mix", type=float, default=1.0, help=shares)
    command.add_argument("--raw", choices=RAW, help="sample format of files without a header, of one channel")
    command.add_argument("--rate", type=int, help="their rate in Hz (default: that of their ending, else 8000)")
    command.add_argument("--latency", type=float, default=0.5, help="how many s a stream lags behind (default: 0.5)")
    again = "replace what is there already (else results in a folder are skipped, other files kept)"
    command.add_argument("--overwrite", action="store_true", help=again)
    command.add_argument("--processes", type=_count, default=1, help="of a folder, how many files at once (default: 1)")
    command.add_argument("--scheduler", help="address of a Dask cluster to denoise a folder on, as tcp://host:8786")
    command = commands.add_parser("export", help="write a model for ONNX Runtime (.onnx) or LiteRT (.tflite)")
    command.add_argument("model", type=_path, help="a .keras file")
    command.add_argument("target", type=_path, help="file to write, .onnx or .tflite")
    command = commands.add_parser("train", help="train the U-Net on the corpus; a killed run goes on where it was")
    command.add_argument("--output", type=_path, default=MODEL, help="the model's file (default: data/unet.keras)")
    command.add_argument("--corpus", type=_path, help="folder of the corpus (default: $SPEECH_CORPUS, else in data/)")
    command.add_argument("--epochs", type=int, default=24, help="default: %(default)s")
    command.add_argument("--steps-per-epoch", type=int, default=200, help="batches in an epoch (default: %(default)s)")
    command.add_argument("--learning-rate", type=float, default=1e-3, help="highest value (default: %(default)s)")
    command.add_argument("--start", type=_path, help="a trained model to go on from")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command = commands.add_parser("evaluate", help="denoise noisy files, and measure both against clean ones")
    command.add_argument("--clean", type=_path, required=True, help="folder of clean files")
    command.add_argument("--noisy", type=_path, required=True, help="folder of noisy files with the same names")
    command.add_argument("--csv", type=_path, help="file to write the scores of each file to")
    command.add_argument("--model", **shipped)
    command = commands.add_parser("download", help="download Mini LibriSpeech and ESC-50, 1 GB, into data/corpus")
    command.add_argument("--folder", type=_path, default=ROOT / "data" / "corpus", help="default: data/corpus")
    return parser


def _run(command, options):
    """Run one command and return the exit status: 0, or 1 if files of a folder failed."""
    if command == "denoise":
        return _run_denoise(options.pop("source"), **options)
    functions = {"export": export, "train": train, "evaluate": _run_evaluate, "download": download_corpus}
    functions[command](**options)
    return 0


def _run_evaluate(clean, noisy, csv, model):
    """Print the mean scores of noisy and enhanced files, and write those of each file to the table `csv`, if any."""
    if csv and csv.is_dir():
        raise ValueError(f"{csv} is a folder: name a file in it")
    if csv and is_recording(csv, raw=True):
        raise ValueError(f"{csv} would be a recording by its name: name a table, such as scores.csv")
    table = evaluate(list(paired_files(clean, noisy)), {"enhanced": functools.partial(denoise, model=model)})
    finite = table.replace([np.inf, -np.inf], np.nan)
    scores = finite[list(MEASURES)]
    scores = scores.mask(scores.isna().groupby(table["name"]).transform("any"))  # of any of the signals
    print(finite.assign(**scores).groupby("signal", sort=False).mean(numeric_only=True).round(3).to_string())
    scores = scores.dropna(axis=1, how="all")  # PESQ's package may be missing
    names = table["name"][scores.isna().any(axis=1)].unique()
    if len(names):
        text = f"{len(names)} files have measures that are infinite or can't be told, such as {names[0]}: the means"
        warnings.warn(f"{text} leave those out", stacklevel=2)
    if csv:
        remove_abandoned(csv.parent.glob(PARTS))
        with written_whole(csv) as part:
            # Names tell who called whom: it is not for those who can't list the folders.
            mode = part.stat().st_mode & _mode_of_readers(clean, csv) & _mode_of_readers(noisy, csv)
            with contextlib.suppress(PermissionError):  # of drives that give all files the rights of the mount
                part.chmod(_of_one_group(mode, part, clean, noisy))
            table.to_csv(part, index=False, float_format="%.4f")


def _run_denoise(sources, target, latency, processes, scheduler, overwrite, **options):
    """Denoise a file, a stream, or what a folder and several sources hold; return the exit status."""
    first, *others = sources
    if Path("-") in (*sources, target):
        if others or first != target:
            raise ValueError("- stands for standard input and output: name it for both, and nothing else")
        if sys.stdin is None or sys.stdout is None:
            raise ValueError("standard input or output is closed: connect it to what sends or receives the stream")
        for stream in (sys.stdin, sys.stdout):
            _made_blocking(stream)
        output = sys.stdout.buffer
        is_raw = isinstance(output, io.RawIOBase)  # under python -u; it may write a part alone
        with open(output.fileno(), "wb", closefd=False) if is_raw else contextlib.nullcontext(output) as target:
            denoise_pipe(sys.stdin.buffer, target, latency, **options)
        return 0
    if not (others or first.is_dir() or target.is_dir()):
        remove_abandoned(target.parent.glob(PARTS))
        denoise_file(first, target, overwrite=overwrite, **options)
        return 0
    source = first if not others and first.is_dir() else sources
    if scheduler or processes > 1:
        sys.path.insert(0, str(ROOT))  # python -P and -I leave it out
        import helpers  # by this name, not as __main__, the workers find what they are sent

        try:
            with _cluster(processes, scheduler) as client:
                table = helpers.denoise_folder(source, target, overwrite=overwrite, client=client, **options)
        finally:
            remove_abandoned(parts_below(target))  # an interrupted run kills its workers
    else:
        table = denoise_folder(source, target, overwrite=overwrite, **options)
    for kind in ("warning", "error"):
        for text in dict.fromkeys(table[kind][table[kind] != ""]):
            with contextlib.suppress(OSError):  # the summary must not be lost with a log on a full disk
                print(f"{kind}: {text}", file=sys.stderr)
    print(", ".join(f"{(table['status'] == status).sum()} {status}" for status in ("done", "skipped", "failed")))
    left_out = table[table["status"] == "left out"]["path"]
    if len(left_out):
        kinds = left_out.map(lambda path: "hidden" if path.name.startswith(".") else path.suffix.lower() or "no ending")
        print("left out:", ", ".join(f"{n} {_escaped(kind)}" for kind, n in kinds.value_counts().items()))
    return int((table["status"] == "failed").any())


@contextlib.contextmanager
def _cluster(processes, scheduler):
    """A client of the Dask cluster at the address `scheduler`, or of new processes on this machine."""
    import dask
    import distributed

    with contextlib.ExitStack() as stack:
        if not scheduler:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            settings = {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker", "nanny")}
            # No file waits at a worker: those that do are blamed as well when it dies.
            settings["distributed.scheduler.worker-saturation"] = 1.0
            # A process that is killed while it starts is not started again: without any it would wait for ever.
            settings["distributed.scheduler.no-workers-timeout"] = "5 minutes"
            stack.enter_context(dask.config.set({"temporary-directory": folder} | settings))
            if not os.environ.get("PYTHONSAFEPATH"):
                os.environ["PYTHONSAFEPATH"] = "1"  # else they would run a signal.py that lies in the current folder
                stack.callback(os.environ.pop, "PYTHONSAFEPATH")
            with _signals_wait():
                try:
                    cluster = distributed.LocalCluster(
                        n_workers=processes,
                        threads_per_worker=1,
                        silence_logs=logging.CRITICAL,  # it complains of workers that are slow to stop
                        security=True,  # else any user of this machine could have the workers run code as this one
                        scheduler_kwargs={"dashboard": False},
                        dashboard_address="127.0.0.1:0",  # of what is left of it, else open to other machines
                    )
                except RuntimeError as error:
                    while first := error.__cause__ or error.__context__:
                        error = first
                    raise OSError(f"the processes can't be started ({error}): do without --processes") from None
                scheduler = stack.enter_context(cluster)
        try:
            client = distributed.Client(scheduler)
        except TypeError:
            text = "wants certificates: name them in Dask's configuration, under distributed.comm.tls"
            raise ValueError(f"{scheduler} {text}") from None
        if not client.scheduler_info()["workers"]:
            warnings.warn(f"{scheduler} has no workers: it waits for some", stacklevel=2)
        yield stack.enter_context(client)


@contextlib.contextmanager
def _signals_wait():
    """Let STOPS wait; processes that are started here never get them, so that this one ends them."""
    if not hasattr(signals, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    signals.pthread_sigmask(signals.SIG_BLOCK, STOPS)
    resource_tracker.ensure_running()  # which lets them through; so it would if it were started later
    signals.pthread_sigmask(signals.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signals.pthread_sigmask(signals.SIG_UNBLOCK, STOPS)


def main(arguments=None):
    """Run the command line; returns the exit status.

    0, 1 if files of a folder failed, 2 for an error of use, and 128 + its number for a signal of STOPS, as Ctrl-C is.
    """
    stopped_by, ignored_until = [], -math.inf

    def stop(number, _):
        nonlocal ignored_until
        if time.monotonic() > ignored_until:  # a second one must not disturb that what is begun is removed
            ignored_until = time.monotonic() + 30  # s; a library may have swallowed the first one
            stopped_by.append(number)
            raise KeyboardInterrupt

    for number in STOPS:
        signals.signal(number, stop)
    options = vars(_parser().parse_args(arguments))
    streams = Path("-") in options.get("source", ())
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_escaped(str(message))}\n"
    warnings.simplefilter("default", UserWarning)  # whatever PYTHONWARNINGS says: they tell what is lost
    if None in (sys.stdin, sys.stdout, sys.stderr):  # closed: no file that is opened later may get their numbers
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)  # nor one that a worker opens
        os.close(number)
        sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not all consoles have all letters of a name
    try:
        status = _run(options.pop("command"), options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads has gone, which is no news to him
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 128 + 13  # SIGPIPE, by which other programs end then
    except BaseException as error:
        if stopped_by:  # of which libraries may make another error
            promise = "" if streams else ": nothing is half written, start it again to go on"
            with contextlib.suppress(OSError):  # the terminal may be closed
                print(f"error: interrupted{promise}", file=sys.stderr)
            return 128 + stopped_by[0]
        if not isinstance(error, OSError | ValueError | MemoryError):
            raise
        with contextlib.suppress(OSError):  # it may go to a full disk
            print("error:", _sentence(error), file=sys.stderr)
        return 2


if __name__ == "__main__":
    status = main()
    for number in STOPS:
        signals.signal(number, signals.SIG_IGN)  # all is done: who waits is to see the status
    sys.exit(status)
