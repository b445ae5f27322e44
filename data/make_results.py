"""Measures the shipped model on a benchmark of noisy and clean files: writes data/results/ and images/worst.png.

Run it in the folder above as `OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 python -m data.make_results BENCHMARK
[BASELINE BRIEF]`: on one thread, as the computing cost of the other systems was measured. BENCHMARK holds `clean/` and
`noisy/`, with files of the same names, `manifest.csv` with the columns file, category and snr_db, and `peers.csv`, what
other systems reach on these files. BASELINE is a model by `make_baseline.py`, BRIEF one by `train` from random weights
that saw the same blends; without them their rows stay as they are. The sounds that are no speech come from the corpus
of recordings that the environment variable SPEECH_CORPUS names. PESQ needs the package pesq.
"""

import functools
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.signal import butter, sosfiltfilt

from data.make_baseline import denoise_original
from helpers import (
    MEASURES,
    MODEL,
    ROOT,
    SAMPLE_RATE,
    STYLE,
    denoise,
    denoise_stream,
    evaluate,
    left_db,
    list_noise,
    list_speech,
    load_audio,
    load_model,
    packed_png,
    paired_files,
    plot_spectrogram,
    spectral_subtraction,
    stft,
    telephone,
)


def above_100_hz(signal):
    """Remove what lies below 100 Hz from a signal `(samples,)`: rumble, which SI-SDR takes for speech."""
    return sosfiltfilt(butter(4, 100, "highpass", fs=SAMPLE_RATE, output="sos"), signal).astype(np.float32)


CONDITIONS = {  # what is done to a pair before it is measured: functions of (clean, noisy)
    "as it is": lambda clean, noisy: (clean, noisy),
    "telephone": lambda clean, noisy: (telephone(clean), telephone(noisy)),
    "GSM 6.10": lambda clean, noisy: (telephone(clean, "GSM610"), telephone(noisy, "GSM610")),
    "Opus": lambda clean, noisy: (telephone(clean, "OPUS"), telephone(noisy, "OPUS")),
    "AMR 12.2": lambda clean, noisy: (telephone(clean, "AMR"), telephone(noisy, "AMR")),
    "above 100 Hz": lambda clean, noisy: (above_100_hz(clean), above_100_hz(noisy)),
    "20 dB quieter": lambda clean, noisy: (clean, noisy / np.float32(10)),
    "10 dB louder": lambda clean, noisy: (clean, noisy * np.float32(10**0.5)),
    "clean": lambda clean, noisy: (clean, clean),
}
LATENCIES = (0.1, 0.25, 0.5)  # s
HEARS = {  # how much of a file a system hears before it begins; all others hear a window, and 20 ms ahead at most
    "U-Net (this project)": "all",
    "U-Net, trained on as little": "all",
    "original recipe, repaired": "1 s",
    "spectral subtraction": "all",
    "noisereduce": "all",
    "noisy input": "nothing",
}


def score(pairs, systems):
    """Scores by `evaluate` of all pairs under each condition, with a column condition; of all `systems` as they are."""
    tables = []
    for condition, change in CONDITIONS.items():
        measured = systems if condition == "as it is" else {"U-Net": denoise}
        changed = [(name, *change(clean, noisy)) for name, clean, noisy in pairs]
        tables.append(evaluate(changed, measured).assign(condition=condition))
    return pd.concat(tables, ignore_index=True)


def computing_cost(pairs, enhance):
    """Seconds of computing per second of audio; the files are joined, since short ones measure the start."""
    signal = np.concatenate([noisy for _, _, noisy in pairs])[: 120 * SAMPLE_RATE]
    enhance(signal[:SAMPLE_RATE])
    start = time.perf_counter()
    enhance(signal)
    return (time.perf_counter() - start) / (len(signal) / SAMPLE_RATE)


def compare(scores, pairs, systems, peers):
    """The table of the peers, with first rows for `systems`: means, PESQ and SI-SDR at each SNR, and computing cost.

    `systems` maps the names of signals to (name of the row, function, source).
    """
    rows = []
    for signal, (name, enhance, source) in systems.items():
        table = scores[(scores["condition"] == "as it is") & (scores["signal"] == signal)]
        row = {"peer": name, **table[list(MEASURES)].mean(), "rtf": computing_cost(pairs, enhance), "source": source}
        for snr_db, files in table.groupby("nominal_snr_db"):
            row |= {f"{measure}_{snr_db}dB": files[measure].mean() for measure in ("pesq", "si_sdr")}
        rows.append(row)
    peers.columns = peers.columns.str.replace("sisdr", "si_sdr")
    ours = pd.DataFrame(rows)
    others = peers[~peers["peer"].isin(ours["peer"])]
    return pd.concat([ours, others], ignore_index=True)[peers.columns].rename(columns={"peer": "system"})


SOUNDS = {  # what calls hold beside speech, and what its path or its category in the table of noise holds
    "laughter": "laughing",
    "crying": "crying_baby",
    "siren": "siren",
    "bells": "church_bells",
    "hold music": "moh_opsound",
}


