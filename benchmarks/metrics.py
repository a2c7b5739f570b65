"""Retrieval metrics beside the loop that the reference's protocol describes: the same similarities, the same figures.

    python benchmarks/metrics.py [--clips 5000] [--captions 5] [--large CLIPS CAPTIONS]

The loop sorts, for every caption, all clips, and for every clip, all captions, and looks up where the right ones came.
Ours counts what stands before them. Both get the full matrix; below them, ours from the vectors, in blocks. With
`--large`, ours alone from vectors of 512 numbers, with the peak memory of the process (100000 500000 takes some 17
minutes).
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from openclap.evals.metrics import retrieval_measures, retrieval_metrics
from openclap.evals.ranks import rank_vectors

WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--large", type=int, nargs=2, metavar=("CLIPS", "CAPTIONS"))
    options = parser.parse_args()
    if options.large:
        large(*options.large)
    else:
        side_by_side(options.clips, options.captions)


def side_by_side(clips: int, each: int) -> None:
    audio_AD, text_TD, owner_T = vectors(clips, clips * each)
    similarity_AT = audio_AD @ text_TD.T
    by_loop_s, theirs = timed(lambda: loop(similarity_AT, each))
    ours_s, ours = timed(lambda: retrieval_metrics(similarity_AT, owner_T))
    vectors_s, ranks = timed(lambda: rank_vectors(audio_AD, text_TD, owner_T, tie=0.0))
    for name, value in theirs.items():
        assert abs(ours[name] - value) < 1e-9, (name, ours[name], value)
    from_vectors = {metric.key: measure.value for metric, measure in retrieval_measures(ranks).items()}
    print(f"{clips:,} clips, {clips * each:,} captions; {len(theirs)} figures are equal.")
    print(f"loop of sorts         {by_loop_s:8.2f} s")
    print(f"ours                  {ours_s:8.2f} s   {by_loop_s / ours_s:5.1f} times as fast")
    print(f"ours, from vectors    {vectors_s:8.2f} s   their product included")
    print(f"text to audio R@10    {theirs['text_to_audio_R@10']:.4f}, from vectors "
          f"{from_vectors['text_to_audio_R@10']:.4f}")  # fmt: skip


def large(clips: int, captions: int) -> None:
    audio_AD, text_TD, owner_T = vectors(clips, captions)
    seconds, ranks = timed(lambda: rank_vectors(audio_AD, text_TD, owner_T))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{clips:,} clips, {captions:,} captions: {seconds:,.1f} s, peak memory {peak:.2f} GB")
    print(f"mean rank {ranks.text_to_audio_P.mean():,.1f} of {clips:,}")


def loop(similarity_AT: np.ndarray, each: int) -> dict[str, float]:
    """Recall both ways, and mAP@10 from text to audio, one query at a time."""
    found, best = [], []
    for caption, score_A in enumerate(similarity_AT.T):
        order = np.argsort(-score_A)
        found.append(int(np.nonzero(order == caption // each)[0][0]))
    for clip, score_T in enumerate(similarity_AT):
        order = np.argsort(-score_T)
        places = [int(np.nonzero(order == clip * each + number)[0][0]) for number in range(each)]
        best.append(min(places))
    figures = {}
    for task, places in (("text_to_audio", np.array(found)), ("audio_to_text", np.array(best))):
        figures |= {f"{task}_R@{k}": float((places < k).mean()) for k in (1, 5, 10)}
        figures[f"{task}_median_rank"] = float(np.floor(np.median(places)) + 1)
        figures[f"{task}_mean_rank"] = float(places.mean() + 1)
    figures["text_to_audio_mAP@10"] = float(np.where(np.array(found) < 10, 1 / (np.array(found) + 1), 0).mean())
    return figures


def vectors(clips: int, captions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors; captions lie around their clips, so that some are found and some are not."""
    rng = np.random.default_rng(0)
    audio_AD = rng.standard_normal((clips, WIDTH), dtype=np.float32)
    owner_T = np.arange(captions) * clips // captions
    text_TD = rng.standard_normal((captions, WIDTH), dtype=np.float32)
    text_TD *= 6
    for start in range(0, captions, 10_000):
        text_TD[start : start + 10_000] += audio_AD[owner_T[start : start + 10_000]]
    audio_AD /= np.sqrt(np.einsum("nd,nd->n", audio_AD, audio_AD))[:, None]
    text_TD /= np.sqrt(np.einsum("nd,nd->n", text_TD, text_TD))[:, None]
    return audio_AD, text_TD, owner_T


def timed(call):
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
