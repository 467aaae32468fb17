"""Inputs that look like what people give to models: photographs, pages, speech, music, sentences.

All are made from a seed, so no data has to be fetched: they have the value range, the smoothness and the
structure of the real thing, which noise lacks. `MAKERS` has them by the names that samples/models.toml uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAKERS", "make"]

_Array = NDArray[Any]
_Random = np.random.Generator

_RATE = 16000


def make(how: str, shape: Sequence[int], seed: int, *, scale: float = 1.0, shift: float = 0.0) -> _Array:
    """An input of `shape`, made by the maker `how`, each value times `scale` plus `shift`.

    A model that wants pixels between -1 and 1 has a scale of 2 and a shift of -1; one that wants them up to
    255 has a scale of 255.

    Raises:
        KeyError: there is no such maker.
    """
    made = MAKERS[how](tuple(shape), np.random.default_rng(seed))
    return made if (scale, shift) == (1.0, 0.0) else (made * scale + shift).astype(made.dtype)


# Images -----------------------------------------------------------------------------------------------------

#: Seven rows of five pixels for each sign.
_GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 17, 25, 21, 19, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "X": (17, 17, 10, 4, 10, 17, 17),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


def _ink(text: str, size: int) -> _Array:
    """The pixels of a line of text, 1 where there is ink; each pixel of a sign is `size` pixels wide."""
    signs = [
        [[row >> (4 - column) & 1 for column in range(5)] + [0] for row in _GLYPHS[sign]] for sign in text
    ]
    return np.kron(np.concatenate(signs, axis=1), np.ones((size, size)))


def _text(random: _Random, length: int) -> str:
    return "".join(random.choice(list(_GLYPHS), length))


def _grey(shape: tuple[int, ...], draw: Callable[[int, int], _Array]) -> _Array:
    """An image as (batch, channels, height, width): each plane as `draw` makes it, between 0 and 1."""
    planes = [draw(shape[2], shape[3]) for _ in range(shape[0])]
    return np.stack([np.stack([plane] * shape[1]) for plane in planes]).astype(np.float32)


def _blurred(image: _Array) -> _Array:
    """What a lens leaves of edges."""
    for axis in (0, 1):
        image = 0.25 * np.roll(image, 1, axis) + 0.5 * image + 0.25 * np.roll(image, -1, axis)
    return image


def _line(shape: tuple[int, ...], random: _Random) -> _Array:
    """One line of dark text on a light ground, as high as the image allows."""

    def draw(height: int, width: int) -> _Array:
        size = max(1, height // 10)
        image = np.full((height, width), random.uniform(0.8, 1.0))
        ink = _ink(_text(random, width // (6 * size)), size)
        top = (height - ink.shape[0]) // 2
        image[top : top + ink.shape[0], : ink.shape[1]] -= 0.7 * ink
        return np.clip(_blurred(image) + 0.02 * random.standard_normal(image.shape), 0, 1)

    return _grey(shape, draw)


def _page(shape: tuple[int, ...], random: _Random) -> _Array:
    """Lines of text of several sizes on paper."""

    def draw(height: int, width: int) -> _Array:
        image = np.full((height, width), 0.92) - 0.1 * np.linspace(0, 1, width)
        top = height // 20
        while top < height - 50:
            size = int(random.integers(2, 5))
            ink = _ink(_text(random, int(0.9 * width) // (6 * size)), size)
            left = width // 20
            image[top : top + ink.shape[0], left : left + ink.shape[1]] -= 0.75 * ink
            top += 12 * size
        return np.clip(_blurred(image) + 0.02 * random.standard_normal(image.shape), 0, 1)

    return _grey(shape, draw)


def _photo(shape: tuple[int, ...], random: _Random) -> _Array:
    """Waves of many sizes whose strength falls with their frequency, as in photographs, and some discs."""
    batch, channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency[0, 0] = 1
    down, across = np.mgrid[0:height, 0:width]
    image = np.empty(shape)
    for item in range(batch):
        shared = random.standard_normal((height, width))
        for channel in range(channels):
            noise = shared + 0.4 * random.standard_normal((height, width))
            plane = np.real(np.fft.ifft2(np.fft.fft2(noise) / frequency))
            image[item, channel] = (plane - plane.min()) / np.ptp(plane)
        for _ in range(4):
            row, column = random.uniform(0, height), random.uniform(0, width)
            disc = np.hypot(down - row, across - column) < random.uniform(0.05, 0.2) * height
            image[item][:, disc] = 0.5 * image[item][:, disc] + 0.5 * random.uniform(0, 1, (channels, 1))
    return np.asarray(image, np.float32)


# Sound ------------------------------------------------------------------------------------------------------


def _voice(samples: int, random: _Random) -> _Array:
    """Syllables: the overtones of a falling pitch, louder around three formants, and breath."""
    time = np.arange(samples) / _RATE
    pitch = random.uniform(90, 220) * (1 - 0.1 * time + 0.05 * np.sin(2 * np.pi * 3 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    formants = np.array([random.uniform(300, 800), random.uniform(900, 2200), random.uniform(2300, 3000)])
    sound = np.zeros(samples)
    for overtone in range(1, 30):
        strength = np.exp(-(((overtone * pitch[:, None] - formants) / 200) ** 2)).sum(axis=1) + 0.02
        sound += strength * np.sin(overtone * phase) / overtone**0.5
    syllables = np.clip(np.sin(2 * np.pi * 4 * time + random.uniform(0, 6)) + 0.4, 0, 1)
    sound = sound / (np.abs(sound).max() + 1e-9) * syllables
    return np.asarray(np.clip(0.5 * sound + 0.003 * random.standard_normal(samples), -1, 1))


def _speech(shape: tuple[int, ...], random: _Random) -> _Array:
    """A voice at 16 kHz along the last axis, between -1 and 1."""
    flat = _voice(int(np.prod(shape)), random)
    return np.asarray(flat.reshape(shape), np.float32)


def _music(shape: tuple[int, ...], random: _Random) -> _Array:
    """Plucked notes of a scale at 22.05 kHz along the longest axis, between -1 and 1."""
    samples = int(np.prod(shape))
    time = np.arange(samples) / 22050
    sound = np.zeros(samples)
    for start in np.arange(0, samples / 22050, 0.25):
        pitch = 220 * 2 ** (random.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        since = np.clip(time - start, 0, None)
        for overtone in range(1, 6):
            sound += np.sin(2 * np.pi * overtone * pitch * since) * np.exp(-4 * since) / overtone**1.5
    return np.asarray(0.8 * sound / np.abs(sound).max(), np.float32).reshape(shape)


def _mel(shape: tuple[int, ...], random: _Random) -> _Array:
    """Speech as Whisper's feature extractor gives it: (batch, mel bands, frames of 10 ms), about -1 to 1.

    The source of the formula is ``WhisperFeatureExtractor`` of transformers; the bands are those of HTK.
    """
    batch, bands, frames = shape
    window, step = 400, 160
    bins = np.linspace(0, _RATE / 2, window // 2 + 1)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + _RATE / 1400), bands + 2) / 2595) - 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    made = []
    for _ in range(batch):
        sound = np.pad(_voice(frames * step, random), window // 2, mode="reflect")
        cut = np.lib.stride_tricks.sliding_window_view(sound, window)[::step][:frames]
        power = np.abs(np.fft.rfft(cut * np.hanning(window))) ** 2
        logs = np.log10(np.clip(filters @ power.T, 1e-10, None))
        made.append((np.maximum(logs, logs.max() - 8) + 4) / 4)
    return np.stack(made).astype(np.float32)


# Text -------------------------------------------------------------------------------------------------------

#: As BERT's uncased vocabulary has them, between [CLS] and [SEP].
_SENTENCES = (
    # the quick brown fox jumps over the lazy dog
    (101, 1996, 4248, 2829, 4419, 14523, 2058, 1996, 13971, 3899, 102),
    # this is an example sentence .
    (101, 2023, 2003, 2019, 2742, 6251, 1012, 102),
    # hello , how are you ?
    (101, 7592, 1010, 2129, 2024, 2017, 1029, 102),
)


def _sentence(random: _Random) -> tuple[int, ...]:
    return _SENTENCES[int(random.integers(len(_SENTENCES)))]


def _token_ids(shape: tuple[int, ...], random: _Random) -> _Array:
    """A sentence in BERT's vocabulary, padded with 0."""
    ids = np.zeros(shape, np.int64)
    for row in ids:
        sentence = _sentence(random)[: len(row)]
        row[: len(sentence)] = sentence
    return ids


