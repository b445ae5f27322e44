"""Measures whether the shipped model helps a speech recogniser: writes data/results/understanding.csv.

Run it in the folder above as `python -m data.make_understanding BENCHMARK RECOGNISER`, with a benchmark as in
`make_results.py` and the name or the folder of a model for faster-whisper, such as "base". It needs the packages
faster-whisper, jiwer, whisper-normalizer and pesq, and blends of the validation split from the corpus of recordings
that SPEECH_CORPUS names: a value of `mix` is chosen on these, and tried on the benchmark.

The reference of each file is what the recogniser makes of its clean version: files of which it makes nothing are left
out. Errors are capped at each file's number of words, since one loop ("very very very") can outweigh thirty files.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soxr

from helpers import (
    ROOT,
    SAMPLE_RATE,
    blend,
    denoise,
    dnsmos,
    find_corpus,
    list_noise,
    list_speech,
    load_audio,
    measure,
    of_split,
    paired_files,
    random_crop,
    telephone,
)

MIXES = (0, 0.3, 0.5, 0.6, 0.7, 0.85, 1)  # on the validation blends
TRIED = (0, 0.7, 1)  # on the benchmark


def transcriber(recogniser):
    """A function that writes down what is said in a signal `(samples,)` at 8 kHz, in words of one form."""
    from faster_whisper import WhisperModel
    from whisper_normalizer.english import EnglishTextNormalizer

    model, normalise = WhisperModel(recogniser, device="cpu", compute_type="int8"), EnglishTextNormalizer()
    greedy = {"language": "en", "beam_size": 1, "temperature": 0, "condition_on_previous_text": False}

    def transcribe(signal):
        segments, _ = model.transcribe(
            soxr.resample(signal, SAMPLE_RATE, 16000, "VHQ"), without_timestamps=True, chunk_length=15, **greedy
        )
        return normalise(" ".join(segment.text for segment in segments))

    return transcribe


def word_errors(reference, text):
    """How many words of a text are wrong, missing or too many, at most as many as the reference has."""
    import jiwer

    n_words = len(reference.split())
    if not text:
        return n_words
    words = jiwer.process_words(reference, text)
    return min(n_words, words.substitutions + words.deletions + words.insertions)


def validation_blends(n=60):
    """Yield `n` pairs of the validation split, -5 to 15 dB, as `held_out_blends` does of the test split."""
    tables = of_split("validation", find_corpus(), list_speech(), list_noise())
    rng = np.random.default_rng(0)
    for i, snr_db in enumerate(np.linspace(-5, 15, n)):
        utterance, clip = (table.iloc[rng.integers(len(table))] for table in tables)
        clean = load_audio(utterance.path, duration=8)
        yield f"{i:03d}", clean, blend(clean, random_crop(clip.path, len(clean), rng), snr_db)[1]


def score(pairs, transcribe, mixes):
    """A table with a row for each pair and mix: name, mix, errors, words, and what listeners might say."""
    rows = []
    for name, clean, noisy in pairs:
        if not (reference := transcribe(clean)):
            continue
        enhanced = denoise(noisy)
        for mix in mixes:
            signal = noisy + np.float32(mix) * (enhanced - noisy)
            errors, words = word_errors(reference, transcribe(signal)), len(reference.split())
            row = {"name": name, "mix": mix, "errors": errors, "words": words}
            rows.append(row | {"pesq": measure(clean, signal)["pesq"], **dnsmos(signal)})
    return pd.DataFrame(rows)


def main(benchmark, recogniser):
    transcribe = transcriber(recogniser)
    pairs = list(paired_files(benchmark / "clean", benchmark / "noisy"))
    over_telephone = [(name, telephone(clean), telephone(noisy)) for name, clean, noisy in pairs]
    parts = {
        "validation": score(validation_blends(), transcribe, MIXES),
        "as it is": score(pairs, transcribe, TRIED),
        "telephone": score(over_telephone, transcribe, TRIED),
    }
    table = pd.concat(parts, names=["condition"]).reset_index(level=0)
    manifest = pd.read_csv(benchmark / "manifest.csv").set_index("file")
    table.insert(2, "snr_db", table["name"].map(manifest["snr_db"]).astype("Int64"))
    table.to_csv(ROOT / "data" / "results" / "understanding.csv", index=False, float_format="%.3f")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