def other_sounds():
    """How much of each kind of sound is left, by `left_db`: mean, lowest and highest over up to 20 clips."""
    speech, noise = list_speech(), list_noise()
    voices = [load_audio(path, duration=4) for path in speech[speech["split"] == "test"]["path"].iloc[:20]]
    label = noise["path"].map(str) + noise["category"]
    rows = []
    for sound, name in SOUNDS.items():
        clips = noise["path"][label.str.contains(name)]
        left = [left_db(load_audio(clip, duration=5), voice) for clip, voice in zip(clips, voices, strict=False)]
        if left:  # not all corpora hold all kinds
            rows.append((sound, len(left), np.mean(left), min(left), max(left)))
    return pd.DataFrame(rows, columns=["sound", "clips", "left_db", "least_db", "most_db"])


def live(noisy, latency):
    """What `denoise_stream` makes of a signal at 8 kHz with a latency in seconds: `(samples,)` to the same shape."""
    return np.concatenate(list(denoise_stream([noisy], SAMPLE_RATE, latency)))


def training(model):
    """How long a model was trained, from its card and those of the models that it started from."""
    card = json.loads(model.with_suffix(".json").read_text())
    hours, minutes = card["hours_of_audio_in_all"], 0
    while card:
        minutes += card.get("minutes_of_training", 0)
        card = card.get("start")
    return f"trained on {hours:.1f} h of blends in {minutes:.0f} minutes"


def draw_worst(pairs, scores):
    """Draw clean, noisy and enhanced spectrograms of the five files that gain least in PESQ."""
    table = scores[scores["condition"] == "as it is"].pivot(index="name", columns="signal")
    gain = (table["pesq"]["U-Net"] - table["pesq"]["noisy"]).sort_values().head(5)
    signals = {name: (clean, noisy) for name, clean, noisy in pairs}
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(5, 3, figsize=(11, 12), layout="constrained", sharey=True)
    for row, (name, value) in zip(axes, gain.items(), strict=True):
        clean, noisy = signals[name]
        noisy_title = f"{table['category']['noisy'][name]}, {table['nominal_snr_db']['noisy'][name]} dB"
        titles = ("clean", noisy_title, f"enhanced: PESQ {value:+.2f}")
        for ax, signal, title in zip(row, (clean, noisy, denoise(noisy)), titles, strict=True):
            plot_spectrogram(stft(signal), title, ax)
            ax.label_outer()
        for ax in row[:2]:  # one bar of colours for all three
            ax.collections[0].colorbar.remove()
    (ROOT / "images" / "worst.png").write_bytes(packed_png(figure, dpi=80))


def with_rows_of_before(table, path, column):
    """A table, and behind it the rows of the file at `path` whose value in `column` it lacks."""
    before = pd.read_csv(path)
    return pd.concat([table, before[~before[column].isin(table[column])]], ignore_index=True)


def main(benchmark, baseline=None, brief=None):
    pairs = list(paired_files(benchmark / "clean", benchmark / "noisy"))
    manifest = pd.read_csv(benchmark / "manifest.csv").set_index("file")
    systems = {  # by the names of their signals: name of the row, function, source
        "U-Net": ("U-Net (this project)", denoise, training(MODEL)),
        "spectral subtraction": ("spectral subtraction", spectral_subtraction, "after Boll (1979)"),
    }
    if baseline is not None:
        original = functools.partial(denoise_original, model=load_model(baseline))
        source = f"recipe of github.com/vbelz/Speech-enhancement, {training(baseline)}"
        systems["original recipe"] = ("original recipe, repaired", original, source)
    if brief is not None:
        enhance = functools.partial(denoise, model=brief.with_suffix(".onnx"))
        systems["brief U-Net"] = ("U-Net, trained on as little", enhance, training(brief))
    scores = score(pairs, {signal: enhance for signal, (_, enhance, _) in systems.items()})
    scores["category"] = scores["name"].map(manifest["category"])
    scores["nominal_snr_db"] = scores["name"].map(manifest["snr_db"])
    results = ROOT / "data" / "results"
    table = compare(scores, pairs, systems, pd.read_csv(benchmark / "peers.csv"))
    scores = with_rows_of_before(scores, results / "benchmark.csv", "signal")
    scores.to_csv(results / "benchmark.csv", index=False, float_format="%.4f")
    table = with_rows_of_before(table, results / "systems.csv", "system")
    table["hears"] = table["system"].map(HEARS).fillna("a window").mask(table["system"].str.startswith("oracle"), "all")
    table.to_csv(results / "systems.csv", index=False, float_format="%.4f")
    streams = {str(latency): functools.partial(live, latency=latency) for latency in LATENCIES}
    evaluate(pairs, streams).to_csv(results / "live.csv", index=False, float_format="%.4f")
    draw_worst(pairs, scores)
    other_sounds().to_csv(results / "sounds.csv", index=False, float_format="%.1f")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
