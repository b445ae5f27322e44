"""Measures the shipped model on a benchmark of noisy and clean files: writes data/results/ and images/worst.png.

Run it in the folder above as `OMP_NUM_THREADS=1 python -m data.make_results BENCHMARK BASELINE`: on one thread, as the
computing cost of the other systems was measured. BENCHMARK holds `clean/` and `noisy/`, with files of the same names,
`manifest.csv` with the columns file, category and snr_db, and `peers.csv`, what other systems reach on these files.
BASELINE is a model by `make_baseline.py`. PESQ needs the package pesq.
"""

import functools
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from data.make_baseline import denoise_original
from helpers import (
    ROOT,
    SAMPLE_RATE,
    denoise,
    evaluate,
    load_model,
    packed_png,
    paired_files,
    plot_spectrogram,
    spectral_subtraction,
    stft,
    telephone,
)

CONDITIONS = {  # what is done to a pair before it is measured: functions of (clean, noisy)
    "as it is": lambda clean, noisy: (clean, noisy),
    "telephone": lambda clean, noisy: (telephone(clean), telephone(noisy)),
    "20 dB quieter": lambda clean, noisy: (clean, noisy / np.float32(10)),
    "10 dB louder": lambda clean, noisy: (clean, noisy * np.float32(10**0.5)),
    "clean": lambda clean, noisy: (clean, clean),
}
MEASURES = ["pesq", "stoi", "estoi", "si_sdr"]


def score(pairs, others):
    """Scores by `evaluate` of all pairs under each condition, with the column condition; of `others` as they are."""
    tables = []
    for condition, change in CONDITIONS.items():
        systems = {"U-Net": denoise, **(others if condition == "as it is" else {})}
        changed = [(name, *change(clean, noisy)) for name, clean, noisy in pairs]
        tables.append(evaluate(changed, systems).assign(condition=condition))
    return pd.concat(tables, ignore_index=True)


def computing_cost(pairs, enhance):
    """Seconds of computing per second of audio; the files are joined, since short ones measure the start."""
    signal = np.concatenate([noisy for _, _, noisy in pairs])[: 120 * SAMPLE_RATE]
    enhance(signal[:SAMPLE_RATE])
    start = time.perf_counter()
    enhance(signal)
    return (time.perf_counter() - start) / (len(signal) / SAMPLE_RATE)


def compare(scores, pairs, systems, peers):
    """The table of the peers, with first rows for `systems`: means, PESQ and SI-SDR at each SNR, and computing cost."""
    rows = []
    for system, (signal, enhance) in systems.items():
        table = scores[(scores["condition"] == "as it is") & (scores["signal"] == signal)]
        rows.append({"peer": system, **table[MEASURES].mean(), "rtf": computing_cost(pairs, enhance)})
        for snr_db, files in table.groupby("nominal_snr_db"):
            rows[-1] |= {f"{name}_{snr_db}dB": files[name].mean() for name in ("pesq", "si_sdr")}
    peers.columns = peers.columns.str.replace("sisdr", "si_sdr")
    return pd.concat([pd.DataFrame(rows), peers], ignore_index=True).rename(columns={"peer": "system"})


def draw_worst(pairs, scores):
    """Draw clean, noisy and enhanced spectrograms of the five files that gain least in PESQ."""
    table = scores[scores["condition"] == "as it is"].pivot(index="name", columns="signal")
    gain = (table["pesq"]["U-Net"] - table["pesq"]["noisy"]).sort_values().head(5)
    signals = {name: (clean, noisy) for name, clean, noisy in pairs}
    figure, axes = plt.subplots(5, 3, figsize=(11, 11), layout="constrained", sharey=True)
    for row, (name, value) in zip(axes, gain.items(), strict=True):
        clean, noisy = signals[name]
        noisy_title = f"{table['category']['noisy'][name]}, {table['nominal_snr_db']['noisy'][name]} dB"
        titles = ("clean", noisy_title, f"enhanced: PESQ {value:+.2f}")
        for ax, signal, title in zip(row, (clean, noisy, denoise(noisy)), titles, strict=True):
            plot_spectrogram(stft(signal), title, ax)
            ax.label_outer()
    (ROOT / "images" / "worst.png").write_bytes(packed_png(figure, dpi=60))


def main(benchmark, baseline):
    pairs = list(paired_files(benchmark / "clean", benchmark / "noisy"))
    manifest = pd.read_csv(benchmark / "manifest.csv").set_index("file")
    original = functools.partial(denoise_original, model=load_model(baseline))
    scores = score(pairs, {"spectral subtraction": spectral_subtraction, "original recipe": original})
    scores["category"] = scores["name"].map(manifest["category"])
    scores["nominal_snr_db"] = scores["name"].map(manifest["snr_db"])
    results = ROOT / "data" / "results"
    scores.to_csv(results / "benchmark.csv", index=False, float_format="%.4f")
    systems = {"U-Net (this project)": ("U-Net", denoise), "original recipe, repaired": ("original recipe", original)}
    table = compare(scores, pairs, systems, pd.read_csv(benchmark / "peers.csv"))
    table.to_csv(results / "systems.csv", index=False, float_format="%.4f")
    draw_worst(pairs, scores)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
