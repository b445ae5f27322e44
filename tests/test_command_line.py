"""Tests of the command line."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import SAMPLE, contents, decibel, noise, visible, write

import helpers


@pytest.fixture(scope="session")
def small_model(small_unet, tmp_path_factory):
    """The file of a small untrained U-Net."""
    path = tmp_path_factory.mktemp("model") / "small.keras"
    small_unet().save(path)
    return path


def run_main(*arguments):
    """Exit status of the command line."""
    try:
        return helpers.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def test_main_denoises_a_file(tmp_path, small_model, capsys):
    source, target = write(tmp_path / "a b.wav"), tmp_path / "out/b.flac"
    assert run_main("denoise", source, target, "--model", small_model) == 0
    assert sf.info(target).frames == 16000
    assert capsys.readouterr().err == ""


def test_main_mixes(tmp_path, fixed_model):
    source, target = write(tmp_path / "a.wav", subtype="FLOAT"), tmp_path / "b.wav"
    assert run_main("denoise", source, target, "--model", fixed_model, "--mix", 0.5) == 0
    assert decibel(sf.read(target)[0] - 0.75 * sf.read(source)[0], sf.read(source)[0]) < -60
    assert run_main("denoise", source, target, "--model", fixed_model, "--mix", 0) == 0
    assert np.array_equal(sf.read(target)[0], sf.read(source)[0])


def test_command_line_warns_in_single_lines(tmp_path, fixed_model):
    write(tmp_path / "a.wav", 4 * noise(2, 16000, level=1), 16000, subtype="FLOAT")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "a.wav", "b.flac", "--model", fixed_model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: above 4 kHz") and second.startswith("warning: b.flac: attenuated by")


def test_main_denoises_a_folder(tmp_path, fixed_model, capsys):
    write(tmp_path / "calls/a.wav")
    arguments = ("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model)
    assert run_main(*arguments) == 0
    assert capsys.readouterr() == ("1 done, 0 skipped, 0 failed\n", "")
    (tmp_path / "calls/bad.wav").write_text("This is no audio.\n")
    assert run_main(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == "0 done, 1 skipped, 1 failed\n"
    assert len([line for line in err.splitlines() if line.startswith("error:") and "bad.wav" in line]) == 1
    assert run_main(*arguments, "--overwrite") == 1
    assert capsys.readouterr().out == "1 done, 0 skipped, 1 failed\n"


def test_main_denoises_a_folder_on_a_cluster(tmp_path, client, fixed_model, capsys):
    for name in ("a.wav", "deep/b.wav", "cut.wav"):
        write(tmp_path / "calls" / name)
    os.truncate(tmp_path / "calls/cut.wav", 2000)
    (tmp_path / "calls/bad.wav").write_text("This is no audio.\n")
    arguments = ("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model)
    assert run_main(*arguments, "--scheduler", client.scheduler.address) == 1
    out, err = capsys.readouterr()
    assert out == "3 done, 0 skipped, 1 failed\n"
    assert [line for line in err.splitlines() if line.startswith("error:") and "bad.wav" in line]
    assert [line for line in err.splitlines() if line.startswith("warning:") and "cut.wav" in line]
    assert visible(tmp_path / "out") == ["a.wav", "cut.wav", "deep/b.wav"]


def test_main_denoises_a_folder_by_two_processes(tmp_path, fixed_model):
    for name in "abc":
        write(tmp_path / f"calls/{name}.wav")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "calls", "out", "--model", fixed_model]
    done = subprocess.run([*command, "--processes", "2"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 done, 0 skipped, 0 failed\n"), done.stderr
    assert visible(tmp_path / "out") == ["a.wav", "b.wav", "c.wav"]


def test_main_exports(tmp_path, small_model, monkeypatch):
    exported = []
    monkeypatch.setattr(helpers, "export", lambda model, target: exported.append((model, target)))
    assert run_main("export", small_model, tmp_path / "unet.tflite") == 0
    assert exported == [(small_model, tmp_path / "unet.tflite")]


def test_main_evaluates(tmp_path, speech, small_model, capsys):
    write(tmp_path / "clean/a.wav", speech)
    write(tmp_path / "noisy/a.wav", helpers.blend(speech, noise(len(speech)), 5)[1])
    arguments = ("evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy", "--csv", tmp_path / "a.csv")
    assert run_main(*arguments, "--model", small_model) == 0
    assert "si_sdr" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "a.csv")["signal"].to_list() == ["noisy", "enhanced"]


def test_main_trains(small_training, small_model, tmp_path):
    options = ("--epochs", 1, "--steps-per-epoch", 1, "--corpus", SAMPLE, "--start", small_model)
    assert run_main("train", "--output", tmp_path / "unet.keras", *options) == 0
    assert set(contents(tmp_path)) == {"unet.keras", "unet.json", "unet.onnx"}
    assert json.loads((tmp_path / "unet.json").read_text())["start"] == {"file": "small.keras"}


def single_error(err):
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n") and "Errno" not in err
    return err


def test_main_refuses_a_bad_file(bad_file, fixed_model, capsys):
    before = contents(bad_file.parent)
    assert run_main("denoise", bad_file, bad_file.with_name("out.wav"), "--model", fixed_model) == 2
    expected = "no sound files in" if bad_file.is_dir() else bad_file.name
    assert expected in single_error(capsys.readouterr().err)
    assert contents(bad_file.parent) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoise", "a.wav", "b.wav", "--loud"], "--loud"),
        (["denoise", "a.wav"], "target"),
        (["enhance"], "enhance"),
        ([], "COMMAND"),
        (["denoise", "a.wav", "b.wav", "--model", "missing.keras"], "missing.keras"),
        (["denoise", "a.wav", "b.wav", "--model", "a.wav"], "a.wav is not a model"),
        (["denoise", "calls", "out", "--model", "missing.keras"], "missing.keras"),
        (["denoise", "a.wav", "b.doc"], "b.doc"),
        (["denoise", "a.wav", "a.wav"], "a.wav is the recording itself"),
        (["denoise", "a.wav", "calls"], "calls is a folder: name a file in it"),
        (["denoise", "a.wav", "b.wav", "--mix", "1.5"], "a mix of 1.5 is not possible"),
        (["denoise", "calls", "out", "--mix", "-1"], "a mix of -1.0 is not possible"),
        (["denoise", "calls", "calls/out"], "name a target folder elsewhere"),
        (["denoise", "empty", "out"], "empty: they should end in one of .wav"),
        (["export", "missing.keras", "unet.onnx"], "missing.keras"),
        (["export", "a.wav", "unet.doc"], "unet.doc cannot be written"),
        (["evaluate", "--clean", "calls", "--noisy", "empty"], "no sound files in empty"),
        (["evaluate", "--clean", "empty", "--noisy", "calls"], "a.wav does not exist"),
        (["evaluate", "--clean", "calls", "--noisy", "calls", "--model", "missing.keras"], "missing.keras"),
        (["train", "--corpus", "empty"], "no speech in empty"),
        (["train", "--corpus", "only speech"], "no noise in only speech"),
        (["train", "--corpus", "corpus", "--output", "unet"], "keras"),
        (["train", "--corpus", "corpus", "--epochs", "many"], "many"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--epochs", "0"], "epochs"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--steps-per-epoch", "-1"], "steps"),
        (["train", "--corpus", "corpus", "--output", "unet.keras", "--start", "missing.keras"], "missing.keras"),
    ],
)
def test_main_errors(arguments, message, corpus, no_training, monkeypatch, capsys):
    folder = corpus.parent
    monkeypatch.chdir(folder)
    write(folder / "a.wav")
    write(folder / "calls/a.wav")
    (folder / "empty").mkdir()
    shutil.copytree(corpus / "LibriSpeech", folder / "only speech/LibriSpeech")
    before = contents(folder)
    assert run_main(*arguments) == 2
    assert message in single_error(capsys.readouterr().err)
    assert contents(folder) == before


def test_newlines_in_names_stay_in_one_line(tmp_path, fixed_model, capsys):
    for name in ("a\nb.wav", "calls/a\nb.wav"):
        write(tmp_path / name).write_text("This is no audio.\n")
    assert run_main("denoise", tmp_path / "a\nb.wav", tmp_path / "b.wav", "--model", fixed_model) == 2
    single_error(capsys.readouterr().err)
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("b.wav")] == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["denoise", "missing.wav", "b.wav"], 2), (["--help"], 0), (["denoise", "a.wav", "b.wav"], 0)],
)
def test_command_line_from_another_folder(tmp_path, fixed_model, arguments, status):
    write(tmp_path / "a.wav")
    command = [sys.executable, helpers.ROOT / "helpers.py", *arguments]
    if "a.wav" in arguments:
        command += ["--model", fixed_model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    if status == 2:
        assert single_error(done.stderr) == "error: missing.wav does not exist: check the path\n"
    else:
        assert done.stderr == ""
    assert (tmp_path / "b.wav").exists() == ("a.wav" in arguments)
