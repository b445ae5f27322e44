"""Tests of the U-Net, its loss, its training and its export."""

import functools
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import SAMPLE, contents, decibel, fingerprint, noise, run_python, visible, write

import helpers
from data import make_ablation


def with_random_weights(network):
    rng = np.random.default_rng(0)
    network.set_weights([w + 0.2 * rng.standard_normal(w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


@pytest.fixture(scope="session")
def network():
    """An untrained U-Net with layers of all kinds: the shipped one takes TensorFlow minutes to compile and export."""
    return with_random_weights(helpers.unet((8, 12, 16), (0, 1, 1), 1))


def test_untrained_unet_changes_nothing():
    noisy = noise(8000)
    assert np.array_equal(helpers.denoise(noisy, model=helpers.unet((8, 12, 16), (0, 1, 1), 1)), noisy)


@pytest.mark.parametrize("n_frames", [16, 48])
def test_unet_takes_any_number_of_frames(network, n_frames):
    output = network.predict_on_batch(noise(2, 128, n_frames, 2))
    assert output.shape == (2, 128, n_frames, 2) and output.dtype == np.float32


def test_unet_of_equal_widths_has_all_its_blocks():
    for widths in ((4, 6, 8, 10), (4, 4, 4, 4)):
        kinds = [layer.__class__.__name__ for layer in helpers.unet(widths, (0, 0, 0, 0), 1).layers]
        assert (kinds.count("Along"), kinds.count("Conv2D")) == (10, 4 + 3 + 2)


def test_unet_is_small():
    assert 4 * helpers.unet().count_params() < 15e6  # bytes


def test_unet_of_silence(network):
    assert not network.predict_on_batch(np.zeros((2, 128, 16, 2), np.float32)).any()


def test_saved_unet_is_the_same(network, tmp_path):
    network.save(tmp_path / "unet.keras")
    inputs = noise(2, 128, 16, 2)
    loaded = helpers.load_model(tmp_path / "unet.keras")  # in Keras' safe mode
    expected = network.predict_on_batch(inputs)
    assert decibel(loaded.predict_on_batch(inputs) - expected + 1e-30, expected) < -100


def test_saved_unet_loads_every_time(tmp_path):
    """Keras' Bidirectional failed at one loading in three: it takes another layer's copy from the same address."""
    helpers.unet((4, 8, 8), (0, 0, 0)).save(tmp_path / "unet.keras")
    for _ in range(12):
        helpers._read_model.__wrapped__(tmp_path / "unet.keras", 0)


def test_load_model_errors(bad_file):
    with pytest.raises(ValueError if bad_file.is_file() else FileNotFoundError, match=bad_file.name):
        helpers.load_model(bad_file)


@pytest.mark.parametrize("kind", ["three channels", "one column", "nan", "fixed columns"])
def test_onnx_models_of_another_kind_are_refused(tmp_path, kind):
    from onnx import TensorProto, helper, numpy_helper, save

    shape = [1, 128, 8 if kind == "fixed columns" else "frames", 2]
    inputs = helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)
    outputs = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    axis, other = {"three channels": (3, [0, 0, 1]), "one column": (2, [0])}.get(kind, (3, [0, 1]))
    constants = [numpy_helper.from_array(np.array(other), "indices"), numpy_helper.from_array(np.float32(0), "zero")]
    nodes = [helper.make_node("Gather", ["a", "indices"], ["c"], axis=axis)]
    nodes += [helper.make_node("Div" if kind == "nan" else "Add", ["c", "zero"], ["b"])]
    graph = helper.make_graph(nodes, "unet", [inputs], [outputs], constants)
    save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="not a model that can be loaded"):
        helpers.load_model(tmp_path / "a.onnx")


def test_missing_library_is_not_blamed_on_the_model(monkeypatch):
    monkeypatch.setattr(helpers, "OnnxModel", Mock(side_effect=ImportError("DLL load failed")))
    with pytest.raises(ValueError, match=r"can't be loaded \(DLL load failed\): install what is missing"):
        helpers._read_model.__wrapped__(helpers.RUNTIME_MODEL, 0)


def test_keras_models_of_another_kind_are_refused(tmp_path):
    import keras

    noisy = keras.Input((128, None, 2))
    keras.Model(noisy, keras.layers.Concatenate()([noisy, noisy])).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="not a model that can be loaded"):
        helpers.load_model(tmp_path / "a.keras")


