"""How fast recordings are denoised, in how much memory, and how fast other methods are.

Run `python tests/benchmark.py`, with `--long` to include an hour. Each
measurement has a process of its own and is preceded by a short recording, so that start-up counts for nothing. Compare
ratios of one run only. Live calls are denoised on one core: their "times real time" are channels that it denoises.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import helpers
from data.make_baseline import original_unet

RATE = helpers.SAMPLE_RATE


def write_call(path, seconds):
    """Write a noisy call of the sample, repeated."""
    sample = helpers.ROOT / "data" / "sample"
    pairs = helpers.held_out_blends(sample, n=20)
    call = np.concatenate([noisy for _, _, noisy in pairs])
    sf.write(path, np.resize(call / np.abs(call).max(), seconds * RATE), RATE)
    return path


class Timed:
    """A model that measures the time spent in it."""

    def __init__(self, model):
        self.model, self.seconds = model, 0.0

    def predict_on_batch(self, inputs):
        begin = time.perf_counter()
        outputs = self.model.predict_on_batch(inputs)
        self.seconds += time.perf_counter() - begin
        return outputs


def denoise_with(model):
    model = Timed(helpers.load_model(model))

    def run(source, target):
        helpers.denoise_file(source, target, model, overwrite=True)
        return model.seconds

    return run


def denoise_live(latency):
    """Denoise 20 ms at a time, as they come in a call."""
    model = Timed(helpers.load_model(helpers.RUNTIME_MODEL))

    def run(source, target):
        signal, rate = sf.read(source, dtype="float32")
        chunks = (signal[i : i + rate // 50] for i in range(0, len(signal), rate // 50))
        sf.write(target, np.concatenate(list(helpers.denoise_stream(chunks, rate, latency, model))), rate)
        return model.seconds

    return run


def reduce_noise(source, target):
    import noisereduce

    signal, rate = sf.read(source, dtype="float32")
    sf.write(target, noisereduce.reduce_noise(signal, rate), rate)


def denoise_by_windows():
    """Its method: the level of the noise, in dB, window after window of 8064 samples; the rest is left out."""
    import librosa

    model = Timed(original_unet())

    def run(source, target):
        signal, rate = sf.read(source, dtype="float32")
        pieces = []
        for start in range(0, len(signal) - 8064 + 1, 8064):
            spectrogram = librosa.stft(signal[start : start + 8064], n_fft=255, hop_length=63)
            level = librosa.amplitude_to_db(np.abs(spectrogram), ref=np.max)
            predicted = model.predict_on_batch((level[None, ..., None] + 46) / 50)[0, ..., 0]
            left = librosa.db_to_amplitude(level - (82 * predicted + 6), ref=1.0)
            phase = spectrogram / np.maximum(np.abs(spectrogram), 1e-12)
            pieces.append(librosa.istft(left * phase, n_fft=255, hop_length=63, length=8064))
        sf.write(target, np.concatenate(pieces), rate)
        return model.seconds

    return run


METHODS = {
    "shipped U-Net, ONNX Runtime": lambda: denoise_with(helpers.RUNTIME_MODEL),
    "shipped U-Net, Keras": lambda: denoise_with(helpers.MODEL),
    "live, latency 0.1 s, one core": lambda: denoise_live(0.1),
    "live, latency 0.25 s, one core": lambda: denoise_live(0.25),
    "live, latency 0.5 s, one core": lambda: denoise_live(0.5),
    "noisereduce": lambda: reduce_noise,
    "original U-Net, window by window": denoise_by_windows,
}


def measure(method, source, warm_up):
    """Denoise a file and print what it took. Run in a process of its own, for the memory."""
    import resource

    run = METHODS[method]()
    target = source.with_name(f"{time.time_ns()}.wav")
    before = run(warm_up, target)
    begin = time.perf_counter()
    after = run(source, target)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "linux" else 2**20)
    share = None if after is None else (after - before) / seconds
    print(json.dumps({"seconds": seconds, "share": share, "peak": peak}))


def measured(method, source, warm_up):
    command = [sys.executable, __file__, "--measure", method, source, warm_up]
    threads = {"OMP_NUM_THREADS": "1"} if "one core" in method else {}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        print(f"{method:34} not measured: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def report(label, seconds, result):
    share = "" if result["share"] is None else f"{result['share']:8.0%}"
    print(f"{label:34} {seconds / result['seconds']:10.1f} {share:>8} {result['peak']:10.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="include a recording of an hour")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        method, *files = arguments.measure
        return measure(method, *map(Path, files))
    print(f"{'':34} {'times':>10} {'in the':>8} {'peak':>10}")
    print(f"{'':34} {'real time':>10} {'network':>8} {'memory, MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        warm_up = write_call(Path(folder) / "short.wav", 4)
        minute = write_call(Path(folder) / "minute.wav", 60)
        shipped, *others = METHODS
        for label, seconds in [("1 minute", 60), ("10 minutes", 600), ("1 hour", 3600)][: 3 if arguments.long else 2]:
            source = write_call(Path(folder) / "call.wav", seconds)
            report(f"{shipped.split(',')[0]}, {label}", seconds, measured(shipped, source, warm_up))
        for method in others:
            if result := measured(method, minute, warm_up):
                report(f"{method}, 1 minute", 60, result)


if __name__ == "__main__":
    main()
