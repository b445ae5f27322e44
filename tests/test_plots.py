"""Tests of plots."""

import io

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from conftest import noise

import helpers


@pytest.mark.parametrize(
    ("plot", "x_label", "y_label"),
    [
        (lambda ax: helpers.plot_waveform(noise(8064), "$1_$2", ax), "time (s)", "amplitude"),
        (lambda ax: helpers.plot_spectrogram(helpers.stft(noise(8064)), "$1_$2", ax), "time (s)", "frequency (Hz)"),
        (lambda ax: helpers.plot_phase(helpers.stft(noise(8064)), "$1_$2", ax), "time (s)", "frequency (Hz)"),
        (
            lambda ax: helpers.plot_history({"epoch": [0, 1], "loss": [2, 1], "val_loss": [3, 2]}, "$1_$2", ax),
            "epoch",
            "loss",
        ),
    ],
)
def test_plots(plot, x_label, y_label):
    import matplotlib.pyplot as plt

    for given_axes in (None, plt.subplots()[1]):
        ax = plot(given_axes)
        assert given_axes in (None, ax)
        ax.figure.canvas.draw()
        assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("$1_$2", x_label, y_label)  # no formula


def test_waveform_of_whole_numbers_is_drawn_as_it_is():
    assert helpers.plot_waveform([0, 1, -1, 0]).lines[0].get_ydata().tolist() == [0, 1, -1, 0]


def test_plots_tell_the_unit_of_colours():
    for plot, label in ((helpers.plot_spectrogram, "level (dB)"), (helpers.plot_phase, "phase (rad)")):
        bar = plot(helpers.stft(noise(8064))).figure.axes[1]
        assert label in (bar.get_ylabel(), bar.get_xlabel())


def test_plot_comparison_shares_one_scale():
    spectrograms = {name: helpers.stft(noise(8064, level=level)) for name, level in (("quiet", 0.001), ("loud", 1))}
    axes = helpers.plot_comparison(helpers.plot_spectrogram, spectrograms)
    assert [ax.get_title() for ax in axes] == ["quiet", "loud"]
    assert len({ax.collections[0].get_clim() for ax in axes}) == 1


def test_plot_scores():
    scores = {"pesq": np.nan, "stoi": 0.5, "estoi": 0.4, "si_sdr": 3.0}
    rows = [{"snr_db": snr, "signal": s, **scores} for snr in (-5, 0, 5) for s in ("noisy", "enhanced") for _ in "ab"]
    axes = helpers.plot_scores(pd.DataFrame(rows))
    assert [ax.get_ylabel() for ax in axes] == ["STOI (0 to 1)", "ESTOI (0 to 1)", "SI-SDR (dB)"]
    assert {ax.get_xlabel() for ax in axes} == {"SNR of the input (dB)"}


def test_show_goes_on_where_the_course_is_read_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    helpers.show(helpers.plot_waveform(noise(8064)), "A second of noise.", "noise.png")
    assert "images/noise.png stays as it was" in capsys.readouterr().out


def test_figures_keep_their_colours(tmp_path, monkeypatch):
    """The palette of a small file must hold the rare colours as well, such as the bright dots of a spectrogram."""
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    (tmp_path / "images").mkdir()
    spectrogram = np.zeros((128, 128), complex)
    spectrogram[64, ::32] = np.geomspace(0.01, 10, 4)
    ax = helpers.plot_spectrogram(spectrogram)
    for _ in range(2):  # the layout settles with the second drawing
        drawn = io.BytesIO()
        ax.figure.savefig(drawn, dpi=100)
    helpers.show(ax, "Four dots.", "dots.png")
    images = [PIL.Image.open(file, formats=["PNG"]).convert("RGB") for file in (drawn, tmp_path / "images/dots.png")]
    before, after = (np.asarray(image, dtype=int) for image in images)
    assert np.abs(before - after).max() <= 0.02 * 255
