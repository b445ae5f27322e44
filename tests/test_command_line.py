"""Tests of the command line."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from unittest.mock import Mock

import distributed
import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile as sf
from conftest import SAMPLE, Fixed, contents, decibel, noise, run_python, run_script, visible, write

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


@pytest.mark.parametrize("setting", ["ignore", "error::UserWarning"])
def test_warnings_are_told_whatever_the_environment_says(tmp_path, fixed_model, setting):
    source = write(tmp_path / "a.wav")
    source.write_bytes(source.read_bytes()[:20000])
    environment = os.environ | {"PYTHONWARNINGS": setting}
    done = run_script(tmp_path, "denoise", "a.wav", "b.wav", "--model", fixed_model, env=environment)
    assert done.returncode == 0 and done.stderr.startswith("warning: a.wav seems to have been cut")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_full_disk_of_the_log_does_not_hide_the_summary(tmp_path, calls, fixed_model):
    (calls / "b.wav").write_bytes(b"no sound")
    with open("/dev/full", "wb") as full:
        done = run_script(tmp_path, "denoise", "calls", "out", "--model", fixed_model, stderr=full)
    assert done.returncode == 1 and done.stdout == "1 done, 0 skipped, 1 failed\n"


def test_command_line_warns_in_single_lines(tmp_path, fixed_model):
    write(tmp_path / "a.wav", 4 * noise(2, 16000, level=1), 16000, subtype="FLOAT")
    done = run_script(tmp_path, "denoise", "a.wav", "b.flac", "--model", fixed_model)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: above 4 kHz") and second.startswith("warning: b.flac: attenuated by")


def test_main_denoises_a_folder(tmp_path, calls, fixed_model, capsys):
    arguments = ("denoise", calls, tmp_path / "out", "--model", fixed_model)
    assert run_main(*arguments) == 0
    assert capsys.readouterr() == ("1 done, 0 skipped, 0 failed\n", "")
    (calls / "bad.wav").write_text("This is no audio.\n")
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


def test_processes_get_all_options(tmp_path, monkeypatch):
    told, table = {}, pd.DataFrame(columns=["path", "status", "error", "warning"], dtype=str)
    monkeypatch.setattr(helpers, "_cluster", lambda *_: contextlib.nullcontext("client"))
    monkeypatch.setattr(helpers, "denoise_folder", lambda *_, **options: told.update(options) or table)
    options = ["--model", "a.onnx", "--overwrite", "--mix", 0.5, "--raw", "alaw", "--rate", 6000]
    assert run_main("denoise", tmp_path, tmp_path / "out", "--processes", 2, *options) == 0
    model = Path("a.onnx")
    assert told == {"model": model, "overwrite": True, "mix": 0.5, "raw": "alaw", "rate": 6000, "client": "client"}


def test_main_denoises_several_sources_into_a_folder(tmp_path, fixed_model, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "calls/c.wav"):
        write(tmp_path / name)
    (tmp_path / "calls/notes.TXT").touch()
    (tmp_path / "calls/.DS_Store").touch()
    assert run_main("denoise", "a.wav", "b.wav", "calls", "results/", "--model", fixed_model) == 0
    assert capsys.readouterr().out == "3 done, 0 skipped, 0 failed\nleft out: 1 hidden, 1 .txt\n"
    assert run_main("denoise", "b.wav", "results", "--model", fixed_model) == 0
    assert capsys.readouterr().out == "0 done, 1 skipped, 0 failed\n"
    assert visible(tmp_path / "results") == ["a.wav", "b.wav", "calls/c.wav"]


def still_running(group):
    """The processes of a group that are alive."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", helpers.STOPS)
