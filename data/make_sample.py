"""Makes data/sample/ again from nothing: a small SYNTHETIC corpus in the layouts of LibriSpeech and ESC-50.

The speech is read by free synthesisers (flite, festival, espeak-ng), the noise is computed by small physical models.
Everything is 8 kHz, mono, 16 bit. Every clip has its own random generator, seeded by its number, so that a change to
one clip leaves the others as they are.

    python data/make_sample.py
"""

import csv
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import soundfile as sf
from scipy import signal

SAMPLE = Path(__file__).parent / "sample"
SAMPLE_RATE = 8000  # Hz
SEED = 2024
FOLDS = (1, 2, 3, 4, 5)  # ESC-50 has five; fold 1 is for testing
CLIP_DURATION = 5  # s, as in ESC-50
N_CLIP = CLIP_DURATION * SAMPLE_RATE  # samples per noise clip
T = np.arange(N_CLIP) / SAMPLE_RATE  # s
FIRST_CLIP_ID = 900000  # above every Freesound number in ESC-50, so that no name is that of a real clip
N_BABBLE = 6  # clips
BABBLE_TARGET = 999  # only a seed: babble is no ESC-50 category
NEEDED = "make_sample.py needs the Debian packages flite, festival, festvox-kdlpc16k and espeak-ng."

# --- Speech -----------------------------------------------------------------------------------------------------------


class Voice(NamedTuple):
    """A speaker. The last digit of the number decides the split: 0 is for testing, 1 for validation.

    `tract` scales the formants and the pitch, as a shorter (above 1) or longer vocal tract does. `pitch_hz` is the mean
    pitch before that. `emphasis` (0 to 1) brightens a dull voice. No human source voice serves in two splits.
    """

    number: int
    sex: str
    synthesiser: str
    name: str
    tract: float = 1.0
    pitch_hz: float = 0.0  # 0 leaves the voice's own
    emphasis: float = 0.0


VOICES = [
    Voice(10, "F", "flite", "slt", emphasis=0.6),
    Voice(20, "M", "flite", "awb", emphasis=0.2),
    Voice(11, "M", "festival", "ked_diphone", pitch_hz=105),
    Voice(21, "F", "festival", "ked_diphone", tract=1.16, pitch_hz=165),
    Voice(12, "M", "flite", "rms", emphasis=0.2),
    Voice(13, "M", "flite", "kal16"),
    Voice(14, "F", "flite", "kal16", tract=1.16, pitch_hz=170),
    Voice(15, "F", "espeak-ng", "en-us+Annie"),
    Voice(16, "F", "espeak-ng", "en-gb-scotland+f2"),
    Voice(17, "F", "espeak-ng", "en-gb-x-rp+linda"),
    Voice(18, "M", "espeak-ng", "en-gb+m3"),
    Voice(19, "M", "flite", "rms", tract=1.13, emphasis=0.2),
]