def test_transfer_weights_keeps_what_is_predicted_with_more_blocks():
    shallow, deep = helpers.unet((4, 8, 8), (0, 1, 1), 1), helpers.unet((4, 8, 8), (0, 2, 4), 2)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.1, 1, weight.shape).astype(np.float32) for weight in shallow.get_weights()]
    shallow.set_weights(weights)
    helpers.transfer_weights(weights, deep)
    inputs = rng.standard_normal((1, 128, 32, 2)).astype(np.float32)
    np.testing.assert_allclose(deep.predict_on_batch(inputs), shallow.predict_on_batch(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_blocks", [(0, 3), (1, 1)])
def test_transfer_weights_refuses_fewer_blocks(n_blocks):
    with pytest.raises(ValueError, match="as many blocks or fewer"):
        helpers.transfer_weights(helpers.unet((4, 8), n_blocks).get_weights(), helpers.unet((4, 8), (0, 1)))


def test_transfer_weights_refuses_other_widths():
    with pytest.raises(ValueError, match="these widths"):
        helpers.transfer_weights(helpers.unet((4, 6), (0, 0)).get_weights(), helpers.unet((4, 8), (0, 0)))


def test_load_model_sees_a_new_file(small_unet, tmp_path):
    path = tmp_path / "unet.keras"
    inputs = noise(1, 128, 16, 2)
    for seed in range(2):
        model = small_unet()
        model.set_weights([noise(*weights.shape, seed=seed) ** 2 for weights in model.get_weights()])
        model.save(path)
        outputs = helpers.load_model(path).predict_on_batch(inputs)
        assert np.array_equal(outputs, model.predict_on_batch(inputs))


def test_spectral_loss():
    targets = noise(3, 128, 16, 4, level=1)
    targets[2, ..., 2:] = 0  # silent speech
    true = targets[..., :2]
    perfect, half, none = (np.asarray(helpers.spectral_loss(targets, share * true)) for share in (1, 0.5, 0))
    assert perfect.shape == (3,)
    assert np.isfinite([perfect, half, none]).all()
    assert (perfect < half).all() and (half < none).all()


def test_bark_bands():
    weights = helpers.bark_bands()
    assert weights.shape == (128, 42) and (weights >= 0).all()
    assert weights.sum(axis=0) == pytest.approx(1)
    assert (np.diff(weights.argmax(axis=0)) >= 0).all()


def heard(speech, noise):
    """Hearing loss of `(batch, samples)` of noise that is left in speech."""
    level = helpers.signal_level(speech)
    speech, enhanced = (helpers.to_network(helpers.stft(x), level) for x in (speech, speech + noise))
    return np.asarray(helpers.hearing_loss(speech, enhanced))


def test_hearing_loss(speech):
    speech = speech[None, :16000]
    white = noise(*speech.shape, level=1) * helpers.signal_level(speech)
    losses = [heard(speech, gain * white)[0] for gain in (0, 0.01, 0.1, 1)]
    assert losses[0] == pytest.approx(0, abs=0.02)  # the roots are rounded off, so that their gradient is finite
    assert (np.diff(losses) > 0.01).all()
    assert 1 < losses[-1] < 6  # at 0 dB, points of PESQ, roughly


def test_hearing_loss_forgives_what_changes_the_level_alone(speech):
    speech = speech[None, :16000]
    fading = np.linspace(1, 0.2, 16000, dtype=np.float32)
    assert heard(speech, (fading - 1) * speech) < 0.1


def test_hearing_loss_follows_pesq():
    pytest.importorskip("pesq")
    losses, scores = [], []
    for _, clean, noisy in helpers.held_out_blends(SAMPLE, n=12):
        for enhanced in (noisy, helpers.denoise(noisy)):
            losses.append(heard(clean[None], (enhanced - clean)[None])[0])
            scores.append(helpers.measure(clean, enhanced)["pesq"])
    assert np.corrcoef(losses, scores)[0, 1] < -0.9


def test_third_octave_bands():
    weights = helpers.third_octave_bands()
    assert weights.shape == (128, 15)
    assert (weights.sum(axis=0) >= 1).all() and (weights.sum(axis=1) <= 1).all()


@pytest.mark.parametrize("snr_db", [-5, 5, 15])
def test_intelligibility_loss_is_close_to_estoi(speech, snr_db):
    _, noisy = helpers.blend(speech, noise(*speech.shape, level=1), snr_db)
    level = helpers.signal_level(noisy)
    pair = [helpers.to_network(helpers.stft(x), level)[None] for x in (speech, noisy)]
    loss = np.asarray(helpers.intelligibility_loss(*pair))
    assert loss == pytest.approx([1 - helpers.measure(speech, noisy)["estoi"]], abs=0.07)
    assert np.asarray(helpers.intelligibility_loss(pair[0], pair[0])) == pytest.approx([0], abs=0.01)


def test_mel_loss(speech):
    clean = helpers.to_network(helpers.stft(speech), helpers.signal_level(speech))[None]
    losses = [np.asarray(helpers.mel_loss(clean, share * clean, clean))[0] for share in (1, 10**-0.5, 0.1, 0)]
    assert losses[0] == 0 and (np.diff(losses) > 0.01).all()
    assert losses[1] < 1 and losses[2] < 2  # 10 and 20 dB, less where the speech is near silence
    # A faint band counts for more than its power does.
    above = (np.arange(128) >= 64)[:, None, None]
    loud, faint = (
        np.asarray(helpers.mel_loss(x, x * ~above, x))[0] for x in (clean, np.where(above, 0.3 * clean, clean))
    )
    assert faint > 2 * 0.3**2 * loud


def mel_loss_of_clean(speech, enhanced):
    return helpers.mel_loss(speech, enhanced, speech)


@pytest.mark.parametrize("loss_of", [helpers.hearing_loss, helpers.intelligibility_loss, mel_loss_of_clean])
@pytest.mark.parametrize("silent", ["speech", "enhanced", "both"])
def test_losses_of_silence_have_finite_gradients(silent, loss_of):
    import tensorflow as tf

    speech = tf.constant(noise(2, 128, 64, 2, level=0 if silent in ("speech", "both") else 1))
    enhanced = tf.constant(noise(2, 128, 64, 2, level=0 if silent in ("enhanced", "both") else 1, seed=1))
    with tf.GradientTape() as tape:
        tape.watch(enhanced)
        loss = loss_of(speech, enhanced)
    assert loss.shape == (2,) and np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, enhanced)).all()


