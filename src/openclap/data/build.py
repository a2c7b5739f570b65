"""Build a data set from records: all steps in order, and each step alone.

    plan                       write every record with its captions, apply the filters that need no sound  (filters)
    fetch_and_decode           download sounds that have a URL, decode every sound once    (download, decode)
    find_near_duplicates       optional: leave out clips that sound like an earlier one    (near_duplicates)
    caption                    optional: let a model write a sentence from keywords        (captioning)
    write_tars                 select records, assign splits and numbers, write tars       (filters, write)
    finish                     write the manifest and the list of records left out         (manifest)

Every step can be stopped and resumes; equal input gives equal bytes. `fetch_and_decode`, `find_near_duplicates`,
`caption` and `write_tars` take a share of the work, so that many jobs can run them side by side on one folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from openclap.audio.mono import Channels, MonoConfig
from openclap.captions import CaptionMaker
from openclap.captions.check import CaptionCheck
from openclap.data.captioning import caption as write_captions
from openclap.data.captioning import caption_maker
from openclap.data.card import write_card
from openclap.data.config import DataConfig, DataRecipe, OnMissing
from openclap.data.decode import examine, forget_failures, unfinished_chunks
from openclap.data.download import download_sounds
from openclap.data.filters import plan, select, unmet_splits
from openclap.data.layout import CHUNK, check_identity, identity, lock, work, write_table
from openclap.data.manifest import BuildReport, finish
from openclap.data.near_duplicates import EmbedClips, NearDuplicates, find_near_duplicates
from openclap.data.overlap import SplitIds
from openclap.data.parallel import ALL, Runner, Share, run
from openclap.data.split import TRAIN_AND_TEST
from openclap.data.write import SELECTION, count_written, plan_tars, write_tar
from openclap.download import FetchLimits
from openclap.embedding_cache import EmbeddingCache, identity_of
from openclap.errors import ConfigError, DataError
from openclap.formatting import join_first
from openclap.limits import check_path
from openclap.sources.recognise import ReadOptions, RecognisedCollection, advice, recognise
from openclap.sources.record import Record
from openclap.storage import Place, place_of
from openclap.types import Progress

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class EmbeddingModel(Protocol):
    """A model for near-duplicates: `openclap.Embedder`."""

    mono: MonoConfig

    @property
    def embed_each(self) -> EmbedClips: ...

    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Options that choose the records of a data set: arguments of `build_dataset`, where they are explained."""

    reading: ReadOptions = ReadOptions()
    root: str | os.PathLike[str] = "."
    missing_ok: bool = False
    test_fraction: float | None = None
    seed: int | None = None
    licences: Sequence[str] | None = None
    channels: Channels | None = None
    drop_duplicates: bool = False
    decontaminate: Mapping[str, str] | None = None
    skip_caption_check: bool = False


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """The input of a build: a recipe, its records, and a check of captions from an unknown source."""

    recipe: DataRecipe
    records: Callable[[], Iterator[Record]]
    evaluation_sets: Callable[[], Sequence[SplitIds]]
    check: CaptionCheck | None = None