# Six sentences for each voice, in the order of VOICES.
SENTENCES = """\
Good morning, you have reached the harbour office, and nobody is at the desk just now.
The blue van that delivers our bread was parked outside the school for almost an hour.
Could you please spell your surname for me, and give me the number of your contract?
A thin layer of frost covered the windows, so we scraped them with an old plastic card.
She bought three yellow cushions at the market and gave two of them to her neighbour.
I am calling about the washing machine that you repaired in our kitchen last Thursday.
Hello, this is the dental practice, we have to move your appointment to Friday at nine.
Most of the visitors walk straight past the small museum without ever noticing the door.
My brother plays the cello in an orchestra which travels through the country every June.
If the line is busy, please leave a short message and we will ring you back this evening.
The judge thought for a while, closed the thick folder, and asked for a glass of water.
Fresh ginger, garlic and a pinch of sugar make the sauce taste much better than before.
Thank you for waiting, I will now connect you with a colleague from the billing team.
Every autumn the storks gather in the meadow behind the mill before they fly away south.
The choir sang so quietly that we could hear the pigeons moving about under the roof.
Please hold the line while I check whether the parcel has already left our warehouse.
He wrote a long letter to his cousin in Perth, but the envelope came back unopened.
The path along the river is muddy in March, so take a pair of boots that keeps you dry.
Yes, I can hear you now, but there is a strange buzzing noise whenever you stop talking.
Two young foxes were playing on the lawn behind the hospital when the sun came up.
The chef puts a handful of walnuts and some goat cheese on top of the warm salad.
We would like to book a table for seven people on Saturday, preferably near the window.
Her grandfather repaired watches in a tiny shop between the bakery and the bus station.
The train to Oxford leaves from platform nine, but it will be roughly ten minutes late.
I lost my key card on the ferry this morning, can somebody block it for me right away?
Children usually learn to swim faster when the water is warm and the lessons are short.
The orchard on the hill gives us more plums and cherries than we could ever eat alone.
Good evening, I wanted to ask whether the rooms on the first floor have been painted yet.
A heavy truck had lost its load of gravel, and the whole junction was closed until noon.
Our teacher showed us how a prism breaks white light into all the colours of the rainbow.
You are now number four in the queue, and the average waiting time is about six minutes.
Nobody in the village remembers who carved the wooden horse that stands by the fountain.
The doctor advised him to drink more water and to go for a walk before breakfast each day.
I have transferred the money twice by mistake, so could you send half of it back to me?
The lighthouse keeper counted eleven fishing boats on their way to the open sea.
Put the dough in a bowl, cover it with a towel, and let it rest until it has doubled.
Excuse me, is this still the number of the garden centre on the corner of Mill Street?
The jury gave the first prize to a very short film about a shoemaker and his dog.
When the power failed, we lit four candles and told each other stories until midnight.
The newspaper says that both bridges will stay closed for repairs through the summer.
Welcome to the service line of the city library, our opening hours have just changed.
Pack an extra jumper, because the nights up in the mountains are colder than you think.
There is a fault on our telephone line, and the engineer cannot come before Wednesday.
The old oak behind the chapel was struck by lightning twice in the very same year.
Every measurement was taken three times, and then the average was written in the table.
Would you mind calling me again on my other phone, the battery of this one is nearly flat?
A flock of noisy geese crossed the frozen lake and settled down among the dry reeds.
They chose a quiet house at the edge of the forest, far away from the railway.
This is a message for the owner of the silver car that is blocking the entrance gate.
The violin maker lets the wood dry for seven years before he shapes the first piece.
Orange juice, a boiled egg and two slices of toast are all that she eats in the morning.
I would like to report a broken street lamp in front of the chemist on Victoria Road.
The little theatre was sold out, yet we found a couple of chairs in the very last row.
Chalk cliffs rise above the beach, and at low tide you can walk to the cave below them.
Good afternoon, we met at the trade fair in Leeds and talked about your new catalogue.
The gardener pushes a squeaky barrow past our office at exactly the same time every day.
My daughter has a high fever, could the paediatrician see her before the weekend?
They mixed sand, lime and water and rebuilt the broken wall in less than a fortnight.
Please choose from the following options, or stay on the line to speak to an adviser.
Zebras and giraffes were grazing together, while a lioness watched from the tall grass.
The committee has agreed to buy new chairs, but it will not pay for another projector.
I am sorry, the gentleman you want to speak to has gone home, may I take a message?
In the cellar we discovered a trunk full of maps, medals and yellowed photographs.
A gentle breeze carried the smell of fresh hay across the yard and into the kitchen.
The pilot told us in a calm voice that we would land on the other side of the island.
Hi, it is me again, I forgot to mention that the meeting starts a quarter of an hour early.
Some of the oldest books in this room were copied by hand more than six centuries ago.
The baker opens at five, and a queue of sleepy people is already waiting at the door.
Your order was shipped on Monday, and you should receive it by the end of this week.
Tomorrow will be cloudy at first, with sunny spells and a light wind in the afternoon.
We pushed the stranded rowing boat back into the water and jumped in one after another.
Just press the green button, speak after the tone, and hang up when you have finished."""


def synthesiser_command(voice: Voice, stretch: float, path: Path) -> list[str]:
    """The command that reads text from its standard input and writes WAV to `path`, `stretch` times as long."""
    if voice.synthesiser == "flite":
        pitch = ["--setf", f"int_f0_target_mean={voice.pitch_hz}"] if voice.pitch_hz else []
        return ["flite", "-voice", voice.name, "--setf", f"duration_stretch={stretch:.3f}", *pitch, "-", str(path)]
    if voice.synthesiser == "festival":
        intonation = f"((target_f0_mean {voice.pitch_hz}) (target_f0_std 18) (model_f0_mean 170) (model_f0_std 34))"
        settings = (
            f"(voice_{voice.name})",
            f"(Parameter.set 'Duration_Stretch {stretch:.3f})",
            f"(set! int_lr_params '{intonation})",
        )
        return ["text2wave", "-o", str(path), *(part for setting in settings for part in ("-eval", setting))]
    words_per_minute = str(round(165 / stretch))
    return ["espeak-ng", "-v", voice.name, "-s", words_per_minute, "-w", str(path)]


