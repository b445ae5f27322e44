"""Trains the recipe of github.com/vbelz/Speech-enhancement, from which this course took its idea, as a baseline.

Run it in the folder above as `python -m data.make_baseline OUTPUT.keras`; `make_results.py` measures the result. Its
U-Net, its scaling of decibels and its loss are those of the original; its blends are those of `train`. Repaired are the
faults that damaged speech before any noise was removed: the windows are cut from one spectrogram, so that there are no
seams and no rest is left out; the reference of the decibels is the same both ways; what is removed is a gain, so that a
network that predicts no noise changes nothing; and the level is kept.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from helpers import SAMPLE_RATE, BlendedSpeech, find_corpus, istft, list_noise, list_speech, of_split, stft

WINDOW = 128  # frames that the network sees at a time, 1 s
STEPS_PER_EPOCH = 200  # batches, as in `train`


def original_unet():
    """The U-Net of the original, untrained: `(batch, 128, 128, 1)` to the same shape, -1 to 1."""
    import keras
    from keras import layers

    def convolve(x, width, kernel=3):
        x = layers.Conv2D(width, kernel, padding="same", kernel_initializer="he_normal")(x)
        return layers.LeakyReLU()(x)

    x = inputs = keras.Input((128, WINDOW, 1))
    skips = []
    for width in (16, 32, 64, 128):
        x = convolve(convolve(x, width), width)
        x = layers.Dropout(0.5)(x) if width == 128 else x
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.5)(convolve(convolve(x, 256), 256))
    for skip in reversed(skips):
        width = skip.shape[-1]
        x = layers.concatenate([skip, convolve(layers.UpSampling2D()(x), width, kernel=2)])
        x = convolve(convolve(x, width), width)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="tanh")(x))


def windows(magnitude):
    """Cut magnitudes `(..., 128, frames)` into windows `(n, 128, 128)`; the last ones are zero-padded."""
    padding = -magnitude.shape[-1] % WINDOW
    padded = np.pad(magnitude, [(0, 0)] * (magnitude.ndim - 1) + [(0, padding)])
    return np.moveaxis(padded.reshape(*padded.shape[:-1], -1, WINDOW), -2, -3).reshape(-1, 128, WINDOW)


def decibels(magnitude, peak):
    """Magnitudes `(n, 128, 128)` in dB below their window's peak in the noisy signal, `(n, 1, 1)`; at least -80."""
    return 20 * np.log10(np.maximum(magnitude / peak, 1e-4))


def peak_of(noisy):
    """The reference of the decibels: the highest magnitude of each noisy window, `(n, 1, 1)`."""
    return np.maximum(noisy.max(axis=(1, 2), keepdims=True), 1e-9)


def scaled(noisy_db):
    """What the network is given: the original's scaling of decibels to about -1 to 1."""
    return ((noisy_db + 46) / 50)[..., None].astype(np.float32)


def batch(blends):
    """A batch of `BlendedSpeech` as the original would see it: noisy decibels, and those to remove, both scaled."""
    inputs, targets = blends
    noisy, speech = (windows(np.linalg.norm(channels, axis=-1)) for channels in (inputs, targets[..., 2:]))
    noisy_db, speech_db = (decibels(magnitude, peak_of(noisy)) for magnitude in (noisy, speech))
    return scaled(noisy_db), ((noisy_db - speech_db - 6) / 82)[..., None].astype(np.float32)


def denoise_original(noisy, model):
    """The enhanced signal `(samples,)` of a noisy one at 8 kHz: smaller magnitudes, with the noisy phase."""
    spectrogram = stft(noisy)
    magnitude = windows(np.abs(spectrogram))
    removed_db = 82 * model.predict_on_batch(scaled(decibels(magnitude, peak_of(magnitude))))[..., 0] + 6
    gain = np.concatenate(list(10 ** (-removed_db / 20)), axis=-1)[:, : spectrogram.shape[-1]]
    return istft(gain * spectrogram, len(noisy))


def main():
    import keras

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="file to write, .keras")
    parser.add_argument("--epochs", type=int, default=8, help=f"of {STEPS_PER_EPOCH} batches (default: 8)")
    options = parser.parse_args()
    if options.output.suffix != ".keras":
        parser.error(f"{options.output} can't be written: end its name in .keras")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    corpus = find_corpus()
    source = BlendedSpeech(*of_split("train", corpus, list_speech(corpus), list_noise(corpus)))

    class Batches(keras.utils.PyDataset):
        epoch = 0

        def __len__(self):
            return STEPS_PER_EPOCH

        def __getitem__(self, index):
            return batch(source[STEPS_PER_EPOCH * self.epoch + index])

        def on_epoch_end(self):
            self.epoch += 1

    keras.utils.set_random_seed(0)
    model = original_unet()
    model.compile("adam", loss=keras.losses.Huber(), metrics=["mae"])
    begin = time.perf_counter()
    model.fit(Batches(), epochs=options.epochs, shuffle=False, verbose=2)
    minutes = (time.perf_counter() - begin) / 60
    hours = STEPS_PER_EPOCH * options.epochs * source.batch_size * source.n_samples / SAMPLE_RATE / 3600
    model.save(options.output)
    card = {"minutes_of_training": round(minutes, 1), "hours_of_audio_in_all": round(hours, 2)}
    options.output.with_suffix(".json").write_text(json.dumps(card) + "\n")


if __name__ == "__main__":
    main()
