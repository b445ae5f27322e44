"""Train the U-Net on a GPU, by Keras on JAX: ten minutes of an H100 do what two processor cores do in fifteen hours.

    python -m data.train_on_gpu --start data/unet.keras --output data/gpu.keras

The network, the blends and the loss are those of `helpers.train`; larger batches are mixed by all cores and transformed
on the GPU, and the GRUs' two directions run at once, which halves the steps that have to wait for one another. Needs
`jax` with its GPU plugin beside requirements.txt; `python helpers.py export` makes the model for ONNX Runtime.
"""

import argparse
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import shlex
import sys
import time
import warnings
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import numpy as np
import pandas as pd

import helpers
from helpers import HOP_LENGTH_FFT, N_FFT, SAMPLE_RATE, STFT_GAIN, WINDOW

BLENDS = 6  # that a process makes at a time
STEPS = 200  # in an epoch
N_WARMUP = 150  # steps in which the learning rate grows
helpers.LICENCES |= {  # of the other folders of the corpus that the shipped model saw, for its card
    "ambience": "CC0 or CC BY",
    "everyday": "CC0, CC BY, CC BY-SA, MIT, Apache 2.0; UrbanSound8K CC BY-NC 3.0",
    "speech": "CC BY 4.0, CC BY-SA, CC0, Apache 2.0, free; RAVDESS CC BY-NC-SA 4.0",
}


def blends(source, index):
    """What `spectra` needs for `source[index]`: float32 speech and noise `(2, BLENDS, n_samples)`, by the level,
    and their tilts `(2, BLENDS, 128, 1)`."""
    speech, noise, level, tilts = source.signals(index)
    return np.float32([speech, noise] / level[:, None]), np.float32(tilts)


def put_blends(source, first, step, queue):
    """What a process does: it puts the `blends` of every `step`-th index into its queue, and waits if that is full."""
    for index in itertools.count(first, step):
        queue.put(blends(source, index))


def start_processes(source):
    """Start a process for each core but one; returns their queues, to be read in turn."""
    # Copies of this process, made before JAX starts its threads.
    context, n = multiprocessing.get_context("fork"), max(1, os.cpu_count() - 1)
    queues = [context.Queue(maxsize=16) for _ in range(n)]
    for i in range(n):
        context.Process(target=put_blends, args=(source, i, n, queues[i]), daemon=True).start()
    return queues