def _token_mask(shape: tuple[int, ...], random: _Random) -> _Array:
    """1 at the tokens of the sentence that `_token_ids` makes from the same seed."""
    return np.asarray(_token_ids(shape, random) != 0, np.int64)


def _phonemes(shape: tuple[int, ...], random: _Random) -> _Array:
    """What piper makes of a sentence: ids of phonemes with 0 between them, from 1 (^) to 2 ($)."""
    ids = np.zeros(shape, np.int64)
    ids[:, 2:-2:2] = random.integers(14, 60, ids[:, 2:-2:2].shape)
    ids[:, 2:-2:10] = 3
    ids[:, 0], ids[:, -1] = 1, 2
    return ids


def _letters(space: int, first: int, last: int) -> Callable[[tuple[int, ...], _Random], _Array]:
    """Words of two to six letters `first` to `last`, with `space` between them: ids of a character model."""

    def draw(shape: tuple[int, ...], random: _Random) -> _Array:
        ids = np.full(shape, space, np.int64)
        for row in ids:
            at = 0
            while at < len(row):
                length = int(random.integers(2, 7))
                row[at : at + length] = random.integers(first, last + 1, len(row[at : at + length]))
                at += length + 1
        return ids

    return draw


_SOURCE = b"import sys\n\n\ndef main():\n    for line in sys.stdin:\n        print(line.strip())\n\n\n"


def _file(shape: tuple[int, ...], random: _Random) -> _Array:
    """The bytes of a short Python file as magika takes them: its start, 256 as padding, and its end."""
    ids = np.full(shape, 256, np.int32)
    half = shape[1] // 2
    for row in ids:
        content = _SOURCE * int(random.integers(1, 5))
        start = np.frombuffer(content, np.uint8)[:half]
        row[: len(start)] = start
        row[shape[1] - len(start) :] = start
    return ids


def _zeros(shape: tuple[int, ...], random: _Random) -> _Array:
    """The state of a recurrent model before its first step."""
    return np.zeros(shape, np.float32)


def _zero_ids(shape: tuple[int, ...], random: _Random) -> _Array:
    """One segment: BERT's ``token_type_ids`` of a single sentence."""
    return np.zeros(shape, np.int64)


#: The makers by name.
MAKERS: Mapping[str, Callable[[tuple[int, ...], _Random], _Array]] = MappingProxyType(
    {
        "file": _file,
        # Arabic in the vocabularies of text2tashkeel's models.
        "letters-libtashkeel": _letters(1, 24, 53),
        "letters-rawi": _letters(3, 149, 179),
        "line": _line,
        "mel": _mel,
        "music": _music,
        "page": _page,
        "phonemes": _phonemes,
        "photo": _photo,
        "speech": _speech,
        "token-ids": _token_ids,
        "token-mask": _token_mask,
        "zero-ids": _zero_ids,
        "zeros": _zeros,
    }
)