def test_spectral_loss_of_digital_silence_has_finite_gradients():
    import tensorflow as tf

    predicted = tf.zeros((2, 128, 64, 2))
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = helpers.spectral_loss(tf.zeros((2, 128, 64, 4)), predicted)
    assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, predicted)).all()


def sources(**options):
    parts = helpers.of_split("train", SAMPLE, helpers.list_speech(SAMPLE), helpers.list_noise(SAMPLE))
    return helpers.BlendedSpeech(*parts, **{"batch_size": 3, "n_frames": 32} | options)


def test_blended_speech():
    inputs, targets = batch = sources()[5]
    assert inputs.shape == (3, 128, 32, 2) and targets.shape == (3, 128, 32, 4)
    assert inputs.dtype == targets.dtype == np.float32
    assert np.array_equal(inputs, targets[..., :2] + targets[..., 2:])
    for same, again in zip(batch, sources()[5], strict=True):
        assert np.array_equal(same, again)
    assert not np.array_equal(inputs, sources()[6][0])
    assert not np.array_equal(inputs, sources(seed=1)[5][0])


def test_blended_speech_is_finite_and_varied():
    batches = [sources()[i][0] for i in range(20)]
    assert np.isfinite(batches).all()
    assert len({batch.tobytes() for batch in batches}) == 20