def batches(queues, batch_size):
    """Endless batches: signals `(2, batch_size, n_samples)` and tilts, `blends` in the order of their index."""
    turns = itertools.cycle(queues)
    while True:
        # The time limit: a process that has failed must not keep this one waiting.
        parts = [queue.get(timeout=300) for queue in itertools.islice(turns, batch_size // BLENDS)]
        yield [np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)]


def both_directions(self, x):
    """What `helpers._along` makes of `x`, `(batch, bins, frames, channels)`, by one scan for its two GRUs."""
    import jax
    import jax.numpy as jnp
    from keras import ops

    rows = ops.swapaxes(x, 1, 2) if self.axis == 1 else x
    shape = rows.shape
    rows = ops.reshape(rows, (-1, *shape[2:]))
    cells = self.forwards.cell, self.backwards.cell
    kernel, recurrent, bias = (
        jnp.stack([ops.convert_to_tensor(getattr(cell, name)) for cell in cells])
        for name in ("kernel", "recurrent_kernel", "bias")
    )

    def step(state, projected):
        gates = jnp.einsum("dru,dug->drg", state, recurrent) + bias[:, 1, None]
        kept, reset = jnp.split(jax.nn.sigmoid((projected + gates)[..., : 2 * self.units]), 2, axis=-1)
        new = jnp.tanh(projected[..., 2 * self.units :] + reset * gates[..., 2 * self.units :])
        state = kept * state + (1 - kept) * new
        return state, state

    projected = jnp.einsum("drtc,dcg->tdrg", jnp.stack([rows, rows[:, ::-1]]), kernel) + bias[:, 0, None]
    _, read = jax.lax.scan(step, jnp.zeros((2, rows.shape[0], self.units)), projected, unroll=4)
    read = jnp.concatenate([read[:, 0], read[::-1, 1]], axis=-1).swapaxes(0, 1)
    read = ops.reshape(read, (*shape[:3], 2 * self.units))
    return ops.swapaxes(read, 1, 2) if self.axis == 1 else read


def spectra(signals, tilts):
    """Inputs `(batch, 128, frames, 2)` and targets `(..., 4)`, as `helpers.BlendedSpeech` has them, of a batch."""
    import jax.numpy as jnp

    padded = jnp.pad(signals, ((0, 0), (0, 0), (N_FFT // 2,) * 2))
    columns = np.arange(0, signals.shape[-1], HOP_LENGTH_FFT)[:, None] + np.arange(N_FFT)
    scaled = jnp.fft.rfft(padded[..., columns] * WINDOW.astype(np.float32)).swapaxes(-1, -2) * tilts / STFT_GAIN
    speech, noise = jnp.stack([scaled.real, scaled.imag], axis=-1)
    return speech + noise, jnp.concatenate([noise, speech], axis=-1)


def train(queues, start, epochs, batch_size, learning_rate):
    """The U-Net, trained from the weights of the model `start`, and the training loss of each epoch."""
    import jax
    import keras

    helpers._along().call = both_directions
    model = helpers.unet()
    helpers.transfer_weights(helpers.load_model(start).get_weights(), model)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * STEPS - N_WARMUP, warmup_target=learning_rate, warmup_steps=N_WARMUP
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=1.0)
    optimizer.build(model.trainable_variables)

    def loss(trainable, fixed, signals, tilts):
        noisy, true = spectra(signals, tilts)
        noise, fixed = model.stateless_call(trainable, fixed, noisy, training=True)
        return helpers.spectral_loss(true, noise).mean(), fixed

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, signals, tilts):
        trainable, fixed, variables = state
        (value, fixed), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, fixed, signals, tilts)
        trainable, variables = optimizer.stateless_apply(variables, gradients, trainable)
        return (trainable, fixed, variables), value

    parts = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([variable.value for variable in part] for part in parts)
    history, batch = [], batches(queues, batch_size)
    for _ in range(epochs):
        losses = []
        for signals, tilts in itertools.islice(batch, STEPS):
            state, value = step(state, signals, tilts)
            losses.append(value)
        history.append(float(np.mean(losses)))
        print(f"epoch {len(history)} of {epochs}: loss {history[-1]:.4f}", flush=True)
    for part, arrays in zip(parts[:2], state, strict=False):
        for variable, array in zip(part, arrays, strict=True):
            variable.assign(array)
    return model, history


def final_loss(model, source):
    """The mean loss of the finished network on 20 batches of `source`."""
    batches = (source[index] for index in range(20))
    return float(np.mean([helpers.spectral_loss(true, model.predict_on_batch(noisy)) for noisy, true in batches]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=helpers.MODEL, help="the model to go on from")
    parser.add_argument("--output", type=Path, required=True, help="the model's file, .keras")
    parser.add_argument("--epochs", type=int, default=35, help=f"of {STEPS} steps")
    parser.add_argument("--batch-size", type=int, default=48, help=f"a multiple of {BLENDS}")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3, help="its highest value")
    parser.add_argument("--seed", type=int, default=0, help="of the blends")
    options = parser.parse_args()
    if options.output.suffix != ".keras":
        parser.error(f"{options.output} can't be written: end its name in .keras")
    if options.batch_size < BLENDS or options.batch_size % BLENDS:
        parser.error(f"a batch of {options.batch_size} can't be made: take a multiple of {BLENDS}")
    if options.epochs < 1:
        parser.error(f"{options.epochs} epochs are no training: take at least 1")
    corpus = helpers.find_corpus()
    speech, noise, rooms = helpers.list_speech(corpus), helpers.list_noise(corpus), helpers.list_rooms(corpus)
    parts = {split: helpers.of_split(split, corpus, speech, noise) for split in ("train", "validation")}
    sources = {name: helpers.BlendedSpeech(*part, rooms, BLENDS, seed=options.seed) for name, part in parts.items()}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # what is left out was told already
        pairs = list(helpers.held_out_blends(corpus))
    queues, begin = start_processes(sources["train"]), time.perf_counter()
    model, history = train(queues, options.start, options.epochs, options.batch_size, options.learning_rate)
    minutes = (time.perf_counter() - begin) / 60
    with helpers.written_whole(options.output) as part:
        model.save(part)
    hours = options.epochs * STEPS * options.batch_size * sources["train"].n_samples / SAMPLE_RATE / 3600
    origin = helpers._card(options.start)
    card = {
        "command": shlex.join(["python", "-m", "data.train_on_gpu", *sys.argv[1:]]),
        "start": origin,
        "epochs": options.epochs,
        "steps_per_epoch": STEPS,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "hours_of_audio": round(hours, 2),
        "hours_of_audio_in_all": round(hours + origin.get("hours_of_audio_in_all", 0), 2),
        "minutes_of_training": round(minutes, 1),
        **helpers.describe(model, corpus, pd.concat([speech, noise]), pairs),
        "final_loss": {split: round(final_loss(model, source), 4) for split, source in sources.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("keras", "jax", "numpy")},
        "history": {"epoch": list(range(len(history))), "loss": history},
    }
    with helpers.written_whole(options.output.with_suffix(".json")) as part:
        part.write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
