"""What the exercises of the notebooks expect. Students: reading this spoils them.

A number is kept as the hash of its rounded value, so that neither this file nor a wrong try gives it away. A function
is tried on inputs that no notebook shows; the first test that it fails gives a hint.
"""

import hashlib
from pathlib import Path

import librosa
import numpy as np

import helpers

NUMBERS = {  # exercise: decimals to round to, hash of the exercise and the rounded number, hint
    "01.1": (
        0,
        "80af5a0e5a539861",
        "mark 4000 Hz on a line, go on to 9500 Hz, and fold the line wherever it passes a multiple of 4000.",
    ),
    "02.1": (
        1,
        "5788174c3c176785",
        "the first window is centred on the first sample, and the last one on a sample that exists.",
    ),
    "03.1": (
        1,
        "762cc7c996a71505",
        "which share of the time does the power of the voice come from, and is the noise there in the pauses?",
    ),
    "04.1": (
        0,
        "97803bcb13dda48f",
        "draw the two arrows: how long is the one from the start of the first to the tip of the second?",
    ),
    "05.1": (
        0,
        "e83b675ba488a0c1",
        "each of the 32 outputs has a kernel of its own, and each kernel sees all three inputs.",
    ),
    "06.1": (0, "0ca6745a6c5ee775", "the width falls with the root of the number."),
    "07.1": (
        2,
        "2e8c92b76c41eb59",
        "12 dB are a ratio of amplitudes, and `mix` is the share that goes, not the one that stays.",
    ),
    "08.1": (
        0,
        "98990820322cdb13",
        "count the columns first: one every 63 samples, and the first at sample 0; then round up to 16s.",
    ),
    "09.1": (
        0,
        "78e9ac7aa94f52d3",
        "when does the last window end that holds a sample, and how much later do three more of them end?",
    ),
    "10.1": (0, "5f356d9a5331504d", "add up the chances of that many heads and of more, in 20 throws."),
}


def digest(exercise, number, decimals):
    """The hash of an exercise and a number, which is rounded to so many decimals."""
    text = f"{exercise} {np.round(float(number), decimals) + 0.0:.{decimals}f}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Each function below takes a student's function, and yields what must hold, with the hint to give where it does not.