def test_blended_speech_in_rooms(tmp_path):
    room = write(tmp_path / "room.wav", noise(4000, level=1) * np.exp(-np.arange(4000) / 500).astype(np.float32))
    dry, wet = sources(), sources(rooms=[room])
    assert any(not np.array_equal(dry[i][0], wet[i][0]) for i in range(5))
    assert np.isfinite([wet[i][0] for i in range(20)]).all()


def test_blends_of_talkers():
    """In some blends nobody speaks, in some there is no noise, and in some two talkers take turns."""
    source, rng = sources(n_frames=128), np.random.default_rng(0)
    blends = np.array([source.random_blend(rng) for _ in range(150)])
    silent_speech, silent_noise, _ = (~blends.any(axis=-1)).sum(axis=0)
    assert 0 < silent_speech < 15 and 0 < silent_noise < 40
    speech, noise, noisy = blends.swapaxes(0, 1)
    np.testing.assert_allclose(speech + noise, noisy, atol=1e-6)


def test_file_that_is_damaged_is_told_and_ends_no_training(corpus):
    speech, other = helpers.list_speech(corpus), helpers.list_noise(corpus)
    source = helpers.BlendedSpeech(speech, other, batch_size=3, n_frames=16)
    before = source[1][0]
    sf.write(other["path"][0], np.full(16000, np.nan), 8000, subtype="FLOAT")
    speech["path"][0].write_bytes(b"its disk failed")
    other["path"][1].write_bytes(b"its disk failed")
    other["path"][2].unlink()
    with pytest.warns(UserWarning, match="left out of the training: "):
        batches = [source[i][0] for i in range(20)]
    assert np.isfinite(batches).all() and before.shape == batches[1].shape


def test_corpus_that_vanishes_ends_a_training_in_one_sentence(small_training, tmp_path, monkeypatch):
    original = helpers.BlendedSpeech.__getitem__

    def vanishes(source, index):
        if index > 1:
            raise FileNotFoundError("a.wav does not exist: check the path")
        return original(source, index)

    monkeypatch.setattr(helpers.BlendedSpeech, "__getitem__", vanishes)
    with pytest.raises(OSError, match=r"can't be read any more \(a\.wav does not exist"):
        small_training(tmp_path / "unet.keras", SAMPLE)
    assert (tmp_path / "unet-training").is_dir()


def test_blended_speech_of_one_speaker(corpus):
    source = helpers.BlendedSpeech(
        helpers.list_speech(corpus).iloc[:1], helpers.list_noise(corpus), batch_size=3, n_frames=16
    )
    assert all(np.isfinite(source[i][0]).all() for i in range(20))


@pytest.mark.parametrize("kind", ["list_speech", "list_noise"])
def test_blended_speech_needs_both(corpus, kind):
    tables = {"list_speech": helpers.list_speech(corpus), "list_noise": helpers.list_noise(corpus)}
    with pytest.raises(ValueError, match="can't be blended: give both"):
        helpers.BlendedSpeech(*(table[: 0 if name == kind else None] for name, table in tables.items()))


