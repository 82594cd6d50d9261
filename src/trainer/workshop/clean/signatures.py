"""MinHash signatures of texts, many at a time, as digests of bands: rows that share a band may be alike.

Each text is the set of its runs of six bytes. datasketch makes the same signatures a text at a time (a test compares
them), in nine times as long; and its index of a million rows would take gigabytes, where sorted arrays take 128 MB.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.workshop.clean.said import SEPARATOR

RUN_BYTES = 6
NUM_BANDS = 16
ROWS_OF_A_BAND = 6  # of texts with 80 % in common 99 % share a band, of texts with half in common 22 %
NUM_HASHES = NUM_BANDS * ROWS_OF_A_BAND
COMMON_SHARES = (0.2, 0.5)  # runs in the prompts, the answers of so many rows belong to a template
MIN_COMMON_ROWS = 10

Hashes = npt.NDArray[np.uint32]
Digests = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

_TABLE_BITS = 20
_MASK = np.uint64((1 << 8 * RUN_BYTES) - 1)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SALTS = np.array([0, 0xA5A5A5A5A5A5A5A5], np.uint64)  # a run of an answer is another one than that of a prompt


def permutations(num_hashes: int = NUM_HASHES, seed: int = 1) -> tuple[Hashes, Hashes]:
    """Factors and summands of hash functions `a * h + b` modulo 2^32, as datasketch draws them."""
    chance = np.random.RandomState(seed)
    factors = chance.randint(0, 1 << 31, num_hashes, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, chance.randint(0, 1 << 32, num_hashes, dtype=np.uint32)


_FACTORS, _SUMMANDS = permutations()


def runs_of(texts: Sequence[bytes]) -> tuple[Hashes, Counts]:
    """Hashes of the runs of texts, each a prompt, SEPARATOR and an answer; and the number of runs of each part.

    A part that is shorter than a run is padded to one. `uint32 [R], int64 [2 * len(texts)]`.
    """
    parts = [part for text in texts for part in _parts(text)]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    counts = np.maximum(lengths - RUN_BYTES + 1, 1)
    begins = np.cumsum(lengths + RUN_BYTES) - (lengths + RUN_BYTES)
    at = np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    joined = bytes(RUN_BYTES).join(parts) + bytes(RUN_BYTES + 8)
    runs = np.ndarray((len(joined) - 7,), "<u8", joined, strides=(1,))[at] & _MASK
    runs ^= np.repeat(np.tile(_SALTS, len(texts)), counts)
    return _mixed(runs), counts


def _parts(text: bytes) -> tuple[bytes, bytes]:
    prompt, _, answer = text.partition(SEPARATOR)
    return prompt, answer


def _mixed(runs: Digests) -> Hashes:
    """32 bits of each run, through the finalizer of MurmurHash3, as datasketch applies it to what it is given."""
    hashes = (runs * _SPREAD >> np.uint64(32)).astype(np.uint32)
    hashes ^= hashes >> np.uint32(16)
    hashes *= np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(16)
    return hashes


class Template:
    """Runs of so many rows that they say nothing about one of them, by their hashes; from a sample of the rows."""

    def __init__(self, sample: Sequence[bytes]) -> None:
        counts = np.zeros((2, 1 << _TABLE_BITS), np.uint32)
        for text in sample:
            runs, (num_prompt, _) = runs_of([text])
            for part, own in enumerate((runs[:num_prompt], runs[num_prompt:])):
                counts[part, np.unique(_slots(own))] += 1
        least = [max(MIN_COMMON_ROWS, share * len(sample)) for share in COMMON_SHARES]
        self._common = (counts[0] >= least[0]) | (counts[1] >= least[1])

    def same_as(self, other: "Template | None") -> bool:
        return other is not None and bool(np.array_equal(self._common, other._common))

    def covers(self, runs: Hashes) -> npt.NDArray[np.bool_]:
        """True for each run of the template."""
        covered: npt.NDArray[np.bool_] = self._common[_slots(runs)]
        return covered


def _slots(runs: Hashes) -> Hashes:
    return runs >> np.uint32(32 - _TABLE_BITS)


def sign(texts: Sequence[bytes], template: Template) -> Digests:
    """Digests of the bands of each text's signature, without the runs of the template: uint64 [len(texts), NUM_BANDS].

    A text that the template covers whole is signed as it is.
    """
    runs, counts = runs_of(texts)
    counts = counts.reshape(-1, 2).sum(1)
    starts = np.cumsum(counts) - counts
    kept = ~template.covers(runs)
    num_kept = np.add.reduceat(kept, starts, dtype=np.int64)
    kept |= np.repeat(num_kept == 0, counts)
    num_kept = np.where(num_kept == 0, counts, num_kept)
    return band_digests(signatures(runs[kept], num_kept))


def signatures(runs: Hashes, counts: Counts) -> Hashes:
    """The least value of each hash function over each of the sets whose sizes are `counts`: uint32 [N, NUM_HASHES]."""
    starts = np.cumsum(counts) - counts
    made = np.empty((len(counts), NUM_HASHES), np.uint32)
    for index in range(NUM_HASHES):
        made[:, index] = np.minimum.reduceat(runs * _FACTORS[index] + _SUMMANDS[index], starts)
    return made


def band_digests(made: Hashes) -> Digests:
    """A digest of each band of each signature: uint64 [N, NUM_BANDS]."""
    bands = made.reshape(len(made), NUM_BANDS, ROWS_OF_A_BAND).astype(np.uint64)
    digests = np.zeros(bands.shape[:2], np.uint64)
    for index in range(ROWS_OF_A_BAND):
        digests = (digests ^ bands[:, :, index]) * _SPREAD
        digests ^= digests >> np.uint64(29)
    return digests