def synthesise(voice: Voice, text: str, stretch: float) -> np.ndarray:
    """Speech of `voice`, shape (samples,) at 8 kHz, `stretch` times as long as usual, without silence at the ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        # Played faster by `tract`, formants and pitch rise together: so the synthesiser speaks slower by as much.
        command = synthesiser_command(voice, stretch * voice.tract, path)
        try:
            subprocess.run(command, input=text, text=True, capture_output=True, check=True)
            speech, sample_rate = sf.read(path, dtype="float32")
        except (OSError, subprocess.CalledProcessError, sf.LibsndfileError):  # festival lacks a voice, but exits with 0
            raise SystemExit(NEEDED) from None
    speech = librosa.resample(speech, orig_sr=sample_rate * voice.tract, target_sr=SAMPLE_RATE, res_type="soxr_vhq")
    speech = librosa.effects.preemphasis(speech, coef=voice.emphasis)
    return librosa.effects.trim(speech, top_db=40, frame_length=256, hop_length=64)[0]


def check_voices() -> None:
    """flite reads with another voice where it lacks one, without a word; so ask first."""
    try:
        available = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        available = []
    if not {voice.name for voice in VOICES if voice.synthesiser == "flite"} <= set(available):
        raise SystemExit(NEEDED)


def write_speech(folder: Path) -> dict[int, list[np.ndarray]]:
    """Writes all utterances, transcripts and the table of speakers; returns the utterances by speaker number."""
    utterances = {}
    sentences = np.array_split(SENTENCES.splitlines(), len(VOICES))
    for voice, texts in zip(VOICES, sentences, strict=True):
        rng = np.random.default_rng([SEED, voice.number])
        chapter = 1000 + voice.number
        target = folder / "sample" / str(voice.number) / str(chapter)
        target.mkdir(parents=True)
        speaker_peak_db = rng.uniform(-9, -4)
        transcripts, utterances[voice.number] = [], []
        for i, text in enumerate(texts):
            speech = synthesise(voice, str(text), stretch=rng.uniform(0.95, 1.2))
            silences = rng.integers(0.2 * SAMPLE_RATE, 0.4 * SAMPLE_RATE, size=2)  # before and after
            speech = np.pad(normalise(speech, speaker_peak_db + rng.uniform(-1, 1)), silences)
            utterance_id = f"{voice.number}-{chapter}-{i:04d}"
            sf.write(target / f"{utterance_id}.flac", speech, SAMPLE_RATE, subtype="PCM_16")
            transcripts.append(f"{utterance_id} {text.upper().translate(str.maketrans('', '', ',.?'))}\n")
            utterances[voice.number].append(speech)
        (target / f"{voice.number}-{chapter}.trans.txt").write_text("".join(transcripts))
    write_speakers(folder / "SPEAKERS.TXT", utterances)
    return utterances


def write_speakers(path: Path, utterances: dict[int, list[np.ndarray]]) -> None:
    """Writes the table of speakers in the format of LibriSpeech."""
    lines = [
        "; Synthetic voices: no human speaker was recorded for this sample.\n",
        "; ID  |SEX| SUBSET           |MINUTES| NAME\n",
    ]
    for voice in sorted(VOICES):
        minutes = sum(map(len, utterances[voice.number])) / SAMPLE_RATE / 60
        name = f"Synthetic, {voice.synthesiser} {voice.name}"
        if voice.tract != 1:
            name += f", vocal tract scaled by {voice.tract}"
        lines.append(f"{voice.number:<6}| {voice.sex} | {'sample':<17}| {minutes:<6.2f}| {name}\n")
    path.write_text("".join(lines))


# --- Tools for noise --------------------------------------------------------------------------------------------------
# Signals have shape (samples,), times are in seconds, frequencies in hertz. All draw from the given generator.


def normalise(x: np.ndarray, peak_db: float) -> np.ndarray:
    """`x` without DC and rumble below 30 Hz, its peak at `peak_db` dBFS."""
    x = signal.sosfilt(signal.butter(2, 30, "highpass", fs=SAMPLE_RATE, output="sos"), x)
    return x * 10 ** (peak_db / 20) / np.abs(x).max()


def coloured_noise(rng, slope_db=0.0, n=N_CLIP):
    """Noise of unit power whose spectrum rises by `slope_db` per octave (-3 is pink, -6 brown)."""
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gain = np.maximum(frequency, 20) ** (slope_db / (20 * np.log10(2)))  # flat below 20 Hz
    x = np.fft.irfft(gain * np.fft.rfft(rng.standard_normal(n)), n)
    return x / x.std()


def band(x, low, high, order=2):
    """`x` between two frequencies."""
    return signal.sosfilt(signal.butter(order, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), x)


def drift(rng, rate, low=0.0, high=1.0):
    """A smooth random curve of N_CLIP values in [low, high] that turns about `rate` times per second."""
    knots = rng.uniform(low, high, int(rate * CLIP_DURATION) + 3)
    position = np.linspace(0, len(knots) - 1.001, N_CLIP)
    left = position.astype(int)
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - left))  # half cosines between the knots: no overshoot
    return (1 - weight) * knots[left] + weight * knots[left + 1]


def shape(x, gain):
    """`x` through a filter that changes in time: `gain(f, i)` of a column of frequencies and a row of samples."""
    f, t, spectrum = signal.stft(x, SAMPLE_RATE, nperseg=512)
    i = np.minimum((t * SAMPLE_RATE).astype(int), N_CLIP - 1)
    return signal.istft(spectrum * gain(f[:, None], i[None]), SAMPLE_RATE, nperseg=512)[1][:N_CLIP]


def ring(frequencies, decay, amplitudes=1.0):
    """The sum of damped sines after one blow; `decay` (one for all, or one each) is the time to 1/e."""
    frequencies, decay, amplitudes = np.broadcast_arrays(frequencies, decay, amplitudes)
    t = np.arange(int(6 * decay.max() * SAMPLE_RATE))[:, None] / SAMPLE_RATE
    return (amplitudes * np.exp(-t / decay) * np.sin(2 * np.pi * frequencies * t)).sum(axis=1)


def burst(rng, low, high, decay):
    """A band of noise that dies away, with a soft onset of a sixth of `decay`."""
    t = np.arange(int(6 * decay * SAMPLE_RATE)) / SAMPLE_RATE
    return band(rng.standard_normal(len(t)), low, high, 1) * np.exp(-t / decay) * (1 - np.exp(-6 * t / decay))


def place(sounds):
    """One clip out of pairs of time and sound; what is outside of the clip is cut."""
    clip = np.zeros(N_CLIP)
    for time, sound in sounds:
        start = int(time * SAMPLE_RATE)
        if 0 <= start < N_CLIP:
            clip[start : start + len(sound)] += sound[: N_CLIP - start]
    return clip


def impulses(rng, rate, tail=2.0):
    """`rate` blows per second at random times; their strengths follow a power law (smaller `tail`: rarer, stronger)."""
    n = rng.poisson(rate * CLIP_DURATION)
    clip = np.zeros(N_CLIP)
    np.add.at(clip, rng.integers(N_CLIP, size=n), np.minimum(rng.pareto(tail, n), 20) * rng.choice((-1, 1), n))
    return clip


def beats(rng, period, jitter=0.0):
    """Times, `period` apart, each off by `jitter` periods (standard deviation), over the whole clip."""
    times = np.arange(rng.uniform(0, period), CLIP_DURATION, period)
    return times + jitter * period * rng.standard_normal(len(times))


def harmonics(pitch, amplitudes):
    """A tone with the given pitch in every sample, and one amplitude per harmonic; none above 3.9 kHz."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return sum(a * np.sin(k * phase) * (k * pitch < 3900) for k, a in enumerate(amplitudes, start=1))