def test_train_goes_on_after_a_kill(small_training, tmp_path, monkeypatch):
    import keras

    batches = []
    original = helpers.BlendedSpeech.__getitem__

    def spy(source, index):
        if (source.speech["split"] == "train").all():
            batches.append(index)
        return original(source, index)

    monkeypatch.setattr(helpers.BlendedSpeech, "__getitem__", spy)
    at_once, history = small_training(tmp_path / "at once.keras", SAMPLE)
    assert sorted(set(batches)) == [0, 1, 2, 3]  # no epoch repeats the blends of another
    assert list(history["epoch"]) == [0, 1]
    assert np.isfinite(history[["loss", "val_loss"]]).all(axis=None)

    steps = []

    def killed_in_epoch_2(*_, **__):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    output = tmp_path / "resumed.keras"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", killed_in_epoch_2)
        small_training(output, SAMPLE)
    assert not output.exists() and (tmp_path / "resumed-training").is_dir()
    resumed, resumed_history = small_training(output, SAMPLE, seed=np.int64(0))
    assert list(resumed_history["epoch"]) == [0, 1]
    assert resumed_history["loss"].to_numpy() == pytest.approx(history["loss"].to_numpy(), rel=1e-3)
    for weights, expected in zip(resumed.get_weights(), at_once.get_weights(), strict=True):
        assert weights == pytest.approx(expected, abs=1e-5)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "at once.json",
        "at once.keras",
        "at once.onnx",
        "resumed.json",
        "resumed.keras",
        "resumed.onnx",
    ]
    assert output.with_suffix(".onnx").read_bytes() == fingerprint(resumed)
    card = json.loads(output.with_suffix(".json").read_text())
    assert set(card) >= {"command", "epochs", "steps_per_epoch", "batch_size", "learning_rate", "seed", "parameters"}
    assert set(card) >= {"hours_of_audio", "minutes_of_training", "corpus_minutes", "test_scores", "versions"}
    assert card["history"]["epoch"] == [0, 1]
    assert set(card["test_scores"]) == {"noisy", "enhanced"}
    assert set(card["corpus_minutes"]) >= {"LibriSpeech", "ESC-50"}
    assert set(card["licences"]) == set(card["corpus_minutes"])
    assert card["start"] is None and card["hours_of_audio_in_all"] == card["hours_of_audio"]


