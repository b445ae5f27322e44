"""Measures what each part of the loss, of the blends and of the network brings: writes data/results/ablation.csv.

Run it in the folder above as `python -m data.make_ablation FOLDER`: for each of VARIANTS the network is trained from
random weights on the corpus that SPEECH_CORPUS names, and measured on blends of its validation part, as they are and
over a telephone line. All see the same 600 batches, four hours of blends, which takes 20 minutes on two free cores.
FOLDER keeps the trainings, and ablation_blends.csv, beside the table, the scores of each blend: a run that was killed,
started again, goes on where it was, on another machine with the variants that are not in that file. Remove both after a
change of the network, the loss or the blends. The table that is here was made with 800 batches, 60 blends of the test
part, an earlier loss, earlier blends and half of the dual-path blocks, and has a row for a term that the loss no longer
has.
"""

import functools
import multiprocessing
import sys
from pathlib import Path

import pandas as pd

import helpers
from data.make_understanding import validation_blends

TABLE = helpers.ROOT / "data" / "results" / "ablation.csv"
BLENDS = TABLE.with_name("ablation_blends.csv")


def without_term(name):
    helpers.LOSS_WEIGHTS[name] = 0


def plain_blends():
    """Each blend is one talker and a noise: no telephone line, no room, no second talker."""
    helpers.BlendedSpeech.random_line = lambda self, rng: lambda signal: signal
    helpers.BlendedSpeech.in_random_room = lambda self, signal, rng: signal
    helpers.BlendedSpeech.random_talkers = helpers.BlendedSpeech.random_speech


def real_mask():
    """The mask's imaginary part is left out: it can't turn phases."""
    keras, complex_unet = helpers._keras(), helpers.unet

    def unet():
        model = complex_unet()
        real_part = keras.ops.sum(model.output * model.input, axis=-1, keepdims=True)
        return keras.Model(model.input, real_part / helpers._magnitude(model.input) ** 2 * model.input)

    helpers.unet = unet


def no_skips():
    """What the encoder hands over to the decoder is zero."""
    ops, unet = helpers._keras().ops, helpers.unet

    def deaf_unet():
        concatenate = ops.concatenate
        ops.concatenate = lambda parts, axis: concatenate(
            [parts[0], 0 * parts[1]] if len(parts) == 2 and parts[0].shape[-1] > 2 else parts, axis=axis
        )
        try:
            return unet()
        finally:
            ops.concatenate = concatenate

    helpers.unet = deaf_unet


def no_recurrent_layers():
    helpers._along = lambda: lambda units, axis: lambda x: x


def half_of_the_recurrent_layers():
    helpers.unet = functools.partial(helpers.unet, n_dual=1)


VARIANTS = {
    "all of it": lambda: None,
    "all of it, another seed": lambda: None,
    "no recurrent layers": no_recurrent_layers,
    "half of the recurrent layers": half_of_the_recurrent_layers,
    "no skip connections": no_skips,
    "real mask": real_mask,
    "no lines, rooms, second talkers": plain_blends,
}
VARIANTS |= {f"loss without {name}": functools.partial(without_term, name) for name in reversed(helpers.LOSS_WEIGHTS)}


def train(variant, target):
    """Train a variant and measure it; to be called in a process of its own, since it changes the module."""
    VARIANTS[variant]()
    helpers.export = lambda model, target: None  # takes a while, and is not needed
    model, _ = helpers.train(target, epochs=3, seed=int("seed" in variant))
    pairs = list(validation_blends(n=120))
    systems = {variant: functools.partial(helpers.denoise, model=model)}
    tables = {
        "as it is": helpers.evaluate(pairs, systems),
        "telephone": helpers.evaluate([(name, *map(helpers.telephone, pair)) for name, *pair in pairs], systems),
    }
    scores = pd.concat(tables, names=["condition"]).reset_index(level=0)
    scores.to_csv(target.with_suffix(".csv"), index=False)


def compare(scores):
    """A row per variant, condition and measure: the mean over the blends, how far it lies from that of "all of it", and
    half the width of the 95 % interval of this difference, taken blend by blend."""
    rows = []
    for (condition, variant), table in scores.groupby(["condition", "signal"], sort=False):
        whole = scores[(scores["condition"] == condition) & (scores["signal"] == "all of it")].set_index("name")
        for measure in helpers.MEASURES:
            difference = table.set_index("name")[measure] - whole[measure]
            half_width = helpers.margin_of_error(difference)
            rows.append((variant, condition, measure, table[measure].mean(), difference.mean(), half_width))
    return pd.DataFrame(rows, columns=["variant", "condition", "measure", "mean", "difference", "half_width"])


def trained(variant, folder):
    """The scores of a variant, which is trained by a process of its own."""
    target = folder / f"{variant.replace(' ', '-')}.keras"
    process = multiprocessing.get_context("spawn").Process(target=train, args=(variant, target))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the training of {variant!r} failed")
    return pd.read_csv(target.with_suffix(".csv"))


def main(folder):
    scores = pd.read_csv(BLENDS) if BLENDS.exists() else pd.DataFrame(columns=["signal"])
    for variant in VARIANTS:
        if variant not in scores["signal"].to_list():
            scores = pd.concat([scores, trained(variant, folder)])
            scores = scores.drop_duplicates(["condition", "signal", "name"])  # each has the noisy ones
            scores.to_csv(BLENDS, index=False, float_format="%.4f")
            compare(scores).to_csv(TABLE, index=False, float_format="%.4f")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