def reverberate(rng, x, seconds, wet=0.3):
    """`x` in a room or a street whose echoes take `seconds` to die away by 60 dB."""
    n = int(seconds * SAMPLE_RATE)
    tail = coloured_noise(rng, -3, n) * np.exp(-6.9 * np.arange(n) / n)
    return x + wet * signal.fftconvolve(x, tail / np.linalg.norm(tail))[:N_CLIP]


def over(rng, x, background_db, slope_db=-4.0):
    """`x` at unit peak over a place's own quiet noise, whose power is `background_db` below that peak."""
    return x / np.abs(x).max() + 10 ** (background_db / 20) * coloured_noise(rng, slope_db)


# --- One model for each ESC-50 category: random generator -> clip of shape (N_CLIP,) ----------------------------------


def rain(rng):
    """Thousands of small drops melt into a hiss; the near ones ring in what they hit."""
    clip = coloured_noise(rng, rng.uniform(-5, -1)) * drift(rng, 1, 0.8, 1)
    for _ in range(12):
        surface = ring(rng.uniform(300, 3500, 2), rng.uniform(0.0003, 0.0015))
        clip += signal.fftconvolve(impulses(rng, rng.uniform(10, 150), tail=3), surface)[:N_CLIP]
    return clip


def sea_waves(rng):
    """Swells: with the surge the noise gets louder and brighter, then the foam hisses out; far waves roar on."""
    period = rng.uniform(2.5, 6)
    age = (T / period + rng.uniform() + 0.15 * drift(rng, 0.5)) % 1  # of the present wave, 0 to 1
    surge = np.clip(age / 0.35, 0, 1) ** 2 * np.exp(-np.clip(age - 0.35, 0, 1) / 0.25) * drift(rng, 0.7, 0.5, 1)
    brightness, surf = rng.uniform(1000, 3000), band(coloured_noise(rng, -1), 120, 3700, 1)
    foam = shape(surf, lambda f, i: 1 / (1 + (f / (350 + brightness * surge[i])) ** 2))
    return foam * (0.2 + surge) + rng.uniform(0.1, 0.3) * coloured_noise(rng, -4)


