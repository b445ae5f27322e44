"""data/train_on_gpu.py has the blends and the network of helpers.py: checked where JAX is installed."""

import subprocess
import sys

import pytest

import helpers

PROGRAM = """
import numpy as np, helpers
from data import train_on_gpu  # makes JAX the backend of Keras, in this process alone

speech, noise = helpers.list_speech(), helpers.list_noise()
source = helpers.BlendedSpeech(speech, noise, n_frames=64, seed=3)
for expected, found in zip(source[5], train_on_gpu.spectra(*train_on_gpu.blends(source, 5)), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-3)
inputs = np.random.default_rng(0).standard_normal((2, 16, 12, 16)).astype(np.float32)
for axis in (1, 2):
    layer = helpers._along()(8, axis)
    expected = layer(inputs)
    np.testing.assert_allclose(train_on_gpu.both_directions(layer, inputs), expected, atol=1e-5)
"""


def test_blends_and_recurrent_layers_are_those_of_the_module():
    pytest.importorskip("jax")
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=helpers.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("options", ["--output unet.npz", "--output unet.keras --batch-size 4"])
def test_arguments_that_fail_do_so_before_the_training(options):
    command = [sys.executable, "-m", "data.train_on_gpu", *options.split()]
    run = subprocess.run(command, cwd=helpers.ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and options.split()[-1] in run.stderr
