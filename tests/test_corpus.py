"""Tests of the corpus and audio files."""

import contextlib
import errno
import functools
import hashlib
import http.server
import io
import os
import socket
import struct
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile as sf
from conftest import FORMATS, SAMPLE, contents, decibel, noise, piped, run_python, tone, visible, write, write_format

import helpers


def test_constants():
    assert (helpers.SAMPLE_RATE, helpers.MIN_DURATION, helpers.N_SAMPLES) == (8000, 1.0, 50)
    assert (helpers.HOP_LENGTH_FRAME, helpers.HOP_LENGTH_FRAME_NOISE) == (8064, 5000)
    assert (helpers.N_FFT, helpers.HOP_LENGTH_FFT) == (255, 63)
    assert (helpers.ROOT / "helpers.py").is_file()


def test_find_corpus_precedence(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    assert helpers.find_corpus() == tmp_path / "data" / "sample"
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    write(tmp_path / "data/corpus/LibriSpeech/mini/20/7/a.flac")
    assert helpers.find_corpus() == tmp_path / "data" / "corpus"
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("SPEECH_CORPUS", str(tmp_path / "mine"))
    assert helpers.find_corpus() == tmp_path / "mine"
    monkeypatch.setenv("SPEECH_CORPUS", "mine")  # relative to the project, wherever the kernel starts
    assert helpers.find_corpus() == tmp_path / "mine"
    monkeypatch.setenv("SPEECH_CORPUS", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"SPEECH_CORPUS.*nowhere"):
        helpers.find_corpus()


def test_list_speech_of_the_sample():
    table = helpers.list_speech(SAMPLE)
    assert list(table) == ["path", "subset", "speaker", "chapter", "utterance", "split", "duration"]
    assert set(table["split"]) == {"train", "validation", "test"}
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    assert set(table[table["split"] == "test"]["speaker"] % 10) == {0}
    assert table["speaker"].nunique() >= 8
    assert table["duration"].sum() >= 6 * 60
    assert table["path"].map(lambda path: path.is_file()).all()


def test_list_noise_of_the_sample():
    table = helpers.list_noise(SAMPLE)
    assert list(table) == ["path", "category", "fold", "split", "duration"]
    clips = table[table["fold"] > 0]
    assert set(clips["fold"]) == {1, 2, 3, 4, 5}
    assert (clips.groupby("fold")["split"].nunique() == 1).all()
    assert set(clips[clips["split"] == "test"]["fold"]) == {1}
    assert clips["category"].nunique() >= 10
    assert table["duration"].sum() >= 6 * 60


def test_extra_noise_is_for_training(corpus):
    row = helpers.list_noise(corpus).set_index("category").loc["fan"]
    assert (row["path"].name, row["fold"], row["split"], row["duration"]) == ("hum.wav", 0, "train", 2.0)


def test_extra_speech_is_for_training(corpus):
    write(corpus / "speech/mine/10/a.ogg")
    write(corpus / "speech/mine/10/deep/b.wav")
    write(corpus / "speech/mine/c.wav")  # of nobody that is named
    write(corpus / "speech/d.wav")
    assert set(helpers.list_noise(corpus)["category"]) == {"rain", "fan"}
    extra = helpers.list_speech(corpus).query("chapter == 0").set_index("utterance")
    assert extra["speaker"].to_dict() == {"a": "mine/10", "b": "mine/10", "c": "mine/", "d": "/"}
    assert set(extra["split"]) == {"train"}


def test_rooms_are_no_noise(corpus):
    assert helpers.list_rooms(corpus) == []
    path = write(corpus / "rir/hall/a.flac", noise(400))
    assert helpers.list_rooms(corpus) == [path]
    assert set(helpers.list_noise(corpus)["category"]) == {"rain", "fan"}


def test_rooms_that_are_none_are_left_out(corpus):
    path = write(corpus / "rir/hall/a.flac", noise(400))
    (corpus / "rir/hall/._a.wav").write_bytes(b"what macOS leaves")
    (corpus / "rir/gone.wav").symlink_to("nowhere")
    write(corpus / "rir/silent.wav", np.zeros(400))
    sf.write(corpus / "rir/nan.wav", np.full(400, np.nan), 8000, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"(?s)3 rooms left out:.*gone\.wav.*nan\.wav.*silent\.wav"):
        assert helpers.list_rooms(corpus) == [path]


def test_file_beside_the_folders_of_a_corpus_is_no_folder(corpus, recwarn):
    (corpus / "README.md").write_text("what lies here")
    assert len(helpers.list_noise(corpus)) > 0
    assert not recwarn.list


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_noise_whose_name_is_not_utf_8_is_noise(corpus):
    write(corpus / "office/a.wav").rename(corpus / "office" / os.fsdecode(b"b\xe9.wav"))
    noises = helpers.list_noise(corpus)
    (path,) = noises[noises["category"] == "office"]["path"]
    assert helpers.random_crop(path, 100, np.random.default_rng(0)).shape == (100,)


def test_what_has_to_be_converted_first_is_told(corpus):
    (corpus / "office").mkdir()
    (corpus / "office/memo.m4a").write_bytes(b"of a phone")
    (corpus / "office/memo.ul").write_bytes(b"of an exchange")
    with pytest.warns(UserWarning, match=r"(?s)2 files.*memo\.m4a: convert it to wav.*memo\.ul: convert"):
        assert "office" not in set(helpers.list_noise(corpus)["category"])


def test_file_that_states_no_length_is_left_out(corpus):
    piped(corpus / "fan/piped.flac", noise(16000))
    with pytest.warns(UserWarning, match=r"piped\.flac: it states no length: convert it"):
        assert "piped.flac" not in {path.name for path in helpers.list_noise(corpus)["path"]}


def test_what_a_download_left_is_no_noise(corpus):
    for name in ("archives", "unpacking", ".unpacking-123"):
        write(corpus / name / "LibriSpeech/a.flac")
    write(corpus / ".Trash-0/a.wav")
    assert set(helpers.list_noise(corpus)["category"]) == {"rain", "fan"}


@pytest.mark.parametrize("fold", [1, 2])
def test_a_recording_that_is_held_out_is_not_trained_with(corpus, fold):
    """UrbanSound8K and ESC-50 name the recordings of Freesound that they were cut from."""
    (corpus / f"ESC-50/audio/{fold}-1-A-10.wav").rename(corpus / f"ESC-50/audio/{fold}-123-A-10.wav")
    meta = corpus / "ESC-50/meta/esc50.csv"
    meta.write_text(meta.read_text().replace(f"{fold}-1-A-10", f"{fold}-123-A-10"))
    for name in ("123-4-0-1", "124-4-0-1", "123", "123__someone__rain", f"{fold}-123-A-10", "line 123"):
        write(corpus / f"UrbanSound8K/audio/{name}.wav")
    extra = helpers.list_noise(corpus).query("category == 'UrbanSound8K'")
    assert [path.name for path in extra["path"]] == ["124-4-0-1.wav", "line 123.wav"]


def test_sounds_behind_links_are_found(corpus, tmp_path):
    write(tmp_path / "sets/voice/1/a.wav")
    write(tmp_path / "sets/room.wav", noise(400))
    for folder in ("speech", "rir", "city"):
        (corpus / folder).mkdir()
        (corpus / folder / "linked").symlink_to(tmp_path / "sets")
    (tmp_path / "sets/again").symlink_to(tmp_path / "sets")
    assert helpers.list_speech(corpus)["utterance"].to_list().count("a") == 1
    assert len(helpers.list_rooms(corpus)) == 2
    with pytest.warns(UserWarning, match=r"room\.wav: 0\.05 s is shorter"):
        assert "city" in set(helpers.list_noise(corpus)["category"])


def test_folders_of_sounds_that_cannot_be_read_are_told(corpus, locked):
    (corpus / "fan/locked").mkdir()
    with pytest.warns(UserWarning, match="locked: Permission denied"):
        helpers.list_noise(corpus)


def test_esc50_master_is_found(corpus):
    (corpus / "ESC-50").rename(corpus / "ESC-50-master")
    assert (helpers.list_noise(corpus)["category"] == "rain").sum() == 3


@pytest.mark.parametrize(
    "table",
    ["", "filename,target\n1-1-A-10.wav,1\n", 'filename,fold,category\n"', "\0\xff"]
    + [f"filename,fold,category\n1-1-A-10.wav,{fold},rain\n" for fold in ("", "one")],
)
def test_a_table_of_clips_that_is_none_is_named(corpus, table):
    (corpus / "ESC-50/meta/esc50.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(ValueError, match="is no table of clips"):
        helpers.list_noise(corpus)


def test_clips_need_not_be_named_as_those_of_esc50(corpus):
    (corpus / "ESC-50/audio/1-1-A-10.wav").rename(corpus / "ESC-50/audio/rain.wav")
    meta = corpus / "ESC-50/meta/esc50.csv"
    meta.write_text(meta.read_text().replace("1-1-A-10", "rain"))
    assert "rain.wav" in {path.name for path in helpers.list_noise(corpus)["path"]}


@pytest.mark.parametrize(
    ("list_files", "name"),
    [(helpers.list_speech, "LibriSpeech/mini/42/7/42-7-0001.flac"), (helpers.list_noise, "fan/more.wav")],
)
@pytest.mark.parametrize("content", ["short", "text"])
def test_what_is_left_out_is_named(corpus, list_files, name, content):
    n_files = len(list_files(corpus))
    if content == "short":
        write(corpus / name, noise(7999))
    else:
        (corpus / name).write_text("This is no audio.\n")
    with pytest.warns(UserWarning, match=name.split("/")[-1]):
        assert len(list_files(corpus)) == n_files


@pytest.mark.parametrize("name", ["", "12"])
def test_clip_without_a_name_is_left_out(corpus, name):
    meta = corpus / "ESC-50/meta/esc50.csv"
    meta.write_text(f"filename,fold,category\n{name},3,rain\n")
    with pytest.warns(UserWarning, match=f"audio/?{name}: "):
        assert set(helpers.list_noise(corpus)["category"]) == {"fan"}


def test_clip_that_is_gone_is_named(corpus):
    (corpus / "ESC-50/audio/1-1-A-10.wav").unlink()
    with pytest.warns(UserWarning, match="1-1-A-10.wav"):
        assert len(helpers.list_noise(corpus)) == 3


@pytest.mark.parametrize("list_files", [helpers.list_speech, helpers.list_noise])
def test_corpus_without_files(tmp_path, list_files):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=folder.name):
            list_files(folder)


@pytest.mark.parametrize(("ending", "subtype", "rate"), FORMATS)
def test_load_audio(tmp_path, ending, subtype, rate):
    signal = helpers.load_audio(write_format(tmp_path / f"a{ending}", subtype, rate))
    assert signal.dtype == np.float32
    assert signal.shape == pytest.approx((16000,), abs=320)  # GSM and MP3 hold whole blocks
    expected = tone(440, level=0.3)
    assert helpers.si_sdr(expected[:8000], signal[:8000]) > (10 if subtype in ("GSM610", "MPEG_LAYER_III") else 20)
    assert decibel(signal[:8000], expected[:8000]) == pytest.approx(0, abs=0.5)


def test_load_audio_mixes_to_mono(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([tone(440), np.zeros(8000)]), subtype="FLOAT")
    assert np.array_equal(helpers.load_audio(path), tone(440) / 2)


def test_load_audio_part(tmp_path):
    signal = noise(16000)
    path = write(tmp_path / "a.wav", signal, subtype="FLOAT")
    assert np.array_equal(helpers.load_audio(path, offset=0.5, duration=0.25), signal[4000:6000])
    assert np.array_equal(helpers.load_audio(path, offset=1.9, duration=1), signal[15200:])
    with pytest.raises(ValueError, match=r"a\.wav holds no audio at 3\.00 s: choose an earlier offset"):
        helpers.load_audio(path, offset=3)


def test_load_audio_of_a_bad_file(bad_file):
    error = ValueError if bad_file.exists() else FileNotFoundError
    with pytest.raises(error, match=bad_file.name) as caught:
        helpers.load_audio(bad_file)
    assert "\n" not in str(caught.value)


def test_load_audio_of_no_samples(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav holds no audio"):
        helpers.load_audio(write(tmp_path / "a.wav", noise(0)))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves the small corpus as archives, in the layout of the real ones; yields the archives and the requests."""
    monkeypatch.setenv("no_proxy", "*")
    root = tmp_path / "server"
    flac = write(tmp_path / "a.flac")
    root.mkdir()
    with tarfile.open(root / "mini.tar.gz", "w:gz") as archive:
        archive.add(flac, "LibriSpeech/mini/20/7/20-7-0000.flac")
    with zipfile.ZipFile(root / "master.zip", "w") as archive:
        archive.write(write(tmp_path / "a.wav"), "ESC-50-master/audio/1-1-A-10.wav")
        archive.writestr("ESC-50-master/meta/esc50.csv", "filename,fold,target,category\n1-1-A-10.wav,1,10,rain\n")
    (root / "page.zip").write_text("<html>Log in to this network first</html>")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            requests.append(self.path)

        def log_error(self, *_):
            pass

    handler = functools.partial(Handler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_port}"
        checksum = "md5:" + hashlib.md5((root / "mini.tar.gz").read_bytes()).hexdigest()
        archives = [
            (f"{address}/mini.tar.gz", checksum, "LibriSpeech/mini"),
            (f"{address}/master.zip", None, "ESC-50-master"),
        ]
        yield archives, requests
        httpd.shutdown()


def test_download(tmp_path, server):
    archives, requests = server
    folder = tmp_path / "corpus"
    helpers.download_corpus(folder, archives)
    assert len(requests) == 2
    assert len(helpers.list_speech(folder)) == len(helpers.list_noise(folder)) == 1
    assert {path.name for path in folder.iterdir()} == {"archives", "LibriSpeech", "ESC-50-master"}
    helpers.download_corpus(folder, archives)
    assert len(requests) == 2


def test_download_goes_on_where_it_stopped(tmp_path, server):
    archives, requests = server
    helpers.download_corpus(tmp_path / "corpus", archives[:1])
    helpers.download_corpus(tmp_path / "corpus", archives)
    assert requests == ["/mini.tar.gz", "/master.zip"]


def test_download_removes_what_killed_ones_left_days_ago(tmp_path, server):
    for name in ("new", "old"):
        (tmp_path / f".unpacking-{name}").mkdir()
    os.utime(tmp_path / ".unpacking-old", (1e9, 1e9))
    helpers.download_corpus(tmp_path, server[0])
    assert [path.name for path in tmp_path.glob(".*")] == [".unpacking-new"]


def test_downloads_at_once_leave_each_other_alone(tmp_path, server, monkeypatch):
    archives, unpack, others = server[0], helpers._unpack, [KeyboardInterrupt, None]

    def unpack_slowly(archive, folder):
        unpack(archive, folder)
        if others:
            with contextlib.suppress(KeyboardInterrupt):  # another run, which is stopped, and one that is faster
                if stopped := others.pop(0):
                    monkeypatch.setattr(helpers, "_unpack", Mock(side_effect=stopped))
                helpers.download_corpus(tmp_path / "corpus", archives)
            monkeypatch.setattr(helpers, "_unpack", unpack_slowly)

    monkeypatch.setattr(helpers, "_unpack", unpack_slowly)
    helpers.download_corpus(tmp_path / "corpus", archives)
    assert len(helpers.list_speech(tmp_path / "corpus")) == len(helpers.list_noise(tmp_path / "corpus")) == 1


def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.mark.parametrize("fault", ["checksum", "missing", "offline", "page", "old Python", "other content"])
def test_download_fails(tmp_path, server, fault, monkeypatch):
    (address, checksum, content), _ = server[0]
    if fault == "checksum":
        checksum = "md5:" + 32 * "0"
    elif fault == "missing":
        address = address.replace("mini", "other")
    elif fault == "offline":
        address = f"http://127.0.0.1:{closed_port()}/mini.tar.gz"
    elif fault == "old Python":
        monkeypatch.delattr(tarfile, "data_filter")
    elif fault == "other content":
        content = "LibriSpeech/other"
    else:
        address, checksum = address.replace("mini.tar.gz", "page.zip"), None
    folder = tmp_path / "corpus"
    with pytest.raises(OSError, match=address) as caught:
        helpers.download_corpus(folder, [(address, checksum, content)])
    assert str(folder / content) in str(caught.value)
    assert not (folder / content).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EEXIST])
def test_whole_archive_that_could_not_be_unpacked_is_kept(tmp_path, server, monkeypatch, number):
    monkeypatch.setattr(helpers, "_unpack", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(OSError, match=os.strerror(number)):
        helpers.download_corpus(tmp_path / "corpus", server[0][:1])
    assert contents(tmp_path / "corpus/archives")


def test_speakers_of_librispeech_are_numbers(corpus):
    write(corpus / "LibriSpeech/mini/anna/1/a.flac")
    with pytest.raises(ValueError, match=r"anna/1/a\.flac: speakers and chapters are numbers there"):
        helpers.list_speech(corpus)


def test_failed_download_leaves_the_sample_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "ROOT", tmp_path)
    archive = (f"http://127.0.0.1:{closed_port()}/mini.tar.gz", None, "LibriSpeech/mini")
    with pytest.raises(OSError, match="by hand"):
        helpers.download_corpus(tmp_path / "data" / "corpus", [archive])
    assert helpers.find_corpus() == tmp_path / "data" / "sample"


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("escape", ["parent", "absolute", "link", "deep link"])
def test_download_refuses_archives_that_write_elsewhere(tmp_path, server, kind, escape):
    address = server[0][0][0].replace("mini.tar.gz", f"evil.{kind}")
    outside, evil = tmp_path / "outside", tmp_path / f"server/evil.{kind}"
    outside.mkdir()
    members = {
        "parent": ["LibriSpeech/mini/../../../../outside/x"],
        "absolute": [f"{outside}/x"],
        "link": [link("LibriSpeech/mini/a", str(outside)), "LibriSpeech/mini/a/x"],
        "deep link": [link("LibriSpeech/mini/a", "../../../../outside"), "LibriSpeech/mini/a/x"],
    }[escape]
    members.insert(0, "LibriSpeech/mini/20/7/20-7-0000.flac")
    if kind == "tar":
        with tarfile.open(evil, "w") as archive:
            for member in members:
                archive.addfile(tarfile.TarInfo(member) if isinstance(member, str) else member)
    else:
        with zipfile.ZipFile(evil, "w") as archive:
            for member in members:
                if isinstance(member, str):
                    archive.writestr(member, "x")
                else:
                    info = zipfile.ZipInfo(member.name)
                    info.create_system, info.external_attr = 3, 0o120777 << 16
                    archive.writestr(info, member.linkname)
    folder = tmp_path / "corpus"
    with pytest.raises(OSError, match=f"{address} could not be downloaded") as caught:
        helpers.download_corpus(folder, [(address, None, "LibriSpeech/mini")])
    assert "\n" not in str(caught.value)
    assert contents(folder) == contents(outside) == {}


def test_download_of_a_fixed_commit(tmp_path, server):
    """Its folder is named after the commit; an archive of ESC-50 that was fetched before is not fetched again."""
    [(address, checksum, _)] = server[0][1:]
    folder = tmp_path / "corpus"
    helpers.download_corpus(folder, [(address, checksum, "ESC-50")])
    assert visible(folder / "ESC-50") == ["audio/1-1-A-10.wav", "meta/esc50.csv"]
    (folder / "ESC-50").rename(folder / "ESC-50-master")
    helpers.download_corpus(folder, [(address, checksum, "ESC-50")])
    assert server[1] == ["/master.zip"]
    assert all(checksum for _, checksum, _ in helpers.ARCHIVES)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o444, 0o640), (0o666, 0o640)])
def test_results_have_no_more_readers_than_their_source(tmp_path, umask, mode, expected):
    source = write(tmp_path / "a.wav")
    source.chmod(mode)
    with helpers.written_whole(tmp_path / "b.wav", source) as part:
        assert part.stat().st_mode & 0o777 == expected
        part.write_bytes(source.read_bytes())
    assert (tmp_path / "b.wav").stat().st_mode & 0o777 == expected


def give_access_list(path, kind):
    """Let another user read a file or folder, or what comes into it, and its group not."""
    # Version 2; (tag, rights, who) of the owner, another user, a group without rights, the mask, and all others.
    entries = [(1, 7, 2**32 - 1), (2, 5, 65534), (4, 0, 2**32 - 1), (16, 5, 2**32 - 1), (32, 0, 2**32 - 1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", packed)
    except (AttributeError, OSError):
        pytest.skip("this system has no access lists")


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o700), (0o711, 0o700), (0o750, 0o750), (0o777, 0o750)])
@pytest.mark.parametrize("private", ["calls/agent", "calls"])
def test_folders_made_for_results_show_no_more_than_those_of_their_source(tmp_path, umask, mode, expected, private):
    source = write(tmp_path / "calls/agent/a.wav")
    (tmp_path / private).chmod(mode)
    with helpers.written_whole(tmp_path / "out/agent/b.wav", source) as part:
        part.touch()
    assert (tmp_path / private.replace("calls", "out")).stat().st_mode & 0o777 == expected
    assert (tmp_path / "out").stat().st_mode & 0o777 == (expected if private == "calls" else 0o750)


@pytest.mark.parametrize("dangles", [True, False])
def test_result_takes_the_place_of_a_link_and_not_the_readers_of_what_it_names(tmp_path, dangles):
    source = write(tmp_path / "private/a.wav")
    source.chmod(0o644)
    (tmp_path / "link.wav").symlink_to(source.with_name("none.wav" if dangles else "a.wav"))
    source.parent.chmod(0o700)
    with helpers.written_whole(tmp_path / "link.wav", source) as part:
        part.touch()
    assert (tmp_path / "link.wav").stat().st_mode & 0o777 == 0o600 and not (tmp_path / "link.wav").is_symlink()


@pytest.mark.parametrize("listed", ["calls", "calls/a.wav"])
def test_results_of_a_source_with_an_access_list_are_the_owners(tmp_path, listed):
    source = write(tmp_path / "calls/a.wav")
    give_access_list(tmp_path / listed, "access")
    with helpers.written_whole(tmp_path / "b.wav", source) as part:
        assert part.stat().st_mode & 0o777 == 0o600


def test_results_have_no_more_readers_than_the_folder_of_their_source(tmp_path, umask):
    source = write(tmp_path / "calls/a.wav")
    source.chmod(0o644)
    source.parent.chmod(0o700)
    for target, mode in ((tmp_path / "b.wav", 0o600), (source.with_name("b.wav"), 0o640)):
        with helpers.written_whole(target, source) as part:
            part.touch()
        assert target.stat().st_mode & 0o777 == mode


def test_results_have_no_more_readers_than_the_group_of_a_folder(tmp_path):
    source = write(tmp_path / "calls/a.wav")
    source.chmod(0o644)
    source.parent.chmod(0o750)
    try:
        os.chown(source.parent, -1, os.getegid() + 1)
    except (PermissionError, AttributeError):
        pytest.skip("this user can't give folders away")
    with helpers.written_whole(tmp_path / "out/b.wav", source) as part:
        assert part.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_results_are_not_for_those_whom_their_folder_adds(tmp_path):
    source = write(tmp_path / "calls/a.wav")
    source.chmod(0o640)
    (tmp_path / "out").mkdir()
    give_access_list(tmp_path / "out", "default")
    with helpers.written_whole(tmp_path / "out/b.wav", source) as part:
        assert part.stat().st_mode & 0o777 == 0o600  # the mask of its list, too
    with helpers.written_whole(tmp_path / "out/deep/b.wav", source) as part:
        part.touch()
    assert (tmp_path / "out/deep").stat().st_mode & 0o777 == 0o700


def test_parts_are_their_writers_from_the_first_moment_to_the_last(tmp_path, monkeypatch):
    """Another run may look for abandoned ones before a writer has locked its own, and when it takes its name."""
    replace, lock = os.replace, helpers.fcntl.flock

    def meanwhile(step):
        def with_another_run(*arguments):
            if step is replace or arguments[1] == helpers.fcntl.LOCK_EX:
                helpers.remove_abandoned(helpers.parts_below(tmp_path))
            return step(*arguments)

        return with_another_run

    monkeypatch.setattr(os, "replace", meanwhile(replace))
    monkeypatch.setattr(helpers.fcntl, "flock", meanwhile(lock))
    with helpers.written_whole(tmp_path / "b.wav") as part:
        part.write_bytes(b"a result")
    assert (tmp_path / "b.wav").read_bytes() == b"a result"


def test_result_that_is_removed_while_it_is_written(tmp_path):
    source = write(tmp_path / "a.wav")
    with pytest.raises(OSError, match="removed"), helpers.written_whole(tmp_path / "b.wav", source):
        (part,) = tmp_path.glob(helpers.PARTS)
        part.unlink()
        part.touch()  # as a library would make it again, for all to read
    assert visible(tmp_path) == ["a.wav"] == os.listdir(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no names for open files")
def test_what_takes_the_place_of_a_part_gets_nothing_of_it(tmp_path):
    source, other = write(tmp_path / "a.wav"), tmp_path / "other"
    source.chmod(0o600)
    other.write_text("of another user")
    with pytest.raises(OSError, match="removed"), helpers.written_whole(tmp_path / "b.wav", source) as part:
        (name,) = tmp_path.glob(helpers.PARTS)
        name.rename(tmp_path / "taken")
        name.symlink_to(other)
        part.write_bytes(source.read_bytes())
    assert other.read_text() == "of another user"
    assert (tmp_path / "taken").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604])  # a group may be let in, or shut out
def test_results_have_no_other_group_than_their_source(tmp_path, mode):
    source = write(tmp_path / "a.wav")
    source.chmod(mode)
    try:
        os.chown(source, -1, os.getegid() + 1)
    except (PermissionError, AttributeError):
        pytest.skip("this user can't give files away")
    with helpers.written_whole(tmp_path / "b.wav", source) as part:
        assert part.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keeps_fractions", [True, False])
def test_results_bear_the_time_of_their_source_as_it_was_read(tmp_path, monkeypatch, keeps_fractions):
    source, target, time = write(tmp_path / "a.wav"), tmp_path / "b.wav", 10**18 + 1
    os.utime(source, ns=(time, time))
    if not keeps_fractions:
        utime = os.utime
        monkeypatch.setattr(os, "utime", lambda path, ns: utime(path, ns=(ns[0] // (2 * 10**9) * 2 * 10**9,) * 2))
    with helpers.written_whole(target, source) as part:
        write(source)  # it goes on
        part.write_bytes(source.read_bytes())
    age = target.stat().st_mtime_ns - time
    assert age == 0 if keeps_fractions else 0 < age <= 2 * 10**9


def test_abandoned_parts_are_removed_and_others_are_not(tmp_path):
    abandoned = tmp_path / f".{32 * 'a'}.part.wav"
    others = [tmp_path / name for name in (".a.part.wav", "a.part", f"{32 * 'a'}.part.wav")]
    for path in (abandoned, *others):
        path.write_bytes(b"half a result")
    with helpers.written_whole(tmp_path / "b.wav") as part:
        helpers.remove_abandoned(tmp_path.glob(helpers.PARTS))
        assert part.exists() and not abandoned.exists()
    assert all(path.exists() for path in others)


def test_two_writers_do_not_meet(tmp_path):
    with helpers.written_whole(tmp_path / "a.txt") as first:
        first.write_text("first")
        with helpers.written_whole(tmp_path / "a.txt") as second:
            second.write_text("second")
        assert (tmp_path / "a.txt").read_text() == "second"
    assert (tmp_path / "a.txt").read_text() == "first"


@pytest.mark.skipif(helpers.fcntl is None, reason="there are no such locks")
def test_part_on_a_drive_whose_locks_shut_out_its_writer_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with helpers.written_whole(tmp_path / "b.wav") as part, part.open("r+b") as file:
        helpers.fcntl.flock(file, helpers.fcntl.LOCK_EX | helpers.fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "place", [(-0.1, None), (0, 0), (0, -1), (0, np.inf), (np.nan, None), (np.inf, None), (0, np.nan)]
)
@pytest.mark.parametrize("ending", [".wav", ".mp3"])
def test_place_in_a_recording_that_cannot_be(tmp_path, place, ending):
    path = write(tmp_path / f"a{ending}")
    with pytest.raises(ValueError, match="choose an offset of 0 or more, and a duration above 0"):
        helpers.read_audio(path, *place)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff", "a.au", "a.caf", "a.w64"])
def test_what_others_say_while_a_file_is_opened_is_not_lost(tmp_path, name, monkeypatch):
    monkeypatch.setattr(helpers, "_libraries_silent", None)
    assert helpers.load_audio(write(tmp_path / name)).any()


def test_pandas_is_imported_by_several_threads():
    code = """if True:
        import concurrent.futures, helpers
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            print(list(threads.map(lambda _: len(helpers.list_rooms()) + helpers.pd.DataFrame().size, range(4))))"""
    assert run_python(code) == "[0, 0, 0, 0]\n"


@pytest.mark.parametrize("level", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("channels", [1, 2])
def test_play_keeps_the_level(level, channels):
    signal = np.squeeze(np.stack([tone(440, level=level)] * channels))
    played, rate = sf.read(io.BytesIO(helpers.play(signal).data), always_2d=True)
    assert (rate, played.shape) == (8000, (8000, channels))
    assert decibel(played, signal) == pytest.approx(0, abs=0.2)


def test_play_takes_whole_numbers():
    played, _ = sf.read(io.BytesIO(helpers.play((32768 * tone(440)).astype(np.int16)).data))
    assert decibel(played, tone(440)) == pytest.approx(0, abs=0.2)


def test_play_clips_what_is_too_loud():
    played, _ = sf.read(io.BytesIO(helpers.play(tone(440, level=4)).data))
    assert np.abs(played).max() == pytest.approx(1, abs=1e-3)