def halve_rate(halve):
    rng = np.random.default_rng(1)
    tones = {hz: np.sin(2 * np.pi * hz * np.arange(16001) / 16000) for hz in (1100, 3000, 3600, 4300, 5300)}
    inner = slice(400, -400)  # a filter may ring at the edges
    results = {n: np.asarray(halve(rng.standard_normal(n))) for n in (1000, 1001)}
    yield (
        all(y.shape == ((n + 1) // 2,) for n, y in results.items()),
        "every second sample is (n + 1) // 2 of n samples.",
    )
    for hz, most in ((5300, 0.01), (4300, 0.2)):  # no filter is steep without end: of a tone near 4000 Hz, some is left
        left = helpers.signal_level(halve(tones[hz])[inner])
        yield left < most, f"a tone of {hz} Hz still comes through, as another tone: when is it too late to remove it?"
    for hz, most in ((1100, 0.05), (3000, 0.1), (3600, 0.1)):
        off = np.abs(halve(tones[hz])[inner] - tones[hz][::2][inner]).max()
        yield off < most, f"a tone of {hz} Hz should come out as the same tone, as loud and in its place."
    yield not np.any(halve(np.zeros(500))), "silence should stay silent."


def inverse_stft(inverse):
    rng = np.random.default_rng(2)
    for n in (8064, 8000, 100):
        signal = rng.standard_normal(n)
        result = np.asarray(inverse(helpers.stft(signal), n))
        yield result.shape == (n,), "the result should have as many samples as `length` says."
        yield np.isrealobj(result), "a signal has real values: which inverse of numpy belongs to `rfft`?"
        early = librosa.istft(helpers.stft(signal), hop_length=helpers.HOP_LENGTH_FFT, length=n)
        yield not np.allclose(result, early, atol=1e-3), "it is early by half a sample: how many samples has a piece?"
        yield (
            np.allclose(result, signal, atol=1e-3),
            "the signal does not come back: mind the padding in front, and the sum of the squared windows.",
        )
    strange = rng.standard_normal((128, 128)) + 1j * rng.standard_normal((128, 128))
    off = np.abs(inverse(strange, 8064) - helpers.istft(strange, 8064)).max()
    yield off < 1e-3, "that undoes `stft`, but a spectrogram that was changed needs the window a second time."


def blend_active(mix):
    rng = np.random.default_rng(3)
    speech, noise = 0.1 * rng.standard_normal(16000), 0.3 * rng.standard_normal(16000)
    talking = np.ones(16000, bool)
    before = speech.copy()
    steady = np.asarray(mix(speech, noise, -3, talking))
    yield steady.shape == speech.shape, "the result should have the shape of the speech."
    yield np.array_equal(speech, before), "the caller's speech should stay as it is."
    yield (
        np.allclose(steady, helpers.blend(speech, noise, -3)[1], atol=1e-4),
        "without a pause it should equal `blend`.",
    )
    talking[4000:] = False
    paused = speech * talking
    for in_pause, hint in (
        (1, "with a long pause in the speech, the ratio within the words is not the one ordered."),
        (3, "noise that is louder in the pause: its power is averaged over the whole, not only over the words."),
    ):
        added = mix(paused, noise * np.where(talking, 1, in_pause), 5, talking) - paused
        ratio_db = 20 * np.log10(helpers.signal_level(paused[:4000]) / helpers.signal_level(added))
        yield abs(ratio_db - 5) < 0.2, hint
    quiet = np.allclose(mix(speech, noise, 5, talking), mix(speech, 9 * noise, 5, talking), atol=1e-4)
    yield quiet, "noise recorded nine times louder should come out the same."


def wiener(gain):
    rng = np.random.default_rng(4)
    speech, noise = rng.exponential(size=(2, 128, 50))
    one = np.ones((3, 3))
    result = np.asarray(gain(speech, noise))
    yield result.shape == speech.shape, "powers come as arrays: the result should have their shape."
    with np.errstate(all="ignore"):
        nothing = np.asarray(gain(np.zeros((3, 3)), np.zeros((3, 3))), dtype=float)
    yield np.allclose(nothing, 0), "where there is neither speech nor noise, 0 / 0 is no gain: give 0."
    yield result.min() >= 0 and result.max() <= 1, "a gain between 0 and 1 is expected."
    yield (
        np.allclose(gain(one, 0 * one), 1) and np.allclose(gain(0 * one, one), 0),
        "without noise the bin should stay, and without speech it should go.",
    )
    yield (
        not np.allclose(result, np.sqrt(speech / (speech + noise))),
        "right for the power, but it multiplies the amplitude.",
    )

    def error(mask):  # the mean square error of mask * (speech + noise) for speech and noise that are independent
        return np.mean((1 - mask) ** 2 * speech + mask**2 * noise)

    best = min(error(np.clip(result + step, 0, 1)) for step in (-0.01, 0, 0.01)) >= error(result) - 1e-9
    yield (
        best and np.allclose(result, speech / (speech + noise)),
        "another gain leaves less: write the mean of (speech - gain * noisy) ** 2, and set its derivative to zero.",
    )


def compressed_error(error):
    rng = np.random.default_rng(5)
    true, other = rng.standard_normal((2, 4, 128, 16)) + 1j * rng.standard_normal((2, 4, 128, 16))
    result = np.asarray(error(true, other))
    yield result.shape == (4,), "one number for each item of the batch: average over the last two axes only."
    yield (
        np.allclose(error(true, 1j * true), 0),
        "this part of the loss compares magnitudes: a turned arrow costs nothing.",
    )
    yield (
        np.allclose(error(16 * true, 16 * other), 16**0.6 * result),
        "16 times louder should cost 16 ** 0.6 times as much.",
    )
    expected = np.mean((np.abs(true) ** 0.3 - np.abs(other) ** 0.3) ** 2, axis=(-2, -1))
    yield np.allclose(result, expected), "compress both magnitudes first, then subtract, then square."


def segmental_snr(measure):
    rng = np.random.default_rng(6)
    clean, noise = rng.standard_normal((2, 2560))
    clean *= np.repeat([1, 0.1], 1280)
    yield np.ndim(measure(clean, clean + noise)) == 0, "one number is expected."
    yield abs(measure(clean, clean) - 35) < 1e-6, "a perfect piece counts 35 dB, not infinity."
    yield abs(measure(clean, clean + 100 * noise) + 10) < 1e-6, "a piece that is drowned counts -10 dB, and no less."
    yield abs(measure(clean, clean / 2) - 20 * np.log10(2)) < 0.01, "half the level: half of each sample is error."
    whole = 10 * np.log10(np.sum(clean**2) / np.sum((0.1 * noise) ** 2))
    result = measure(clean, clean + 0.1 * noise)
    yield abs(result - whole) > 0.5, "that is the ratio of the whole: average the decibels of the pieces."
    pieces = [
        np.sum(c**2) / np.sum((0.1 * v) ** 2) for c, v in zip(*(np.split(x, 10) for x in (clean, noise)), strict=True)
    ]
    yield abs(result - np.mean(10 * np.log10(pieces))) < 0.01, "pieces have 256 samples, and follow each other."
    uneven = clean + np.repeat([0, 1000, 0.1], [256, 256, 2048]) * noise
    yield (
        abs(measure(clean, uneven) - np.mean([35, -10, *10 * np.log10(pieces[2:])])) < 0.01,
        "clip the decibels of each piece, and average then: one that is perfect must not outweigh the others.",
    )
    tail = np.repeat([0, 1], [768, 232])  # three pieces without speech, and a remainder with speech
    longer = np.append(clean, tail), np.append(clean + 0.1 * noise, np.ones(1000))
    yield (
        abs(measure(*longer) - result) < 0.01,
        "pieces without speech, and a remainder below 256 samples, do not count.",
    )


def limiter(limit):
    rng = np.random.default_rng(7)
    quiet = 0.5 * np.sin(np.arange(16000) / 9)
    yield np.allclose(limit(quiet.copy()), quiet), "a signal that never exceeds 1 should come out as it is."
    loud = quiet * (1 + 5 * np.exp(-(((np.arange(16000) - 9000) / 300) ** 2))) + 0.01 * rng.standard_normal(16000)
    loud[[40, 9100]] = 3, -4
    result = np.asarray(limit(loud.copy()))
    yield result.shape == loud.shape, "the result should have as many samples as the signal."
    yield np.abs(result).max() <= 1 + 1e-6, "a sample still lies beyond 1."
    yield np.allclose(result[4000:7000], loud[4000:7000]), "more than 0.1 s from any peak, nothing should change."
    steady = np.abs(loud) > 0.05
    gain = np.interp(np.arange(16000), np.flatnonzero(steady), result[steady] / loud[steady])
    yield (
        np.abs(np.diff(gain)).max() < 0.1,
        "the gain jumps, which distorts as clipping does: begin to turn down before the peak.",
    )


def finish_time(finish):
    yield np.isclose(finish([3, 1, 2], 1), 6), "one worker does all files, one after the other."
    yield np.isclose(finish([3, 1, 2], 5), 3), "with a worker for each file, the longest decides."
    yield np.isclose(finish([2, 2, 5], 2), 7), "the files are taken in the order of the list."
    yield np.isclose(finish([5, 1, 1, 1, 1], 2), 5), "who is done first takes the next file: nobody waits for a turn."
    seconds = list(np.random.default_rng(8).exponential(size=200))
    yield (
        np.isclose(finish(list(seconds), 7), _finish_time(seconds, 7)),
        "with many files and 7 workers the time is off.",
    )
    before = list(seconds)
    finish(seconds, 3)
    yield seconds == before, "the caller's list should stay as it is."


def _finish_time(seconds, n_workers):
    free = np.zeros(n_workers)
    for duration in seconds:
        free[free.argmin()] += duration
    return free.max()


def cleaned_call(paths):
    """The capstone: what can be judged without ears about the files of a call, noisy and cleaned."""
    yield isinstance(paths, tuple | list) and len(paths) == 2, "two paths are expected: (original, cleaned)."
    source, target = map(Path, paths)
    yield source.is_file() and target.is_file(), "two files that exist are expected: the call, and the cleaned call."
    yield source.resolve() != target.resolve(), "source and target are the same file: never overwrite a recording."
    (noisy, rate), (cleaned, new_rate) = helpers.read_audio(source), helpers.read_audio(target)
    yield noisy.shape[1] >= 10 * rate, "10 s at least: shorter calls tell little."
    same = (noisy.shape, rate) == (cleaned.shape, new_rate)
    yield same, "rate, channels and samples should be the same in both files."
    levels_db = np.stack([10 * np.log10(np.mean(_pieces(x) ** 2, axis=1) + 1e-10) for x in (noisy, cleaned)])
    before_db, after_db = levels_db[:, levels_db[0] > -99]  # where the call is digital silence, nothing can fall
    yield before_db.size > 0, "the call is silent: was the microphone on?"
    fall_db = before_db - after_db
    quiet, loud = before_db < np.percentile(before_db, 20), before_db > np.median(before_db)
    yield np.mean(fall_db[quiet]) > 3, "in the quietest fifth the level hardly falls: is there noise, or is `mix` low?"
    yield (  # of loud noise, much falls too, but with a voice in it there are pieces that stay
        np.mean(fall_db[quiet]) - np.percentile(fall_db[loud], 10) > 1,
        "the loud pieces fell as far as the quiet ones: that turns the volume down, noise and voice alike.",
    )
    yield np.median(fall_db[loud]) < 10, "the louder half has all but gone: the voice should be there."
    yield np.abs(cleaned).max() <= 1 and np.mean(np.abs(cleaned) >= 0.999) < 1e-3, "the cleaned call clips."


def _pieces(signal):
    """Cut `(channels, samples)` into pieces `(n, 800)`, channel after channel; the remainder is left out."""
    return signal[:, : signal.shape[1] // 800 * 800].reshape(-1, 800)


def regular_pieces(regular):
    def sent(*sizes):
        start = 0
        for size in sizes:
            yield np.arange(start, start + size, dtype=np.float32)
            start += size

    pieces = list(regular(sent(5, 300, 0, 160, 1, 534), 160))
    yield [len(piece) for piece in pieces] == [160] * 6 + [40], "160 samples in each of 1000, and 40 at the end."
    yield np.array_equal(np.concatenate(pieces), np.arange(1000)), "each sample should come out once, in order."
    lengths = [len(piece) for piece in regular(sent(100, 220), 160)]
    yield lengths == [160, 160], "where nothing is left at the end, nothing should come: no piece of 0 samples."
    taken = []

    def counted():
        for i in range(10):
            taken.append(i)
            yield np.full(100, i, np.float32)

    for size, n_chunks in ((160, 2), (100, 1)):
        taken.clear()
        next(iter(regular(counted(), size)))
        yield len(taken) == n_chunks, "it waits: hand a piece on as soon as its last sample has come."
    yield list(regular(sent(), 160)) == [], "of no chunks, no pieces can be made."


def word_errors(count):
    for text, n, hint in (
        ("the call was about fifteen pounds", 0, "equal texts have no errors."),
        ("the call was about fifty pounds", 1, "one word for another is one error, not two."),
        ("the call was fifteen pounds", 1, "a missing word is one error, and the words behind it are right."),
        ("well the call was about fifteen pounds", 1, "a word too many is one error, and those behind it are right."),
        ("the call about was fifteen pounds", 2, "two words that changed places are two errors."),
        ("", 6, "of an empty text all words are missing."),
        ("fifteen pounds the call was about", 4, "take the cheapest of all ways, not the first that comes."),
    ):
        yield count("the call was about fifteen pounds", text) == n, hint
    yield count("", "well well") == 2, "beside an empty reference every word is one too many."
    rng = np.random.default_rng(10)
    for _ in range(20):
        one, two = (" ".join(rng.choice(list("abc"), size=rng.integers(1, 9))) for _ in range(2))
        yield count(one, two) == count(two, one), "from the one to the other should cost as much as the way back."


TESTS = {  # exercise: what its answer must pass
    "01.2": halve_rate,
    "02.2": inverse_stft,
    "03.2": blend_active,
    "04.2": wiener,
    "05.2": compressed_error,
    "06.2": segmental_snr,
    "07.2": limiter,
    "08.2": finish_time,
    "08.4": cleaned_call,
    "09.2": regular_pieces,
    "10.2": word_errors,
}


def verdict(exercise, answer):
    """One line on the answer to an exercise: that it is right, that there is none yet, or a hint."""
    if answer is None:
        return "No answer yet: put yours in place of None in the cell above, run that cell, then this one."
    if exercise in NUMBERS:
        decimals, expected, hint = NUMBERS[exercise]
        try:
            right = digest(exercise, answer, decimals) == expected
        except (TypeError, ValueError):
            return f"Not yet: a number is expected, not {type(answer).__name__}."
        return "Right." if right else f"Not yet: {hint}"
    tests = TESTS[exercise]
    try:
        for holds, hint in tests(answer):
            if not holds:
                return f"Not yet: {hint}"
    except Exception as error:  # of a student's code, anything may come
        return f"Not yet: it stopped with {type(error).__name__}: {' '.join(str(error).split())}"
    return "Right."
