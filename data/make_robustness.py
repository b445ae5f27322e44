"""Measures what the shipped model does to speech that is easily taken for noise: writes data/results/robustness.csv.

Run it in the folder above as `python -m data.make_robustness BENCHMARK`, with a benchmark as in `make_results.py`; the
shouted voices are those of RAVDESS in the corpus that SPEECH_CORPUS names, and `real/` in BENCHMARK, if it is there,
holds noisy recordings that nobody blended. Each figure is a mean over the recordings, with half the width of its 95 %
interval (Student's), the least and the most; levels are those above 100 Hz. In a call of two parties, both in the
telephone band, each talks for 1.5 s in turn; "lost" are those of the second one's parts of 20 ms, up to 20 dB below the
loudest, that lose more than 10 dB. PESQ needs the package pesq.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import butter, firwin, sosfiltfilt

from data.make_results import above_100_hz
from helpers import (
    ROOT,
    SAMPLE_RATE,
    blend,
    denoise,
    dnsmos,
    find_corpus,
    load_audio,
    margin_of_error,
    measure,
    paired_files,
    whisper,
)

BAND = butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos")
N_SAMPLES = 12 * SAMPLE_RATE  # of a call


def in_band(signal):
    """A signal, repeated to 12 s, in the telephone band, of power 1."""
    signal = sosfiltfilt(BAND, np.resize(signal, N_SAMPLES))
    return signal / np.sqrt(np.mean(signal**2))


def lost_parts(pairs, i, softer_db, snr_db=None):
    """Percentage of the second party's parts that are lost, of a party `softer_db` below the first."""
    (_, first, noisy), (_, second, _) = pairs[i], pairs[(i + len(pairs) // 2) % len(pairs)]
    first, noise, second = in_band(first), in_band(noisy - first), in_band(second)
    turn = np.arange(N_SAMPLES) // (3 * SAMPLE_RATE // 2) % 2
    second = second * turn * 10 ** (-softer_db / 20)
    noise = 0 * noise if snr_db is None else noise * 10 ** (-snr_db / 20)
    enhanced = denoise(0.05 * (first * (1 - turn) + second + noise)) / 0.05
    before, after = (np.mean(np.reshape(x, (-1, SAMPLE_RATE // 50)) ** 2, axis=1) for x in (second, enhanced))
    spoken = before > before.max() / 100
    return 100 * np.mean(after[spoken] < before[spoken] / 10)


def least_gain_db(pairs, i):
    """The gain in dB of that of two simultaneous talkers that loses more."""
    talkers = np.stack([in_band(pairs[j][1]) for j in (i, (i + len(pairs) // 2) % len(pairs))], axis=1)
    gains = np.linalg.lstsq(talkers, denoise(0.05 * talkers.sum(axis=1)) / 0.05, rcond=None)[0]
    return 20 * np.log10(np.abs(gains).min())


def gained_db(before, after):
    """By how much the level of `after` is higher than that of `before`, above 100 Hz: rumble is noise."""
    return 10 * np.log10(np.mean(above_100_hz(after) ** 2) / np.mean(above_100_hz(before) ** 2))


def change_db(signal):
    """By how much the network changes the level of a recording."""
    return gained_db(signal, denoise(signal))


def change_after_db(silence, signal):
    """By how much the level of the middle of a recording changes that begins at once after silence."""
    answer = signal[6000:26000]
    enhanced = denoise(np.concatenate([silence, answer]))[len(silence) :]
    return gained_db(answer, enhanced)


def cut_at_3_khz(signal):
    """A signal whose band ends sharply, as resamplers cut it; no training held such."""
    return np.convolve(signal, firwin(401, 3000, fs=SAMPLE_RATE), mode="same").astype(np.float32)


def random_room(rng):
    """An impulse response: the direct sound, and a tail of RT60 0.3 to 0.8 s, 6 dB below it to 10 dB above."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rng.uniform(0.3, 0.8)) * (time > 0.0025)
    return tail * np.sqrt(10 ** (rng.uniform(-6, 10) / 10) / np.sum(tail**2)) + (time == 0)


def babble_gains(pairs, i):
    """The gains in PESQ and in ESTOI where six others talk behind a speaker, 5 dB softer in all."""
    clean = pairs[i][1]
    others = (np.resize(pairs[(i + 13 * k) % len(pairs)][1], len(clean)) for k in range(1, 7))
    noisy = blend(clean, np.sum([other / np.sqrt(np.mean(other**2)) for other in others], axis=0), 5)[1]
    before, after = measure(clean, noisy), measure(clean, denoise(noisy))
    return after["pesq"] - before["pesq"], after["estoi"] - before["estoi"]


def dnsmos_gains(signal):
    """The gains in DNSMOS, of the whole and of the speech alone."""
    before, after = dnsmos(signal), dnsmos(denoise(signal))
    return after["ovrl"] - before["ovrl"], after["sig"] - before["sig"]


def figures(pairs, shouted, real):
    """Yield (what, unit, values) for each row of the table."""
    numbers, rng = range(len(pairs)), np.random.default_rng(0)
    for snr_db, softer in ((None, (10, 20, 30)), (20, (10, 20)), (10, (10,))):
        for softer_db in softer:
            noise = "no noise" if snr_db is None else f"noise {snr_db} dB below the first"
            values = [lost_parts(pairs, i, softer_db, snr_db) for i in numbers]
            yield f"second party {softer_db} dB softer, {noise}", "% lost", values
    yield "two talkers at once, the one who loses more", "dB", [least_gain_db(pairs, i) for i in numbers]
    clean = [x for _, x, _ in pairs]
    yield "speech in rooms", "dB", [change_db(np.convolve(x, random_room(rng))[: len(x)]) for x in clean]
    yield "whisper (vocoder)", "dB", [change_db(whisper(x, rng)) for x in clean]
    yield "shouting", "dB", [change_db(load_audio(path)) for path in shouted]
    silence = np.zeros(30 * SAMPLE_RATE, np.float32)
    yield "2.5 s of speech after 30 s of silence", "dB", [change_after_db(silence, x) for x in clean]
    yield "speech whose band ends at 3 kHz", "dB", [change_db(cut_at_3_khz(x)) for x in clean]
    cut = [[cut_at_3_khz(x) for x in pair] for _, *pair in pairs]
    gained = [measure(x, denoise(noisy))["pesq"] - measure(x, noisy)["pesq"] for x, noisy in cut]
    yield "noisy speech whose band ends at 3 kHz", "PESQ gained", gained
    moved = [(x, noisy, noisy + np.sqrt(np.mean(noisy**2))) for _, x, noisy in pairs]
    gained = [measure(x, denoise(with_dc))["pesq"] - measure(x, noisy)["pesq"] for x, noisy, with_dc in moved]
    yield "noisy speech with an offset (DC) as loud as both", "PESQ gained", gained
    yield "noise alone", "dB", [change_db(noisy - x) for _, x, noisy in pairs]
    babble = [babble_gains(pairs, i) for i in numbers]
    for k, measured in enumerate(("PESQ", "ESTOI")):
        yield "six talkers behind the first, 5 dB softer in all", f"{measured} gained", [gains[k] for gains in babble]
    unblended = [dnsmos_gains(signal) for signal in real]
    for k, judged in enumerate(("the whole", "the speech")):
        yield f"noisy recordings, {judged} of them", "DNSMOS gained", [gains[k] for gains in unblended]


def summary(values):
    """The mean of values, half the width of its 95 % interval, the least and the most of them."""
    values = pd.Series(values)
    return values.mean(), margin_of_error(values), values.min(), values.max()


def main(benchmark):
    pairs = list(paired_files(benchmark / "clean", benchmark / "noisy"))
    shouted = sorted((find_corpus() / "speech" / "ravdess").glob("*/03-01-05-02-*"))[:20]  # angry, strong
    real = [load_audio(path, duration=60) for path in sorted((benchmark / "real").glob("*/*.flac"))]
    found = figures(pairs, shouted, real)
    rows = [(what, unit, len(values), *summary(values)) for what, unit, values in found if values]
    table = pd.DataFrame(rows, columns=["what", "unit", "recordings", "mean", "half_width", "least", "most"])
    table.to_csv(ROOT / "data" / "results" / "robustness.csv", index=False, float_format="%.2f")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