def test_interrupted_run_leaves_nothing(tmp_path, number, processes):
    for name in "abc":
        write(tmp_path / f"calls/{name}.wav", np.tile(noise(60 * 8000), 15))
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    stale = tmp_path / f"out/.{32 * '0'}.part.wav"
    stale.write_bytes(b"half a result")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "calls", "out", "--processes", str(processes)]
    options = {"cwd": tmp_path, "env": os.environ | {"TMPDIR": str(tmp_path / "temporary")}, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        while stale.exists() or len(list((tmp_path / "out").iterdir())) < processes:
            assert process.poll() is None
            time.sleep(0.01)
        if number != signal.SIGTERM:  # a terminal sends it to all
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    assert single_error(err).startswith("error: interrupted")
    assert contents(tmp_path / "out") == contents(tmp_path / "temporary") == {}
    deadline = time.monotonic() + 10
    while still_running(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert still_running(process.pid) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
def test_run_under_nohup_goes_on_without_its_terminal():
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    assert run_python(ignored + "import helpers; print(signal.SIGHUP in helpers.STOPS)") == "False\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_is_imported(tmp_path, number):
    (tmp_path / "lazy_loader.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, helpers.ROOT / "helpers.py", "denoise", "a.wav", "b.wav"]
    options = {"env": os.environ | {"PYTHONPATH": str(tmp_path)}, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert single_error(process.communicate(timeout=30)[1]) == "error: interrupted\n"
    assert process.returncode == 128 + number


def test_interrupt_that_a_library_makes_another_error_of(tmp_path, monkeypatch, capsys):
    def import_something(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("it can't be loaded") from None

    monkeypatch.setattr(helpers, "denoise_file", import_something)
    assert run_main("denoise", "a.wav", tmp_path / "b.wav") == 128 + signal.SIGTERM
    assert single_error(capsys.readouterr().err).startswith("error: interrupted")


def test_second_signal_does_not_disturb_that_what_is_begun_is_removed(tmp_path, monkeypatch):
    removed = []

    def denoise_file(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            removed.append("a part")

    monkeypatch.setattr(helpers, "denoise_file", denoise_file)
    assert run_main("denoise", "a.wav", tmp_path / "b.wav") == 128 + signal.SIGINT and removed


def test_run_can_be_stopped_though_the_first_signal_was_swallowed(tmp_path, monkeypatch):
    def denoise_file(*_, **__):
        now = time.monotonic()
        for later in (0, 60):
            monkeypatch.setattr(time, "monotonic", Mock(return_value=now + later))
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:  # as Python does in a callback of the garbage collector
                if later:
                    raise

    monkeypatch.setattr(helpers, "denoise_file", denoise_file)
    assert run_main("denoise", "a.wav", tmp_path / "b.wav") == 128 + signal.SIGINT


def test_a_single_file_clears_what_a_killed_run_left(tmp_path, fixed_model):
    stale = tmp_path / f".{32 * 'f'}.part.wav"
    stale.write_bytes(b"half a result")
    assert run_main("denoise", write(tmp_path / "a.wav"), tmp_path / "b.wav", "--model", fixed_model) == 0
    assert set(contents(tmp_path)) == {"a.wav", "b.wav"}


@pytest.fixture
def empty_home(tmp_path):
    """The environment of a user whose folders are empty, and these folders."""
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    for folder in folders.values():
        folder.mkdir()
    names = os.environ.keys() - {"ORT_DISABLE_TELEMETRY"}  # it is set in this process by now
    environment = {name: os.environ[name] for name in names} | {name: str(path) for name, path in folders.items()}
    return environment, folders.values()


WATCHER = """
import os, sys

def watch(event, arguments, seen=os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
    if event.startswith("socket.") and event != "socket.__new__":
        told = [argument for argument in arguments if isinstance(argument, (str, bytes, tuple))]
        os.write(seen, f"{event} {told}\\n".encode())

sys.addaudithook(watch)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_leaves_the_machine(tmp_path, empty_home, processes):
    """No name is looked up, no other machine is called or served, and nothing is left in the user's folders."""
    environment, folders = empty_home
    for name in ("a.wav", "b.mp3", "c.opus"):
        write(tmp_path / "calls" / name, rate=48000, format=helpers.FORMATS[name[1:]])
    (tmp_path / "sitecustomize.py").write_text(WATCHER)
    environment |= {"PYTHONPATH": str(tmp_path), "SEEN": str(tmp_path / "seen")}
    done = run_script(tmp_path, "denoise", "calls", "out", "--processes", processes, env=environment)
    assert (done.returncode, done.stdout) == (0, "3 done, 0 skipped, 0 failed\n"), done.stderr
    assert visible(tmp_path / "out") == ["a.wav", "b.mp3", "c.opus"]
    assert [path for folder in folders for path in folder.rglob("*")] == []
    seen = (tmp_path / "seen").read_text().splitlines()
    assert [event for event in seen if processes == 1 or "'127.0.0.1'" not in event] == []


def test_no_socket_is_opened(tmp_path, empty_home):
    """The audit of Python does not see what libraries in C do."""
    trace = ["strace", "-f", "-qq", "-e", "trace=network", "-e", "signal=none", "-o"]
    try:
        subprocess.run([*trace, tmp_path / "try", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user can't trace system calls")
    write(tmp_path / "a.wav", rate=16000)
    command = [*trace, tmp_path / "calls", sys.executable, helpers.ROOT / "helpers.py", "denoise", "a.wav", "b.wav"]
    subprocess.run(command, cwd=tmp_path, env=empty_home[0], check=True, capture_output=True)
    assert (tmp_path / "b.wav").exists() and (tmp_path / "calls").read_text() == ""


def test_main_exports(tmp_path, small_model, monkeypatch):
    exported = []
    monkeypatch.setattr(helpers, "export", lambda model, target: exported.append((model, target)))
    assert run_main("export", small_model, tmp_path / "unet.tflite") == 0
    assert exported == [(small_model, tmp_path / "unet.tflite")]


def test_main_evaluates(tmp_path, speech, small_model, capsys):
    write(tmp_path / "clean/a.wav", speech)
    write(tmp_path / "noisy/a.wav", helpers.blend(speech, noise(len(speech)), 5)[1])
    (tmp_path / "noisy/._a.wav").touch()  # as macOS leaves it
    (tmp_path / "noisy").chmod(0o700)
    arguments = ("evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy", "--csv", tmp_path / "a.csv")
    (tmp_path / f".{32 * 'a'}.part.csv").write_text("half a table")
    assert run_main(*arguments, "--model", small_model) == 0
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "clean", "noisy"]
    assert "si_sdr" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "a.csv")["signal"].to_list() == ["noisy", "enhanced"]
    assert (tmp_path / "a.csv").stat().st_mode & 0o077 == 0  # names are for those who can list both folders
    write(tmp_path / "clean/b.wav", 0 * speech)
    write(tmp_path / "noisy/b.wav", speech)
    with pytest.warns(UserWarning, match=r"1 files have measures that .* can't be told, such as b"):
        run_main(*arguments, "--model", small_model)


def test_main_evaluates_to_a_drive_whose_rights_are_those_of_its_mount(tmp_path, speech, fixed_model, monkeypatch):
    for name in ("clean", "noisy"):
        write(tmp_path / name / "a.wav", speech)
    monkeypatch.setattr(Path, "chmod", Mock(side_effect=PermissionError))
    arguments = ("evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy", "--csv", tmp_path / "a.csv")
    assert run_main(*arguments, "--model", fixed_model) == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 2


def test_main_evaluates_what_is_clean_already(tmp_path, speech, fixed_model, capsys):
    for name, level in (("a.wav", 0.0), ("b.wav", 0.01)):
        write(tmp_path / "clean" / name, speech, subtype="FLOAT")
        write(tmp_path / "noisy" / name, speech + level * noise(len(speech)), subtype="FLOAT")
    arguments = ("evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy", "--model", fixed_model)
    with pytest.warns(UserWarning, match=r"1 files have measures that are infinite or .*, such as a\.wav"):
        assert run_main(*arguments) == 0
    assert "inf" not in capsys.readouterr().out


def test_main_evaluates_all_signals_on_the_same_files(tmp_path, monkeypatch, capsys):
    table = pd.DataFrame({"name": ["a.wav", "a.wav", "b.wav", "b.wav"], "signal": ["noisy", "enhanced"] * 2})
    table = table.assign(**{name: [np.inf, 53.0, 5.0, 18.0] for name in helpers.MEASURES})
    monkeypatch.setattr(helpers, "paired_files", lambda *_: [])
    monkeypatch.setattr(helpers, "evaluate", lambda *_: table)
    with pytest.warns(UserWarning, match=r"1 files have measures .*, such as a\.wav"):
        run_main("evaluate", "--clean", tmp_path, "--noisy", tmp_path, "--csv", tmp_path / "a.csv")
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[-2:]}
    assert rows == {"noisy": ["5.0"] * len(helpers.MEASURES), "enhanced": ["18.0"] * len(helpers.MEASURES)}
    assert np.isinf(pd.read_csv(tmp_path / "a.csv")["si_sdr"][0])


def test_main_prints_the_mean_of_each_measure(tmp_path, monkeypatch, capsys):
    scores = [dict.fromkeys(helpers.MEASURES, score) for score in (1.0, 4.0, 10.0)]
    monkeypatch.setattr(helpers, "paired_files", lambda *_: [])
    monkeypatch.setattr(helpers, "evaluate", lambda *_: pd.DataFrame(scores).assign(name="a.wav", signal="noisy"))
    assert run_main("evaluate", "--clean", tmp_path, "--noisy", tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["noisy", *["5.0"] * len(helpers.MEASURES)]


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
        (["denoise", "a.wav", "calls", "b.wav"], "b.wav is not a folder: name one"),
        (["denoise", "a.wav", "b.wav", "--mix", "1.5"], "a mix of 1.5 is not possible"),
        (["denoise", "calls", "out", "--mix", "-1"], "a mix of -1.0 is not possible"),
        (["denoise", "calls", "calls/out"], "name a target folder elsewhere"),
        (["denoise", "calls", "a.wav"], "a.wav is not a folder: name one"),
        (["denoise", "a.wav", ""], "a path is empty"),
        (["denoise", "", "out"], "a path is empty"),
        (["denoise", "calls", "out", "--processes", "-4"], "-4 is no number"),
        (["denoise", "empty", "out"], "empty: they should end in one of .wav"),
        (["export", "missing.keras", "unet.onnx"], "missing.keras"),
        (["export", "a.wav", "unet.doc"], "unet.doc cannot be written"),
        (["evaluate", "--clean", "calls", "--noisy", "empty"], "no sound files in empty"),
        (["evaluate", "--clean", "empty", "--noisy", "calls"], "a.wav does not exist"),
        (["evaluate", "--clean", "calls", "--noisy", "calls", "--csv", "empty"], "empty is a folder"),
        (["evaluate", "--clean", "calls", "--noisy", "calls", "--csv", "calls/a.wav"], "a.wav would be a recording"),
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


@pytest.mark.parametrize("age", [0, 3600])  # of what is in the way, in seconds, beside the source
@pytest.mark.parametrize(
    ("source", "target", "in_the_way", "status"),
    [
        ("a.wav", "b.wav", "b.wav", 2),  # a forgotten target
        ("one/a.wav", "two/a.wav", "two/a.wav", 2),  # as `*/a.wav` gives it
        ("one", "two", "two/a.wav", 1),
        ("one/a.wav", ".", "a.wav", 1),
        ("link.wav", "b.wav", "b.wav", 2),
    ],
)
def test_another_recording_is_replaced_only_by_overwrite(
    tmp_path, fixed_model, capsys, monkeypatch, source, target, in_the_way, status, age
):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "a.wav", tmp_path / "one/a.wav"):
        write(path)
    (tmp_path / "link.wav").symlink_to(tmp_path / "one/a.wav")
    other = write(tmp_path / in_the_way, noise(4000))
    os.utime(other, ns=(os.stat("one/a.wav").st_mtime_ns - age * 10**9,) * 2)
    before = other.read_bytes()
    command = ["denoise", source, target, "--model", fixed_model]
    if status == 2 or age:  # what bears its source's time is skipped by folders
        assert run_main(*command) == status
        assert f"{other.name} is not known to be a result of" in single_error(capsys.readouterr().err)
    else:
        assert run_main(*command) == 0 and "1 skipped" in capsys.readouterr().out
    assert other.read_bytes() == before
    assert run_main(*command, "--overwrite") == 0 and other.read_bytes() != before


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".caf"])
def test_result_is_replaced_by_another_one_of_its_source(tmp_path, fixed_model, ending):
    source, other = write(tmp_path / "monday/calls/a.wav"), write(tmp_path / "tuesday/calls/a.wav")
    for mix in (0.5, 1):
        assert run_main("denoise", source, tmp_path / f"c{ending}", "--model", fixed_model, "--mix", mix) == 0
    assert run_main("denoise", other, tmp_path / f"c{ending}", "--model", fixed_model) == 2


def test_mark_of_a_result_of_a_result(tmp_path, fixed_model):
    write(tmp_path / "a.wav")
    runs = ("a.wav", "b.mp3", 0), ("b.mp3", "c.mp3", 0), ("b.mp3", "c.mp3", 0), ("a.wav", "c.mp3", 2)
    for source, target, status in runs:
        assert run_main("denoise", tmp_path / source, tmp_path / target, "--model", fixed_model) == status


def test_file_that_comes_while_its_place_is_written_to_is_kept(tmp_path, monkeypatch):
    source, target = write(tmp_path / "a.wav"), tmp_path / "b.wav"
    monkeypatch.setattr(helpers, "_check_written", lambda *_: write(target, noise(99)))
    with pytest.raises(ValueError, match="not known to be a result"):
        helpers.denoise_file(source, target, Fixed(0))
    assert sf.info(target).frames == 99 and visible(tmp_path) == ["a.wav", "b.wav"]


def test_link_that_leads_nowhere_is_not_replaced(tmp_path):
    (tmp_path / "b.wav").symlink_to("drive that is not there/b.wav")
    with pytest.raises(ValueError, match="not known to be a result"):
        helpers.denoise_file(write(tmp_path / "a.wav"), tmp_path / "b.wav", Fixed(0))
    assert (tmp_path / "b.wav").is_symlink()


def test_faults_are_told_also_by_a_run_that_is_interrupted(tmp_path, capsys, monkeypatch):
    cut = write(tmp_path / "calls/a.wav")
    cut.write_bytes(cut.read_bytes()[:-8000])
    write(tmp_path / "calls/b.wav")

    def predict_on_batch(model, inputs):
        if visible(tmp_path / "out"):
            signal.raise_signal(signal.SIGTERM)
        return inputs

    monkeypatch.setattr(helpers.OnnxModel, "predict_on_batch", predict_on_batch)
    with pytest.warns(UserWarning, match="a.wav seems to have been cut"):
        assert run_main("denoise", tmp_path / "calls", tmp_path / "out") == 128 + signal.SIGTERM
    assert single_error(capsys.readouterr().err).startswith("error: interrupted")
    assert visible(tmp_path / "out") == ["a.wav"]


def test_cluster_without_workers_is_told():
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.warns(UserWarning, match="has no workers: it waits for some"),
        helpers._cluster(1, cluster.scheduler_address),
    ):
        pass


def test_processes_run_nothing_that_lies_in_the_current_folder(tmp_path, calls, fixed_model):
    for name in ("signal", "struct", "threading", "subprocess", "warnings"):
        (tmp_path / f"{name}.py").write_text("open('it ran', 'w')")
    for option in ("-P", "-I", "-B"):
        command = [sys.executable, option, helpers.ROOT / "helpers.py", "denoise", "--processes", "2"]
        command += ["--model", fixed_model, "calls", f"out{option}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert visible(tmp_path / f"out{option}") == ["a.wav"]
    assert not (tmp_path / "it ran").exists()


def test_processes_that_cannot_be_started_are_told(tmp_path, calls, monkeypatch, capsys):
    def fail(**_):
        try:
            raise OSError(30, "Read-only file system")
        except OSError as error:
            raise RuntimeError("Nanny failed to start.") from error

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    assert run_main("denoise", "--processes", 2, calls, tmp_path / "out") == 2
    error = "error: the processes can't be started ([Errno 30] Read-only file system): do without --processes\n"
    assert capsys.readouterr().err == error


def test_lack_of_memory_is_not_blamed_on_the_recording(tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setattr(sf.SoundFile, "read", Mock(side_effect=MemoryError("Unable to allocate 19.8 MiB")))
    lack = "there is not enough memory: raise its limit, or denoise fewer files at once\n"
    assert run_main("denoise", calls / "a.wav", tmp_path / "a.wav") == 2
    assert capsys.readouterr().err == f"error: {lack}"
    assert run_main("denoise", calls, tmp_path / "out") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'calls/a.wav'}: {lack}"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_error_that_cannot_be_told_keeps_its_exit_status(tmp_path, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run_main("denoise", tmp_path / "a.wav", tmp_path / "b.wav") == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def client_of(future):
    """A stand-in for a client of a cluster, all of whose futures are of one class."""
    return types.SimpleNamespace(submit=lambda *_, **__: future())


def test_files_of_a_cluster_that_is_lost_are_reported(tmp_path, calls, monkeypatch):
    class Future:
        status = "cancelled"

    monkeypatch.setattr(distributed, "as_completed", list)
    table = helpers.denoise_folder(calls, tmp_path / "out", client=client_of(Future))
    assert table["status"].to_list() == ["failed"] and "a.wav: the cluster was lost" in table["error"][0]


def test_file_whose_result_a_cluster_lost_is_done_again(tmp_path, calls, monkeypatch):
    """As when the worker dies that holds the result."""

    class Future:
        status = "lost"

        def result(self):
            return "", ""

    class Completed(list):
        def add(self, future):
            future.status = "finished"
            self.append(future)

    monkeypatch.setattr(distributed, "as_completed", Completed)
    table = helpers.denoise_folder(calls, tmp_path / "out", client=client_of(Future))
    assert table["status"].to_list() == ["done"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipe_is_no_target(tmp_path, fixed_model):
    os.mkfifo(tmp_path / "p.wav")
    assert run_main("denoise", write(tmp_path / "a.wav"), tmp_path / "p.wav", "--model", fixed_model) == 2


def test_other_users_have_no_access_to_the_workers():
    with helpers._cluster(1, None) as client:
        address, pages = client.scheduler.address, client.scheduler_info()["services"]["dashboard"]
        with pytest.raises(OSError, match="tcp"):
            distributed.Client(address.replace("tls", "tcp"), timeout=2)
        [worker] = client.scheduler_info()["workers"].values()
        for port in (pages, *worker["services"].values()):
            for page in ("info/main/workers.html", "json/index.html", "status"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell is needed")
@pytest.mark.parametrize("arguments", ["calls/a.wav out/a.wav", "calls out --processes 2"])
def test_closed_standard_error(tmp_path, calls, fixed_model, arguments):
    command = f'"{sys.executable}" "{helpers.ROOT / "helpers.py"}" denoise {arguments} --model "{fixed_model}" 2>&-'
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    assert visible(tmp_path / "out") == ["a.wav"]


def test_folder_that_may_not_be_entered_stops_no_other(tmp_path, fixed_model, monkeypatch, capsys):
    def is_done(source, target):
        if "locked" in str(target):
            raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(helpers, "_is_done", is_done)  # root may enter all
    for name in ("locked/a.wav", "open/b.wav"):
        write(tmp_path / "calls" / name)
    assert run_main("denoise", tmp_path / "calls", tmp_path / "out", "--model", fixed_model) == 1
    out, err = capsys.readouterr()
    assert out == "1 done, 0 skipped, 1 failed\n" and "Permission denied" in single_error(err)


def test_endings_of_what_is_left_out_stay_in_one_line(tmp_path, calls, fixed_model, capsys):
    (calls / "b.x\ny").touch()
    assert run_main("denoise", calls, tmp_path / "out", "--model", fixed_model) == 0
    assert capsys.readouterr().out.splitlines()[1] == "left out: 1 .x\\ny"


def test_main_on_a_console_that_lacks_a_letter(tmp_path, calls, monkeypatch, fixed_model):
    (calls / "12.05. \u0430\u043d\u043d\u0430").touch()
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "cp1252"))
    assert run_main("denoise", calls, tmp_path / "out", "--model", fixed_model) == 0
    assert shown.getvalue().splitlines()[-1] == rb"left out: 1 . \u0430\u043d\u043d\u0430"


def test_newlines_in_names_stay_in_one_line(tmp_path, fixed_model, capsys):
    (tmp_path / "a\nb.wav").write_text("This is no audio.\n")
    assert run_main("denoise", tmp_path / "a\nb.wav", tmp_path / "b.wav", "--model", fixed_model) == 2
    single_error(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["denoise", "missing.wav", "b.wav"], 2), (["--help"], 0), (["denoise", "a.wav", "b.wav"], 0)],
)
def test_command_line_from_another_folder(tmp_path, fixed_model, arguments, status):
    write(tmp_path / "a.wav")
    done = run_script(tmp_path, *arguments, *(["--model", fixed_model] if "a.wav" in arguments else []))
    assert done.returncode == status
    if status == 2:
        assert single_error(done.stderr) == "error: missing.wav does not exist: check the path\n"
    else:
        assert done.stderr == ""
    assert (tmp_path / "b.wav").exists() == ("a.wav" in arguments)