def test_train_goes_on_after_a_kill_in_its_first_epoch_or_behind_its_last(small_training, tmp_path, monkeypatch):
    import keras

    def killed(*_, **__):
        raise KeyboardInterrupt

    output = tmp_path / "unet.keras"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", killed, raising=False)
        small_training(output, SAMPLE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(helpers, "describe", killed)
        small_training(output, SAMPLE)
    (tmp_path / f".{32 * 'a'}.part.keras").write_bytes(b"half a model")
    with pytest.raises(ValueError, match="unet-training holds a training with seed 0: repeat"):
        small_training(output, SAMPLE, seed=1)
    monkeypatch.setattr(keras.Model, "train_step", lambda *_, **__: pytest.fail("it trains again"))
    _, history = small_training(output, SAMPLE)
    assert list(history["epoch"]) == [0, 1] and visible(tmp_path) == ["unet.json", "unet.keras", "unet.onnx"]
    assert len(os.listdir(tmp_path)) == 3


def test_train_that_was_killed_while_it_cleans_up_begins_anew(small_training, tmp_path, monkeypatch):
    rmtree = shutil.rmtree

    def remove_half(folder, *arguments, **options):
        if "training" not in Path(folder).name:
            return rmtree(folder, *arguments, **options)
        (folder / "history.csv").write_text("")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", remove_half)
        small_training(tmp_path / "unet.keras", SAMPLE, epochs=1)
    _, history = small_training(tmp_path / "unet.keras", SAMPLE, epochs=1)
    assert list(history["epoch"]) == [0]


@pytest.mark.parametrize("epochs", [1, 2])
def test_train_goes_on_after_a_power_cut_within_a_backup(small_training, tmp_path, monkeypatch, epochs):
    output = tmp_path / "unet.keras"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(helpers, "describe", Mock(side_effect=KeyboardInterrupt))
        small_training(output, SAMPLE, epochs=epochs)
    (tmp_path / "unet-training/backup/training_metadata.json").write_text("")
    if epochs == 1:  # there is no epoch before
        with pytest.raises(OSError, match=r"unet-training can't be gone on from .*: remove it"):
            small_training(output, SAMPLE, epochs=epochs)
    else:
        assert list(small_training(output, SAMPLE, epochs=epochs)[1]["epoch"]) == [0, 1]


def test_train_without_a_finite_loss_is_an_error(small_training, tmp_path, monkeypatch):
    monkeypatch.setattr(helpers.BlendedSpeech, "random_tilts", lambda *_: np.full((128, 1), np.nan))
    with pytest.raises(ValueError, match="no epoch had a finite loss"):
        small_training(tmp_path / "unet.keras", SAMPLE)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("kind", ["speech", "noise"])
def test_train_needs_every_split(no_training, corpus, monkeypatch, split, kind):
    list_files = getattr(helpers, f"list_{kind}")
    monkeypatch.setattr(
        helpers, f"list_{kind}", lambda corpus: list_files(corpus).query(f"split != '{split}'").reset_index(drop=True)
    )
    with pytest.raises(ValueError, match=f"(?s){corpus.name}.*{split}"):
        no_training(corpus / "unet.keras", corpus)
    assert not (corpus / "unet-training").exists()


def test_train_refuses_a_corpus_whose_test_files_it_cannot_read(no_training, corpus):
    """Else it would end behind its last epoch, without a model."""
    sf.write(corpus / "ESC-50/audio/1-1-A-10.wav", np.full(16000, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"1-1-A-10\.wav: samples are NaN"):
        no_training(corpus / "unet.keras", corpus)
    assert not (corpus / "unet-training").exists()


def test_train_refuses_a_file_that_it_cannot_write(no_training, tmp_path):
    with pytest.raises(ValueError, match="keras"):
        no_training(tmp_path / "model", SAMPLE)
    (tmp_path / "unet.onnx").mkdir()
    with pytest.raises(ValueError, match=r"unet\.onnx is a folder"):
        no_training(tmp_path / "unet.keras", SAMPLE)


def test_train_leaves_a_folder_of_others_alone(small_training, tmp_path):
    corpus = tmp_path / "calls-training"
    shutil.copytree(SAMPLE, corpus)
    before = sorted(corpus.rglob("*"))
    with pytest.raises(ValueError, match="calls-training holds something else than a training: name another output"):
        small_training(tmp_path / "calls.keras", corpus)
    assert sorted(corpus.rglob("*")) == before and not (tmp_path / "calls.keras").exists()


@pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf])
def test_train_refuses_a_learning_rate_that_is_none(no_training, tmp_path, rate):
    with pytest.raises(ValueError, match="a learning rate of"):
        no_training(tmp_path / "unet.keras", SAMPLE, learning_rate=rate)


def test_train_refuses_counts_that_are_no_whole_numbers(no_training, tmp_path):
    with pytest.raises(TypeError, match="integer"):
        no_training(tmp_path / "unet.keras", SAMPLE, epochs=1.5)
    assert visible(tmp_path) == []


def test_train_on_two_devices(tmp_path):
    """Under MirroredStrategy, each of two processors of one machine takes half of each batch."""
    program = """
import functools, json, sys
from pathlib import Path
import tensorflow as tf
import helpers

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
helpers.unet = functools.partial(helpers.unet, widths=(4,), n_blocks=(0,))
helpers.BlendedSpeech.__init__.__defaults__ = ((), 8, 16, 0)
helpers.held_out_blends = functools.partial(helpers.held_out_blends, n=2)
helpers.export = lambda model, target: None

def losses(name):
    return list(helpers.train(Path(sys.argv[1]) / name, sys.argv[2], epochs=2, steps_per_epoch=3)[1]["loss"])

alone = losses("one.keras")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    together = losses("two.keras")
print(json.dumps([strategy.num_replicas_in_sync, alone, together]))
"""
    n_devices, alone, together = json.loads(run_python(program, tmp_path, SAMPLE).splitlines()[-1])
    assert n_devices == 2
    assert together == pytest.approx(alone, rel=0.01)  # batch normalisation sees half of a batch at a time


