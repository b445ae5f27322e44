"""Measures whether the shipped model helps a speech recogniser: writes data/results/understanding.csv.

Run it in the folder above as `python -m data.make_understanding BENCHMARK RECOGNISER`, with a benchmark as in
`make_results.py` and the name or the folder of a model for faster-whisper, such as "base". It needs the packages
faster-whisper, jiwer and whisper-normalizer-offline.

The reference of each file is what the recogniser makes of its clean version: files of which it makes nothing are left
out. Errors are capped at each file's number of words, since one loop ("very very very") can outweigh thirty files.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soxr

from helpers import ROOT, SAMPLE_RATE, denoise, paired_files, telephone

CONDITIONS = {"as it is": lambda signal: signal, "telephone": telephone}
MIXES = (0.5, 0.7, 0.8, 0.9, 1.0)


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


def score(pairs, transcribe):
    """Word errors of each pair, condition and mix: a table with the columns name, condition, mix, errors and words."""
    rows = []
    for name, clean, noisy in pairs:
        for condition, change in CONDITIONS.items():
            reference, heard = transcribe(change(clean)), change(noisy)
            if reference:
                enhanced = denoise(heard)
                for mix in (0, *MIXES):
                    text = transcribe(heard + np.float32(mix) * (enhanced - heard))
                    errors = word_errors(reference, text)
                    rows.append((name, condition, mix, errors, len(reference.split())))
    return pd.DataFrame(rows, columns=["name", "condition", "mix", "errors", "words"])


def main(benchmark, recogniser):
    table = score(paired_files(benchmark / "clean", benchmark / "noisy"), transcriber(recogniser))
    snr_db = pd.read_csv(benchmark / "manifest.csv").set_index("file")["snr_db"]
    table.insert(1, "snr_db", table["name"].map(snr_db))
    table.to_csv(ROOT / "data" / "results" / "understanding.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
