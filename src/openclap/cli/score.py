"""`openclap score`: similarity of sounds and texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from openclap.cli.classify import embed_files
from openclap.cli.console import SkippedFile, list_skipped, print_json, print_table, shown, skipped_facts
from openclap.cli.model_options import ModelOptions
from openclap.cli.reading import ReadAs


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A sound, a text, and the cosine between the two."""

    path: str
    text: str
    score: float


def score(
    audio: Path | None = None,
    text: str | None = None,
    *,
    pairs: Path | None = None,
    read_as: ReadAs = ReadAs(),
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Compute the CLAP score of sounds and their captions.

    The score is the cosine between the embeddings of a sound and a text, from -1 to 1: neither multiplied by the logit
    scale nor clipped at 0. It is used to evaluate text-to-audio generation (Huang et al. 2023, arXiv:2301.12661).
    Compare scores of the same model and precision only.

    Parameters
    ----------
    audio
        A sound file.
    text
        A sentence: "rain on a tin roof".
    pairs
        Instead of AUDIO and TEXT, any collection that `openclap dataset build` reads: a table with columns `path` (or
        `audio`, `file`; relative to the table) and `caption`, a folder of sounds with captions, a Hugging Face data
        set, or shards. The mean over all pairs is printed as well.
    batch_size
        The number of sounds per forward pass.
    json
        Print one JSON object instead of a table.
    """
    from openclap.errors import AudioError
    from openclap.limits import check_count

    check_count("--batch-size", batch_size)
    skipped: list[SkippedFile] = []
    wanted = _wanted(audio, text, pairs, read_as, skipped)
    embedder = model_options.load()
    paths, texts = (
        # Each sound and each sentence is embedded once, however many pairs it is in.
        list(dict.fromkeys(path for path, _ in wanted)),
        list(dict.fromkeys(caption for _, caption in wanted)),
    )
    text_D = dict(zip(texts, embedder.embed_text(texts), strict=True))
    audio_D = dict(embed_files(embedder, paths, skipped, batch_size, "Scoring"))
    scored = [
        ScoredPair(path, caption, float(audio_D[path] @ text_D[caption])) for path, caption in wanted if path in audio_D
    ]
    if not scored:
        raise AudioError(
            f"{skipped[0][1]}" if len(skipped) == 1 else f"None of the {len(paths)} sounds can be decoded."
        )
    list_skipped(skipped)
    facts = model_options.facts(embedder)
    mean = sum(pair.score for pair in scored) / len(scored)
    if json and pairs is None:
        print_json(asdict(scored[0]) | facts)
    elif json:
        done = {"pairs": [asdict(pair) for pair in scored], "skipped": skipped_facts(skipped)}
        print_json({"mean": mean, "n": len(scored)} | facts | done)
    else:
        rows = [[f"{pair.score:.3f}", shown(pair.path), pair.text] for pair in scored]
        total = [] if pairs is None else [[f"{mean:.3f}", f"mean of {len(scored)}", ""]]
        print_table(["score", "file", "text"], [*rows, *total], right=[0])


def _wanted(
    audio: Path | None, text: str | None, pairs: Path | None, read_as: ReadAs, skipped: list[SkippedFile]
) -> list[tuple[str, str]]:
    """List the pairs of path and text to score; records without a caption are added to `skipped`.

    Raises ConfigError for arguments that are neither one pair nor a collection, and for a blank text; DataError for a
    collection without captions.
    """
    from openclap.audio.opened import opened
    from openclap.errors import ConfigError, DataError
    from openclap.sources.recognise import advice

    if pairs is None:
        if audio is None or text is None:
            raise ConfigError(
                "Give a sound and a sentence, as in 'openclap score rain.wav \"rain on a roof\"', or give --pairs."
            )
        if not text.strip():
            raise ConfigError("The sentence is empty, expected a few words such as 'rain on a tin roof'.")
        with opened(audio):  # before the model is loaded
            pass
        return [(str(audio), text)]
    if audio is not None:
        raise ConfigError(f"Both {audio} and --pairs were given, expected one of the two.")
    collection = read_as.recognise(pairs)
    records = list(collection.read())
    skipped += [(str(record.audio), "no caption") for record in records if not record.captions]
    wanted = [(str(record.audio), caption) for record in records for caption in record.captions]
    if not wanted:
        sentence = f"{pairs}: none of the {len(records)} rows has a caption, so there is nothing to score."
        raise DataError(" ".join(filter(None, (sentence, advice(collection)))))
    return wanted