@pytest.fixture(scope="module")
def exported(tmp_path_factory, network):
    """Files of a network for other runtimes, by their ending."""
    folder = tmp_path_factory.mktemp("exported")
    for ending in (".onnx", ".tflite"):
        helpers.export(network, folder / f"unet{ending}")
    assert visible(folder) == ["unet.onnx", "unet.tflite"]
    return {path.suffix: path for path in folder.iterdir()}


def predicted_noise(call, model):
    call = call[None, :32000]
    return helpers.predict_noise(call, helpers.signal_level(call), helpers.load_model(model))


def test_export_to_onnx_agrees(call, exported, network):
    expected = predicted_noise(call, network)
    assert decibel(predicted_noise(call, exported[".onnx"]) - expected, expected) < -60


def test_onnx_files_hold_no_loops(exported):
    import onnx

    for path in exported[".onnx"], helpers.RUNTIME_MODEL:
        operations = {node.op_type for node in onnx.load(path).graph.node}
        assert "GRU" in operations and "Loop" not in operations


def test_export_to_litert_agrees(exported, network):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported[".tflite"]))
    interpreter.allocate_tensors()
    before, after = (
        details[0]["index"] for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    inputs = noise(1, 128, helpers.LITERT_FRAMES, 2, level=1)
    interpreter.set_tensor(before, inputs)
    interpreter.invoke()
    expected = network.predict_on_batch(inputs)
    assert decibel(interpreter.get_tensor(after) - expected, expected) < -60


def test_shipped_models_agree(call):
    expected = predicted_noise(call, helpers.MODEL)
    assert decibel(predicted_noise(call, helpers.RUNTIME_MODEL) - expected, expected) < -60


@pytest.mark.parametrize("name", ["unet.pb", "unet", "unet.keras"])
def test_export_refuses_other_endings(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} cannot be written: end its name in one of \.onnx, \.tflite"):
        helpers.export(helpers.MODEL, tmp_path / name)
    assert visible(tmp_path) == []


def test_export_into_a_folder(tmp_path):
    (tmp_path / "unet.onnx").mkdir()
    with pytest.raises(ValueError, match=r"unet\.onnx is a folder"):
        helpers.export(helpers.MODEL, tmp_path / "unet.onnx")


def test_export_needs_a_keras_model(tmp_path, fixed_model):
    with pytest.raises(ValueError, match=r"name a \.keras file"):
        helpers.export(fixed_model, tmp_path / "unet.onnx")
    assert visible(tmp_path) == []


def test_card_tells_no_licence_of_recordings_of_the_users_own(small_unet, tmp_path):
    names = ["LibriSpeech", "speech", "ambience", "everyday", "calls"]
    files = pd.DataFrame({"path": [tmp_path / name / "a.wav" for name in names], "split": "train", "duration": 60.0})
    card = helpers.describe(small_unet(), tmp_path, files, [("a", noise(8000), noise(8000, seed=1))])
    assert card["licences"] == dict.fromkeys(names, "not known") | {"LibriSpeech": "CC BY 4.0"}


def test_train_adds_up_the_hours(small_training, small_unet, tmp_path):
    small_unet().save(tmp_path / "first.keras")
    (tmp_path / "first.json").write_text(json.dumps({"hours_of_audio_in_all": 7.5, "history": {"epoch": [0]}}))
    small_training(tmp_path / "second.keras", SAMPLE, epochs=1, start=tmp_path / "first.keras")
    card = json.loads((tmp_path / "second.json").read_text())
    assert card["start"] == {"file": "first.keras", "hours_of_audio_in_all": 7.5}
    assert card["hours_of_audio_in_all"] == pytest.approx(7.5 + card["hours_of_audio"], abs=0.01)


@pytest.mark.parametrize("start, reason", [("other.keras", "of these widths"), ("small.onnx", ".keras file")])
def test_train_refuses_an_unfit_start_before_it_writes(small_training, tmp_path, start, reason):
    helpers.unet(widths=(6,)).save(tmp_path / "other.keras")
    (tmp_path / "small.onnx").touch()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=reason):
        small_training(tmp_path / "unet.keras", SAMPLE, start=tmp_path / start)
    assert contents(tmp_path) == before