def crackling_fire(rng):
    """Cracks of very different strength, in flurries, over the low roar of the flames."""
    clip = np.zeros(N_CLIP)
    for _ in range(5):
        wood = ring(rng.uniform(600, 3600, 4), rng.uniform(0.0004, 0.002))
        cracks = impulses(rng, rng.uniform(2, 10), tail=1.5) * drift(rng, 2) ** 2
        clip += signal.fftconvolve(cracks, wood)[:N_CLIP]
    clip /= np.abs(clip).max()
    roar = coloured_noise(rng, -6) * drift(rng, 5, 0.4, 1)
    return clip + 10 ** rng.uniform(-2, -1) * roar + 10 ** rng.uniform(-3, -2) * coloured_noise(rng, -1)


def crickets(rng):
    """Two or three insects, each with its own pitch and rate of chirps; a chirp is a few pulses of the wings."""
    clip = np.zeros(N_CLIP)
    for _ in range(rng.integers(2, 4)):
        pitch, pulse_rate, n_pulses = rng.uniform(2300, 3800), rng.uniform(25, 50), rng.integers(2, 6)
        pulse = np.hanning(int(0.7 * SAMPLE_RATE / pulse_rate))
        pulse = pulse * np.sin(2 * np.pi * pitch * T[: len(pulse)])
        chirps = beats(rng, n_pulses / pulse_rate + rng.uniform(0.08, 0.4), jitter=0.03)
        clip += rng.uniform(0.2, 1) * place((t + k / pulse_rate, pulse) for t in chirps for k in range(n_pulses))
    return over(rng, clip, rng.uniform(-40, -15))


def water_drops(rng):
    """A drop closes a bubble of air under the surface, which rings and rises in pitch as it shrinks (Minnaert)."""
    drops = []
    for time in beats(rng, rng.uniform(0.25, 0.9), jitter=0.15):
        t = T[: int(0.15 * SAMPLE_RATE)]
        phase = 2 * np.pi * rng.uniform(500, 1800) * (t + rng.uniform(1, 5) * t**2)
        drops.append((time, rng.uniform(0.3, 1) * np.exp(-t / rng.uniform(0.01, 0.04)) * np.sin(phase)))
        drops.append((time - 0.01, 0.2 * burst(rng, 800, 3500, 0.003)))
    return over(rng, reverberate(rng, place(drops), rng.uniform(0.3, 1.2)), rng.uniform(-55, -38))