def build_dataset(
    source: str | os.PathLike[str] | DataRecipe,
    out: str | os.PathLike[str],
    *,
    reading: ReadOptions = ReadOptions(),
    root: str | os.PathLike[str] = ".",
    missing_ok: bool = False,
    test_fraction: float | None = None,
    seed: int | None = None,
    licences: Sequence[str] | None = None,
    channels: Channels | None = None,
    drop_duplicates: bool = False,
    decontaminate: Mapping[str, str] | None = None,
    skip_caption_check: bool = False,
    near_duplicates: float | None = None,
    model: EmbeddingModel | None = None,
    caption: str | CaptionMaker | None = None,
    processes: int = 1,
    allow_private_addresses: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> BuildReport:
    """Build a data set: shards of 48 kHz mono FLAC with captions, a manifest, and a data card.

    Records that cannot be used are listed in the report and in skipped.jsonl, and are not errors. A second call with
    the same arguments resumes a stopped one, or finds nothing to do.

    Args:
        source: a table of sounds and captions, a folder of sounds, a Hugging Face data set or WebDataset shards, as
            `openclap.sources.recognise` finds out; or a `DataRecipe`, such as `openclap.recipes.data_recipe` returns.
        out: the folder to write, or an address that fsspec knows, such as "s3://bucket/set".
        reading: source and columns to read, where they are not to be recognised.
        root: the folder that contains the sources of a recipe.
        missing_ok: continue without the sources and evaluation sets of a recipe that are missing.
        test_fraction: the fraction of clips in the test split, in whole groups; 0.2 without a recipe.
        seed: of the split.
        licences: allowed families of licences, such as ("cc0", "by"); any without it.
        channels: "mean", "left", "right" or "loudest" channel of multichannel sounds.
        drop_duplicates: leave out clips with the same samples as an earlier one.
        decontaminate: evaluation sets by source and folder, such as {"esc50": "ESC-50", "clotho:test": "Clotho"}; their
            clips (of these splits, where they are named) are left out.
        skip_caption_check: continue with captions that look like identifiers, or are nearly all the same.
        near_duplicates: leave out clips whose embedding has a cosine to an earlier one of at least this, such as 0.98.
        model: the model that embeds clips for `near_duplicates`, such as `openclap.load("mini")`.
        caption: write one more caption for each clip from its tags, with "bundled", a model's name or folder,
            "endpoint", or a maker of one's own.
        processes: sounds that are decoded at the same time.
        allow_private_addresses: download from private addresses too, such as a mirror in one's own network.
        progress: called with (done, total).
        note: called with sentences on the recognised form and on sources left out.

    Raises DataError for input that cannot be read, a folder with other content or another writer, a full disk, or when
    nothing at all could be packed; ConfigError for invalid or incompatible options.

    Examples:
        >>> from pathlib import Path
        >>> import openclap
        >>> sounds = sorted((Path(openclap.__file__).parent / "demo" / "sounds").glob("scratch-*.ogg"))[:5]
        >>> rows = [f"{path},Sound {number}." for number, path in enumerate(sounds)]
        >>> _ = Path("sounds.csv").write_text("file,caption\\n" + "\\n".join(rows))
        >>> report = openclap.build_dataset("sounds.csv", "set", test_fraction=0.2)
        >>> report.packed
        {'test': 1, 'train': 4}
    """
    folder = place_of(check_path("out", out))
    if model is None and near_duplicates is not None:
        raise ConfigError("near_duplicates needs a model that embeds clips. Pass model=openclap.load(…).")
    if model is not None and near_duplicates is None:
        raise ConfigError("A model is only used for near-duplicates. Pass near_duplicates=, such as 0.98.")
    check_identity(folder)
    options = InputOptions(
        reading=reading,
        root=root,
        missing_ok=missing_ok,
        test_fraction=test_fraction,
        seed=seed,
        licences=licences,
        channels=channels,
        drop_duplicates=drop_duplicates,
        decontaminate=decontaminate,
        skip_caption_check=skip_caption_check,
    )
    source_input = dataset_input(source, options, processes=processes, note=note)
    recipe, near = source_input.recipe, None
    if near_duplicates is not None and model is not None:
        near = near_duplicate_search(near_duplicates, model, recipe.config.channels)
    report = build(
        source_input.records(),
        folder,
        recipe.full_config,
        evaluation_sets=source_input.evaluation_sets,
        limits=FetchLimits(allow_private=allow_private_addresses),
        near=near,
        maker=partial(caption_maker, caption) if caption is not None else None,
        check=source_input.check,
        every_split=test_fraction is not None,
        processes=processes,
        progress=progress,
    )
    write_card(folder, recipe.name)
    return report


def near_duplicate_search(threshold: float, model: EmbeddingModel, channels: Channels) -> NearDuplicates:
    """Configure the search for near-duplicates: the model embeds the channel that the data set reads, with a cache."""
    model.mono = MonoConfig(channels)
    made_by = identity_of(model)
    if made_by is None:
        return NearDuplicates(threshold, model.digest(), model.embed_each)
    cached = EmbeddingCache(made_by)
    return NearDuplicates(threshold, made_by["digest"], lambda sounds: cached.embed_each(sounds, model.embed_each))


def dataset_input(
    source: str | os.PathLike[str] | DataRecipe,
    options: InputOptions,
    *,
    processes: int = 1,
    note: Callable[[str], None] = lambda sentence: None,
) -> DatasetInput:
    """Open the source of a data set; arguments and errors are those of `build_dataset`."""
    if not isinstance(source, DataRecipe):
        source = check_path("source", source, "a path, or a DataRecipe")
    path = None if isinstance(source, DataRecipe) else Path(source).expanduser()
    recipe = source if isinstance(source, DataRecipe) else DataRecipe(Path(source).stem, {})
    # Options before the source: a wrong one is reported before a large folder is searched.
    recipe = _changed(recipe, options)
    root = Path(options.root)
    on_missing: OnMissing | None = (lambda error: note(f"Left out: {error}")) if options.missing_ok else None
    # Read when the records are written: hashing evaluation sets takes long, and a resumed build needs it no more.
    evaluation_sets = partial(recipe.evaluation_sets, root, on_missing, processes=processes)
    if path is None:
        return DatasetInput(recipe, partial(recipe.records, root, on_missing), evaluation_sets)
    recognised = recognise(path.absolute(), options.reading)
    note(recognised.summary)
    if recognised.unread:
        note(f"Not read: {join_first(recognised.unread)}.")
    check = caption_check(recognised, skip=options.skip_caption_check, note=note)
    return DatasetInput(recipe, recognised.read, evaluation_sets, check)


def _splits(test_fraction: float) -> dict[str, float]:
    if not 0 <= test_fraction < 1:
        raise ConfigError(f"The test fraction is {test_fraction}, expected a number from 0 to below 1.")
    return {"train": 1 - test_fraction, "test": test_fraction} if test_fraction else {"train": 1.0}


def _changed(recipe: DataRecipe, options: InputOptions) -> DataRecipe:
    """Apply the options that were given to a recipe, and add evaluation sets."""
    decontaminate = options.decontaminate or {}
    changes: dict[str, object] = {
        "seed": options.seed,
        "channels": options.channels,
        "drop_duplicates": options.drop_duplicates or None,
        "splits": None if options.test_fraction is None else _splits(options.test_fraction),
        "licences": None if options.licences is None else tuple(each.strip().lower() for each in options.licences),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    places = {name: str(Path(place).expanduser().absolute()) for name, place in decontaminate.items()}
    return replace(
        recipe,
        config=replace(recipe.config, **given),  # type: ignore[arg-type]
        decontaminate=dict(recipe.decontaminate) | places,
    )


def caption_check(recognised: RecognisedCollection, *, skip: bool, note: Callable[[str], None]) -> CaptionCheck:
    """Check captions and stop with advice where they are doubtful; with `skip`, only note that they are."""

    def stop(doubt: str, usable: bool) -> None:
        sentence = f"{recognised.path}: {' '.join(filter(None, (doubt, advice(recognised))))} Nothing was decoded yet."
        if not usable:
            raise DataError(sentence)
        if not skip:
            raise DataError(f"{sentence} To continue all the same, use --skip-caption-check.")
        note(sentence)

    return CaptionCheck(stop)


def pack(
    records: Iterable[Record],
    out: str | os.PathLike[str],
    *,
    splits: Mapping[str, float] = TRAIN_AND_TEST,
    seed: int = 0,
    shard_size: int = 512,
    processes: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Split records by group, decode them and write shards under `out`; resume where an earlier run stopped.

    Records that cannot be used are listed, and are not errors; they stay left out in later runs, so repaired sounds
    need a new folder.

    Raises DataError when `out` has other content or another writer, the disk is full (complete files stay, and the same
    call resumes), or nothing at all could be packed; ConfigError for impossible splits or sizes.
    """
    config = DataConfig(splits=splits, seed=seed, shard_size=shard_size)
    return build(records, place_of(out), config, processes=processes, progress=progress)


def build(
    records: Iterable[Record],
    folder: Place,
    config: DataConfig,
    *,
    evaluation_sets: Callable[[], Sequence[SplitIds]] = tuple,
    limits: FetchLimits = FetchLimits(),
    near: NearDuplicates | None = None,
    maker: Callable[[], CaptionMaker] | None = None,
    check: CaptionCheck | None = None,
    every_split: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Run all steps as the only writer in `folder`.

    Raises as `pack`; with `every_split`, DataError where a split would be empty; and whatever `check` raises.
    """
    report = progress or (lambda done, total: None)
    # All steps under one lock: a second builder could otherwise replace the records between two of them.
    with explain_disk_errors(folder):
        check_identity(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            count = plan(records, folder, config, evaluation_sets=evaluation_sets, check=check)
            report(0, 2 * count)
            fetch_and_decode(
                folder,
                limits=limits,
                processes=processes,
                progress=lambda done, total: report(count * done // total, 2 * count),
            )
            # After decoding, because it compares sounds, and before selection, which leaves its finds out.
            if near is not None:
                find_near_duplicates(folder, near)
            # After decoding: lengths decide which clips get a sentence.
            if maker is not None:
                write_captions(folder, maker())
            write_tars(
                folder,
                every_split=every_split,
                processes=processes,
                progress=lambda done: report(count + done, 2 * count),
            )
            report(2 * count, 2 * count)
            return finish(folder)


def fetch_and_decode(
    folder: Place,
    share: Share = ALL,
    *,
    limits: FetchLimits = FetchLimits(),
    processes: int = 1,
    runner: Runner = run,
    retry_failed: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Download and decode a share of the records; with `retry_failed`, again those that failed.

    `runner` decodes in processes of this machine, or on a cluster (`openclap.data.parallel`). A sound that is
    downloaded counts twice in `progress`: when it is there, and when it is decoded.
    """
    if retry_failed:
        forget_failures(folder, share)
    # Downloads only for chunks that are not decoded yet: a resumed job neither fetches nor counts the others.
    chunks, downloads = unfinished_chunks(folder, share), 0
    total_records = identity(folder)["records"]
    records = sum(min(CHUNK, total_records - chunk * CHUNK) for chunk in chunks)

    def downloaded(done: int, total: int) -> None:
        nonlocal downloads
        downloads = total
        progress(done, total + records)

    download_sounds(folder, chunks, share, limits=limits, retry_failed=retry_failed, progress=downloaded)
    done = downloads
    for count in runner(examine, [(str(folder), chunk) for chunk in chunks], processes):
        done += count
        progress(done, downloads + records)


def write_tars(
    folder: Place,
    share: Share = ALL,
    *,
    processes: int = 1,
    runner: Runner = run,
    every_split: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a share of the tars.

    Raises DataError while records are still to be decoded, and, with `every_split`, where a split would be empty.
    """
    config = DataConfig(**identity(folder)["config"])
    selection = select(folder, config)
    if every_split and (empty := [unmet for unmet in unmet_splits(folder, selection, config) if unmet.empty]):
        raise DataError(f"{folder}: {empty[0].sentence} Nothing was packed.")
    write_table(work(folder) / SELECTION, selection)
    done = 0
    for count in runner(write_tar, share.of_items(plan_tars(folder, selection)), processes):
        done += count
        progress(done)


@contextmanager
def explain_disk_errors(folder: Place) -> Iterator[None]:
    """Turn an OSError of a full disk or a lost folder into a DataError that names what is complete."""
    try:
        yield
    except OSError as error:
        tars, samples = count_written(folder)
        reason, remedy = f"writing failed ({error.strerror or error})", "once that is corrected"
        if error.errno in _DISK_FULL:
            reason, remedy = f"the disk is full or the file too large ({error.strerror})", "once there is room"
        raise DataError(
            f"{folder}: {reason}; {tars} tars with {samples} samples are complete, "
            f"and running the same again resumes from there {remedy}."
        ) from error