@pytest.fixture
def ablated(monkeypatch):
    """A function that makes the U-Net of a variant of the ablation, small, with random weights in its last layer."""
    small = functools.partial(helpers.unet, widths=(4, 6), n_blocks=(0, 0))
    for name, value in (("unet", small), ("_along", helpers._along), ("LOSS_WEIGHTS", {**helpers.LOSS_WEIGHTS})):
        monkeypatch.setattr(helpers, name, value)

    def make(variant):
        make_ablation.VARIANTS[variant]()
        helpers._keras().utils.set_random_seed(0)
        model = helpers.unet()
        for variable in model.trainable_variables[-2:]:
            variable.assign(noise(*variable.shape, level=1))
        return model

    return make


def parts_of_the_network(model):
    """Whether a network turns phases and hears by its skip connections, and how many recurrent layers it has."""
    keras, inputs = helpers._keras(), noise(1, 128, 32, 2, level=1)
    noisy, predicted = (x[..., 0] + 1j * x[..., 1] for x in (inputs, np.array(model(inputs))))
    joins = [step.output for step in model.operations if step.__class__.__name__ == "Concatenate"][1:-1]
    by_skip = np.split(np.array(keras.Model(model.input, joins[0])(inputs)), 2, axis=-1)[1]
    recurrent = sum(layer.__class__.__name__ == "Along" for layer in model.layers)
    return np.abs(np.imag(predicted / noisy)).max() > 0.1, bool(by_skip.any()), recurrent


@pytest.mark.parametrize(
    ("variant", "parts"),
    [
        ("all of it", (True, True, 4)),
        ("real mask", (False, True, 4)),
        ("no skip connections", (True, False, 4)),
        ("half of the recurrent layers", (True, True, 2)),
        ("no recurrent layers", (True, True, 0)),
    ],
)
def test_ablations_of_the_network(ablated, variant, parts):
    assert parts_of_the_network(ablated(variant)) == parts


@pytest.mark.parametrize("name", helpers.LOSS_WEIGHTS)
def test_ablations_of_the_loss(ablated, name):
    ablated(f"loss without {name}")
    assert [key for key, weight in helpers.LOSS_WEIGHTS.items() if weight == 0] == [name]


def ablation_scores(signal, lift):
    rows = [
        {"condition": "as it is", "signal": signal, "name": name, "si_sdr": score + lift}
        for name, score in (("a", 3), ("b", 9), ("c", 20))
    ]
    return pd.DataFrame(rows).assign(pesq=1, stoi=1, estoi=1)


def test_ablations_are_compared_blend_by_blend():
    scores = pd.concat([ablation_scores("all of it", 0), ablation_scores("real mask", 1)])
    last = make_ablation.compare(scores).iloc[-1]
    assert last[["variant", "measure", "difference", "half_width"]].to_list() == ["real mask", "si_sdr", 1, 0]


def test_ablations_go_on_with_those_that_have_no_scores(tmp_path, monkeypatch):
    trainings = []

    def trained(variant, folder):
        if len(trainings) == 2:
            raise KeyboardInterrupt
        trainings.append(variant)
        return pd.concat([ablation_scores("noisy", -5), ablation_scores(variant, len(trainings))])

    for name in ("TABLE", "BLENDS"):
        monkeypatch.setattr(make_ablation, name, tmp_path / f"{name}.csv")
    monkeypatch.setattr(make_ablation, "trained", trained)
    variants = list(make_ablation.VARIANTS)
    for done in (variants[:2], variants[2:4]):
        trainings.clear()
        with pytest.raises(KeyboardInterrupt):
            make_ablation.main(tmp_path)
        assert trainings == done
    table = pd.read_csv(tmp_path / "TABLE.csv").query("measure == 'si_sdr'")
    assert table["variant"].to_list() == ["noisy", *variants[:4]]
    assert table["difference"].to_list() == [-6, 0, 1, 0, 1]