def wind(rng):
    """Gusts of brown noise, and a whistle at edges: a resonance that gets higher and louder with the wind's speed."""
    speed = 0.75 * drift(rng, 0.6) + 0.25 * drift(rng, 3)
    centre, width = rng.uniform(150, 350) + rng.uniform(200, 700) * speed, rng.uniform(40, 200)
    whistle = shape(coloured_noise(rng), lambda f, i: 1 / (1 + ((f - centre[i]) / width) ** 2)) * speed**2
    gusts = band(coloured_noise(rng, rng.uniform(-6, -4)), 80, 3000, 1)
    return gusts * (0.2 + speed) ** 1.5 + rng.uniform(0.5, 3) * whistle


def footsteps(rng):
    """Heel, then toe: a thump of the floor, a click of the sole, and grit that is rubbed."""
    floor, grit = rng.uniform(70, 180), rng.uniform(0.1, 0.6)
    steps = []
    for time in beats(rng, rng.uniform(0.45, 0.7), jitter=0.06):
        for delay, strength in ((0, 1), (rng.uniform(0.07, 0.13), rng.uniform(0.3, 0.6))):
            strength *= rng.uniform(0.6, 1)
            steps.append((time + delay, strength * ring([floor, 2.3 * floor], [0.02, 0.01], [0.5, 0.4])))
            steps.append((time + delay, strength * rng.uniform(0.4, 1) * burst(rng, 200, 1500, 0.015)))
            steps.append((time + delay, strength * grit * burst(rng, 1500, 3800, 0.04)))
    return over(rng, reverberate(rng, place(steps), rng.uniform(0.2, 0.8)), rng.uniform(-50, -25))


def keyboard_typing(rng):
    """Irregular keystrokes in bursts of words; each key clicks when it goes down and, weaker, when it comes up."""
    strokes, time = [], rng.uniform(0, 0.3)
    case = rng.uniform((150, 900, 1800), (350, 1600, 3400))  # resonances of this keyboard
    while time < CLIP_DURATION:
        for delay, strength in ((0, 1), (rng.uniform(0.06, 0.11), rng.uniform(0.2, 0.5))):
            strength *= rng.uniform(0.4, 1)
            key = ring(case * rng.uniform(0.9, 1.1, 3), (0.008, 0.003, 0.002), (0.8, 0.6, 0.6))
            strokes += [(time + delay, strength * key), (time + delay, strength * burst(rng, 1000, 3800, 0.004))]
        time += rng.lognormal(np.log(0.13), 0.4) + (rng.uniform() < 0.15) * rng.uniform(0.2, 0.5)
    return over(rng, reverberate(rng, place(strokes), 0.2), rng.uniform(-48, -32))


def washing_machine(rng):
    """Motor hum and whine that come and go with the drum's turns, laundry that falls, and water that sloshes."""
    period = rng.uniform(0.8, 1.6)
    turn = 0.5 + 0.5 * np.sin(2 * np.pi * (T / period + 0.5 * drift(rng, 1)))
    hum = harmonics(rng.uniform(45, 100) * (1 + 0.05 * turn), 1 / np.arange(1, 20) ** rng.uniform(0.6, 1.2))
    whine = harmonics(rng.uniform(400, 1200) * (1 + 0.005 * turn), rng.uniform(0, 0.4, 3))
    thuds = place((t, burst(rng, 60, 600, rng.uniform(0.03, 0.08))) for t in beats(rng, period / 2, jitter=0.2))
    slosh = band(coloured_noise(rng, -4), 200, 3000, 1) * (0.4 + turn) * drift(rng, 8, 0.3, 1)
    return 0.25 * (hum + whine) * (0.5 + turn) + thuds + rng.uniform(0.2, 0.8) * slosh + 0.3 * coloured_noise(rng, -5)


def vacuum_cleaner(rng):
    """Rushing air, coloured by the hose, and the motor's whine with sidebands of the mains."""
    speed = rng.uniform(180, 420) * (1 + 0.01 * drift(rng, 1))
    amplitudes = rng.uniform(0.1, 1, 16) / np.arange(1, 17) ** 0.7
    whine = harmonics(speed, amplitudes) * (1 + 0.2 * np.sin(2 * np.pi * 100 * T))
    air = coloured_noise(rng, rng.uniform(-4, -1))
    hose = sum(band(air, f, 1.3 * f, 1) for f in rng.uniform(400, 2800, 3))
    return (air + 1.5 * hose + rng.uniform(0.4, 1.0) * whine) * drift(rng, 2, 0.85, 1)


def clock_tick(rng):
    """The two blows of an escapement, tick and tock, each a few damped resonances of the case."""
    blows = []
    for _ in range(2):
        modes = ring(rng.uniform(700, 3700, 5), rng.uniform(0.002, 0.012, 5), rng.uniform(0.3, 1, 5))
        wheel = np.pad(modes * rng.uniform(0.1, 0.4), (int(rng.uniform(0.01, 0.03) * SAMPLE_RATE), 0))
        blows.append(np.pad(modes, (0, len(wheel) - len(modes))) + wheel)
    times = beats(rng, rng.choice((0.2, 0.25, 0.5, 0.5, 1.0)), jitter=0.002)
    return over(
        rng, reverberate(rng, place((t, blows[i % 2]) for i, t in enumerate(times)), 0.3), rng.uniform(-50, -30)
    )


def helicopter(rng):
    """Each rotor blade slaps the air as it passes; the turbine roars, loudest when a blade comes near."""
    rate = rng.uniform(11, 22)
    slap = ring(rng.uniform((60, 120, 300), (120, 300, 900)), (0.012, 0.008, 0.004), (0.6, 1, 0.7))
    slaps = place((t, slap * rng.uniform(0.8, 1)) for t in beats(rng, 1 / rate, jitter=0.02))
    slaps = slaps / np.abs(slaps).max()
    near = signal.fftconvolve(np.abs(slaps), np.hanning(200) / 100, mode="same")
    tail_rotor = harmonics(np.full(N_CLIP, 5.3 * rate), 0.5 ** np.arange(1, 8))
    roar = band(coloured_noise(rng, -3), 80, 3500, 1) * (0.2 + near)
    return (slaps + rng.uniform(0.3, 1.5) * roar + 0.1 * tail_rotor) * drift(rng, 0.4, 0.5, 1)


def siren(rng):
    """Wail (slow sweeps), yelp (fast sweeps) or two tones, through a horn, with echoes from the houses."""
    rate, kind = rng.choice((0.3, 0.5, 1.0, 3.5)), rng.choice(("sweep", "sweep", "two tones"))
    low = rng.uniform(420, 700)
    sweep = np.sin(2 * np.pi * (rate * T + rng.uniform()))
    glide = 0.5 + 0.5 * (sweep if kind == "sweep" else np.tanh(20 * sweep))
    tone = harmonics(low * rng.uniform(1.3, 2.2) ** glide, (1, 0.5, 0.6, 0.3, 0.25, 0.15, 0.1)) * drift(rng, 1, 0.5, 1)
    return over(rng, reverberate(rng, tone, rng.uniform(0.8, 2), wet=0.6), rng.uniform(-35, -20), slope_db=-5)


def engine(rng):
    """Firing pulses, no two cylinders alike, through the resonances of the exhaust; rough air in the same rhythm."""
    firing_rate = rng.uniform(12, 60) * (1 + rng.uniform(0, 0.3) * drift(rng, 0.6))
    cylinders = rng.uniform(0.6, 1, 4)
    n_fired = np.cumsum(firing_rate) / SAMPLE_RATE
    fired = np.flatnonzero(np.diff(np.floor(n_fired)))
    pulses = np.zeros(N_CLIP)
    pulses[fired] = cylinders[np.arange(len(fired)) % 4] * rng.uniform(0.8, 1, len(fired))
    exhaust = ring(rng.uniform((60, 150, 400, 1000), (120, 350, 900, 2400)), (0.01, 0.005, 0.001, 0.0004))
    rough_air = (0.2 + np.exp(-4 * (n_fired % 1))) * coloured_noise(rng, rng.uniform(-4, -2))
    return signal.fftconvolve(pulses, exhaust)[:N_CLIP] + rng.uniform(0.1, 0.5) * rough_air


def train(rng):
    """The rumble of the wagons, and the double blow of each bogie's two axles at every rail joint."""
    rumble = coloured_noise(rng, -6) * drift(rng, 3, 0.5, 1) + 0.3 * band(coloured_noise(rng), 200, 1000, 1)
    period, axle_gap = rng.uniform(0.7, 1.3), rng.uniform(0.12, 0.2)
    rail = ring(rng.uniform(300, 1800, 4), rng.uniform(0.005, 0.02, 4))
    blows = []
    for time in beats(rng, period, jitter=0.03):
        strength = rng.uniform(0.5, 1.5)
        for delay in (0, axle_gap):
            blows.append((time + delay, strength * rng.uniform(0.2, 0.6) * rail))
            blows.append((time + delay, strength * rng.uniform(2, 5) * burst(rng, 80, 1500, 0.05)))
    return rumble + reverberate(rng, place(blows), 0.5)


def church_bells(rng):
    """Bells with the partials of a minor-third bell (hum, prime, tierce, quint, nominal and above), in a peal."""
    ratios = np.array((0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4, 5.3))
    decays = np.array((3, 1.8, 1.6, 1, 0.9, 0.5, 0.4, 0.35, 0.2, 0.1))
    strikes = []
    for prime in rng.uniform(250, 700, rng.integers(1, 4)):
        partials = prime * ratios * rng.uniform(0.99, 1.01, len(ratios))
        partials = np.concatenate((partials, partials + rng.uniform(0.5, 2)))  # no bell is quite round: it beats
        amplitudes = rng.uniform(0.3, 1, len(partials)) * (partials < 3900)
        bell = ring(partials, np.tile(decays, 2), amplitudes)
        strikes += [(t, bell * rng.uniform(0.6, 1)) for t in beats(rng, rng.uniform(0.9, 2), jitter=0.03)]
    return over(rng, reverberate(rng, place(strikes), 1.5, wet=0.5), rng.uniform(-50, -30))


# ESC-50's number of each category, and whether the category is in ESC-10 as well.
CATEGORIES = {
    rain: (10, True),
    sea_waves: (11, True),
    crackling_fire: (12, True),
    crickets: (13, False),
    water_drops: (15, False),
    wind: (16, False),
    footsteps: (25, False),
    keyboard_typing: (32, False),
    washing_machine: (35, False),
    vacuum_cleaner: (36, False),
    clock_tick: (38, True),
    helicopter: (40, True),
    siren: (42, False),
    engine: (44, False),
    train: (45, False),
    church_bells: (46, False),
}


def write_noise(folder: Path) -> None:
    """Writes one clip per category and fold, and ESC-50's table of them."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    with open(folder / "meta" / "esc50.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("filename", "fold", "target", "category", "esc10", "src_file", "take"))
        for fold in FOLDS:
            for model, (target, esc10) in CATEGORIES.items():
                rng = np.random.default_rng([SEED, target, fold])
                clip_id = FIRST_CLIP_ID + 10 * target + fold
                name = f"{fold}-{clip_id}-A-{target}.wav"
                clip = normalise(model(rng), rng.uniform(-12, -3))
                sf.write(folder / "audio" / name, clip, SAMPLE_RATE, subtype="PCM_16")
                table.writerow((name, fold, target, model.__name__, esc10, clip_id, "A"))


def write_babble(folder: Path, utterances: dict[int, list[np.ndarray]]) -> None:
    """Writes sums of 4 to 6 voices that talk without a break: of training speakers only, so that nothing leaks."""
    folder.mkdir()
    training = [number for number in utterances if number % 10 not in (0, 1)]
    for i in range(N_BABBLE):
        rng = np.random.default_rng([SEED, BABBLE_TARGET, i])
        n = int(rng.uniform(6, 9) * SAMPLE_RATE)
        babble = np.zeros(n)
        for number in rng.choice(training, rng.integers(4, 7), replace=False):
            talk = np.concatenate(utterances[number])
            babble += rng.uniform(0.5, 1) * np.roll(talk, rng.integers(len(talk)))[:n]
        sf.write(folder / f"babble-{i + 1}.wav", normalise(babble, rng.uniform(-9, -3)), SAMPLE_RATE, subtype="PCM_16")


def main() -> None:
    """Makes everything in a temporary folder, and replaces data/sample/ only when all of it is there."""
    check_voices()
    with tempfile.TemporaryDirectory(dir=SAMPLE.parent) as folder:  # on the same disk, so that renaming is enough
        new = Path(folder) / "sample"
        utterances = write_speech(new / "LibriSpeech")
        write_noise(new / "ESC-50")
        write_babble(new / "babble", utterances)
        shutil.rmtree(SAMPLE, ignore_errors=True)
        new.rename(SAMPLE)


if __name__ == "__main__":
    main()
