"""Evaluate models: run every task of a suite with every model, and give each figure its interval.

`evaluate` is the whole of `openclap eval` as a function. For each task it finds the clips (`dataset`), embeds them
(`cached_embedder`), computes the figures (the `run` of the task's kind in `tasks.KINDS`), and adds intervals, chance
and the baseline (`bootstrap`). All suites take this one path; they differ in their tasks alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from openclap import paths
from openclap.collapse import warn_of_collapsed_audio
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, ConfigError, DataError, MissingTokenizerError, TrainingError
from openclap.evals.bootstrap import (
    RESAMPLES,
    Estimate,
    bootstrap_interval,
    chance_classification,
    chance_preference,
    chance_retrieval,
    paired_difference,
)
from openclap.evals.cached_embedder import CachedEmbedder, SoundEmbedder, open_cache, open_cached
from openclap.evals.dataset import COLLECTION, Collection, StageProgress, TaskClips, clips_of_task, load_collection
from openclap.evals.decontamination import read_trained_clips
from openclap.evals.metrics import Metric
from openclap.evals.network_probes import UNNORMALISED
from openclap.evals.results import Comparison, DataFacts, MetricRow, Results, TaskOutput
from openclap.evals.suites import SUITES, read_suite
from openclap.evals.tasks import KINDS, Task, protocol_of
from openclap.limits import PROCESSES, check_count, check_path
from openclap.loading import load as load_model
from openclap.sources.recognise import ReadOptions, RecognisedCollection
from openclap.training.config import LARGEST_SEED

Model = str | os.PathLike[str] | SoundEmbedder
"""A model folder, file or name, or an embedder."""

TAGGING_RESAMPLES = 200
"""Fewer than RESAMPLES: tagging figures are sums over hundreds of classes, so each resample costs as much as all of
another task, and their intervals are narrow."""
FEW_GROUPS = 20
"""Fewer groups than this get a note: percentiles of so few independent recordings are rough."""
BASELINE = "baseline"
"""The name of a baseline that is a loaded model without a name."""


def evaluate(
    models: Model | Mapping[str, Model] | Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | Collection | None = None,
    *,
    suite: str | os.PathLike[str] | Sequence[Task] = "quick",
    split: str = "test",
    baseline: Model | None = None,
    training: str | os.PathLike[str] | None = None,
    processes: int = 1,
    batch_size: int = 16,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    load: Callable[[str], SoundEmbedder] = load_model,
    reading: ReadOptions = ReadOptions(),
    recognised: Callable[[RecognisedCollection], None] = lambda found: None,
    progress: StageProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> Results:
    """Measure models: retrieval, zero-shot classification, tagging and probes, each figure with its 95 % interval.

    Args:
        models: a model, a list of paths and names, or models under names of your choice.
        data: for the suites "quick" and "hard-text": packed shards, or anything that `openclap dataset build` reads;
            the demo's shards without it. Its split "train" trains the probe; a source without splits is measured on as
            a whole. For all other suites: the folder of the published data sets, each in a folder of its own;
            $OPENCLAP_HOME/datasets without it.
        suite: "quick", "hard-text", "paper", "supervised", a TOML file of tasks, or tasks.
        split: of the collection, the split to measure on.
        baseline: a model to compare a single model with in pairs, such as its state before training.
        training: a `manifest.parquet` of training data; clips of its uploads, and with its sounds, are left out of
            published data sets.
        processes: workers that embed, each with a model of its own. The figures do not depend on their number.
        batch_size: windows in one forward pass. The figures do not depend on it.
        seed: of resamples, draws and networks: the same seed gives the same figures.
        cache: the folder of cached embeddings and fine-tuned towers; $OPENCLAP_HOME/embeddings and $OPENCLAP_HOME/evals
            without it.
        load: loads a model by name; picklable, for workers to call.
        reading: of the collection, how to read loose sounds, where that is not left to recognition.
        recognised: called with the form of loose sounds before they are read.
        progress: called with a stage, the number of items done and of all items.
        note: called with a line for each task.

    A task that is impossible, or without its data, is listed with the reason in `Results.skipped`, and the others are
    done. Raises ConfigError for options that do not fit, DataError for data that cannot be read, CheckpointError for a
    model that cannot be loaded, and MissingTokenizerError for a model that cannot read the text of a task.

    Examples:
        >>> from pathlib import Path
        >>> import openclap
        >>> from openclap.evals.runner import evaluate
        >>> sounds = Path(openclap.__file__).parent / "demo" / "sounds"
        >>> rows = [f"{sounds}/scratch-dog1.ogg,a dog barking", f"{sounds}/scratch-duck.ogg,a duck quacking"]
        >>> _ = Path("sounds.csv").write_text("\\n".join(["file,caption", *rows]))
        >>> results = evaluate("mini", "sounds.csv")
        >>> results.row("text_to_audio_R@1").n
        2
        >>> _ = results.write_html("report.html")
    """
    suite_name, tasks = _read_suite(suite)
    if data is not None and not isinstance(data, Collection):
        data = check_path("data", data, "a path, or a Collection")
    on_collection = {task.source == COLLECTION for task in tasks}
    if len(on_collection) > 1:
        raise ConfigError(f"The suite {suite_name} mixes tasks on a collection with tasks on published data sets.")
    named = _name_models(models)
    _check_options(suite_name, named, baseline, split, training, on_collection=on_collection == {True})
    check_count("batch_size", batch_size)
    check_count("processes", processes, most=PROCESSES)
    check_count("seed", seed, least=0, most=LARGEST_SEED)
    opening = {"batch_size": batch_size, "processes": processes, "progress": progress}
    folder = Path(check_path("cache", cache)) if cache else None
    embedders = [_open(name, model, folder, load, **opening) for name, model in named.items()]
    before = None if baseline is None else _open(_name_of(baseline, BASELINE), baseline, folder, load, **opening)
    source: Path | Collection
    if on_collection == {True}:
        place = data or paths.home() / "demo" / "shards"
        source = load_collection(place, split, reading=reading, recognised=recognised, progress=progress)
    elif isinstance(data, Collection) or reading != ReadOptions():
        raise ConfigError(
            f"The suite {suite_name} needs the folder of published data sets, each read by its own source."
        )
    else:
        source = Path(data) if data else paths.home() / "datasets"
    return run_suite(
        suite_name,
        tasks,
        embedders,
        source,
        baseline=before,
        training=Path(check_path("training", training)) if training else None,
        seed=seed,
        note=note,
    )


def _read_suite(suite: str | os.PathLike[str] | Sequence[Task]) -> tuple[str, Sequence[Task]]:
    if isinstance(suite, str) and suite in SUITES:
        return suite, SUITES[suite]
    if isinstance(suite, str | os.PathLike):
        return Path(suite).stem, read_suite(Path(suite))
    if not isinstance(suite, list | tuple) or not all(isinstance(task, Task) for task in suite):
        raise ConfigError(f"The suite is {suite!r}, expected a name, a TOML file or a list of tasks.")
    if not suite:
        raise ConfigError("The suite has no tasks. Expected one or more.")
    return "tasks", suite


def _name_models(models: Model | Mapping[str, Model] | Sequence[str | os.PathLike[str]]) -> dict[str, Model]:
    """Models by the names that tables show. Raises ConfigError for no model, and for one that is named twice."""
    if isinstance(models, Mapping):
        named = dict(models)
    elif isinstance(models, list | tuple):
        if unnamed := next((model for model in models if not isinstance(model, str | os.PathLike)), None):
            raise ConfigError(
                f"The list of models holds an object of the type {type(unnamed).__name__}, expected paths and names. "
                "Give loaded models in a dictionary, by the names that tables shall show."
            )
        named = {str(model): model for model in models}
        # Compared as files, so that two spellings of one path are found, too.
        places = [str(Path(model).resolve()) if Path(model).exists() else str(model) for model in models]
        if repeated := next((m for m, place in zip(models, places, strict=True) if places.count(place) > 1), None):
            raise ConfigError(f"{repeated} is named twice, expected different checkpoints.")
    else:
        named = {_name_of(models, "model"): models}  # type: ignore[arg-type, dict-item]
    if not named:
        raise ConfigError("No model was given. Expected one or more.")
    return named


def _name_of(model: Model, unnamed: str) -> str:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    return str(getattr(model, "name", "") or unnamed)


def _check_options(
    suite: str,
    models: Mapping[str, Model],
    baseline: Model | None,
    split: str,
    training: str | os.PathLike[str] | None,
    *,
    on_collection: bool,
) -> None:
    if baseline is not None and len(models) > 1:
        raise ConfigError("A baseline stands beside one model. Name every model as a checkpoint.")
    if on_collection and training is not None:
        raise ConfigError("A manifest of training data belongs to suites of published sets, such as paper.")
    if not on_collection and split != "test":
        raise ConfigError(
            f"A split to measure on belongs to the suites quick and hard-text. The tasks of {suite} name their splits."
        )


def _open(
    name: str, model: Model, folder: Path | None, load: Callable[[str], SoundEmbedder], **options: Any
) -> CachedEmbedder:
    if isinstance(model, str | os.PathLike):
        opened = open_cached(name, partial(load, os.fspath(model)), folder, **options)
        if isinstance(opened.embedder, Embedder):
            warn_of_collapsed_audio(opened.embedder)
        return opened
    if isinstance(model, CachedEmbedder):
        model = model.embedder  # wrapped again, under the name and with the options of this call
    if not (hasattr(model, "embed_audio") and hasattr(model, "embed_text")):
        raise ConfigError(
            f"{name} is of the type {type(model).__name__}, expected a model's folder, file or name, or an object with "
            "the methods embed_audio and embed_text."
        )
    # An embedder in memory cannot be sent to workers, so it embeds in this process.
    return CachedEmbedder(name, model, cache=open_cache(name, model, folder), **options)


def run_suite(
    name: str,
    tasks: Sequence[Task],
    models: Sequence[CachedEmbedder],
    data: Path | Collection,
    *,
    baseline: CachedEmbedder | None = None,
    training: Path | None = None,
    seed: int = 0,
    note: Callable[[str], None] | None = None,
) -> Results:
    """Run every task with every model.

    Args:
        data: the collection of the tasks, or the folder that holds the published data sets.

    The other arguments, and what is raised, are those of `evaluate`.
    """
    started = time.perf_counter()
    trained = read_trained_clips(training) if training else None
    rows: list[MetricRow] = []
    skipped: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    facts: dict[DataFacts, None] = {}
    outputs: dict[tuple[str, str], TaskOutput] = {}
    compared: dict[tuple[str, str], TaskOutput] = {}
    if isinstance(data, Collection):
        notes += [(f"split {data.test.name}", sentence) for sentence in data.notes]
        facts = {DataFacts.of(clips): None for clips in (data.test, data.train) if clips is not None}
    for task in tasks:
        if note:
            note(f"{task.name}: {task.kind.replace('_', ' ')}")
        finished: dict[str, TaskOutput] = {}
        try:
            clips = clips_of_task(task, data, trained)
            notes += [(task.name, sentence) for sentence in clips.notes]
            # The baseline first: if it cannot do the task, no time is spent on the others.
            before = run_task(task, clips, baseline, seed)[0] if baseline else None
            for output, figures in _run_models(task, clips, models, before, seed):
                finished[models[len(finished)].name] = output
                rows += figures
            if baseline and before:
                compared[baseline.name, task.name] = before
        except MissingTokenizerError:
            raise  # every task with text would fail, and one option mends it
        except (DataError, ConfigError, TrainingError, CheckpointError) as error:
            # Figures of the models before the one that failed stay in the table, so the reason names that one.
            failed = f"{models[len(finished)].name}: " if finished else ""
            # Most errors begin with the task's name, which stands before every reason anyway.
            skipped[task.name] = failed + str(error).removeprefix(f"{task.name}: ")
        outputs |= {(model, task.name): output for model, output in finished.items()}
        if not isinstance(data, Collection):
            # The clips of a published set are hashed as they are embedded, so its facts are known only now.
            facts |= {DataFacts.of(output.clips): None for output in finished.values()}
        notes += _model_notes(task, finished, len(models))
    opponents = [baseline, *models] if baseline else models
    return Results(
        suite=name,
        models=tuple(model.name for model in models),
        rows=tuple(rows),
        comparisons=tuple(compare(tasks, [model.name for model in opponents], compared | outputs, seed)),
        skipped=skipped,
        notes=tuple(dict.fromkeys(notes)),
        data=tuple(facts),
        seed=seed,
        seconds=time.perf_counter() - started,
        baseline=baseline.name if baseline else None,
        outputs=outputs,
    )


def _run_models(
    task: Task, clips: TaskClips, models: Sequence[CachedEmbedder], before: TaskOutput | None, seed: int
) -> Iterator[tuple[TaskOutput, list[MetricRow]]]:
    """Yield the outputs and figures of each model, in order."""
    for model in models:
        output, seconds = run_task(task, clips, model, seed)
        yield output, list(_rows_of_task(task, model, clips, output, before, seconds=seconds, seed=seed))


def run_task(task: Task, clips: TaskClips, model: CachedEmbedder, seed: int) -> tuple[TaskOutput, float]:
    """Run one task with one model; return its output, and the seconds that it took.

    `KINDS` in `tasks` names the function that computes the figures of each kind of task: `run_retrieval`,
    `run_zero_shot`, `run_tagging`, `run_probe` or `run_few_shot`. Raises DataError where nothing can be measured.
    """
    started = time.perf_counter()
    kind = KINDS[task.kind]
    if kind.reads_text:
        model.check_tokenizer()  # before minutes of embedding sounds
    if task.kind == "probe" and task.probe_protocol.embedder is not None:
        model = model.with_embedder(task.probe_protocol.embedder, UNNORMALISED)
    test = model.embed_clips(kind.usable(clips.test))
    output = kind.run(task, clips, test, model, seed)
    return replace(output, lost=(*test.lost, *output.lost)), time.perf_counter() - started


def _rows_of_task(
    task: Task,
    model: CachedEmbedder,
    clips: TaskClips,
    output: TaskOutput,
    before: TaskOutput | None,
    *,
    seconds: float,
    seed: int,
) -> Iterator[MetricRow]:
    """The figures of one model: every measure of the output with its interval, chance and baseline."""
    protocol, incomplete = protocol_of(task, clips, output, model.clip_policy), _share_of_published(task, clips, output)
    chances = _chance(task, output, seed) if task.chance else {}
    resamples = RESAMPLES if output.tagged is None else TAGGING_RESAMPLES

    def interval(answers: TaskOutput, metric: Metric) -> Estimate:
        measure = answers.measures[metric]
        groups = [answers.clips.clips[i].group for i in measure.clip_N]
        return bootstrap_interval(measure.statistic, groups, resamples=resamples, seed=seed)

    for metric, measure in output.measures.items():
        yield MetricRow(
            model=model.name,
            task=task.name,
            kind=task.kind,
            dataset=f"split {clips.test.name}" if task.source == COLLECTION else task.dataset,
            metric=metric,
            estimate=interval(output, metric),
            chance=chances.get(metric),
            baseline=interval(before, metric) if before and metric in before.measures else None,
            published=tuple(figure for figure in task.published if figure.metric == metric),
            incomplete=incomplete,
            n=len(measure.clip_N),
            protocol=protocol,
            data_hash=output.clips.digest,
            seconds=seconds,
            is_shown=metric in task.shown_metrics,
        )


def _chance(task: Task, output: TaskOutput, seed: int) -> dict[Metric, Estimate]:
    """The figures without any skill; none for tagging and few-shot."""
    if output.retrieval is not None:
        return chance_retrieval(output.retrieval.ranks.relevance, map_at=task.map_at, seed=seed)
    if output.hard_text is not None:
        return {
            metric: chance_preference(len(position), seed=seed)
            for metric, position in output.hard_text.by_metric().items()
        }
    if output.classified is not None:
        groups = [output.clips.clips[i].group for i in output.classified_N]
        return chance_classification(output.classified, groups, seed=seed)
    return {}


def _share_of_published(task: Task, clips: TaskClips, output: TaskOutput) -> str:
    """The share of the published data that took part, where that is not all of it."""
    tested = len(output.clips)
    trained = sum(len(part) for part in (clips.train, clips.valid) if part is not None)
    # `lost` counts both sides; the test side's share of it is what is missing from the output's clips.
    trained -= len(output.lost) - (len(clips.test) - tested)
    parts = [f"{tested:,} of {task.test_clips:,} clips"] if tested < task.test_clips else []
    parts += [f"{trained:,} of {task.train_clips:,} training clips"] if trained < task.train_clips else []
    return ", ".join(parts)


def _model_notes(task: Task, outputs: Mapping[str, TaskOutput], models_in_all: int) -> Iterator[tuple[str, str]]:
    """(task or split, sentence): a note that holds for all models once, any other with the names of its models."""
    noted = {
        model: [*output.notes, *_notes_on_groups(output), *_notes_on_lost(output)] for model, output in outputs.items()
    }
    for sentence in dict.fromkeys(sentence for notes in noted.values() for sentence in notes):
        models = [model for model, notes in noted.items() if sentence in notes]
        prefix = "" if len(models) == models_in_all else f"{', '.join(models)}: "
        # Groups belong to the data: tasks on one collection need only one note on them.
        is_on_groups = any(sentence in _notes_on_groups(output) for output in outputs.values())
        subject = f"split {outputs[models[0]].clips.name}" if is_on_groups and task.source == COLLECTION else task.name
        yield subject, prefix + sentence


def _notes_on_groups(output: TaskOutput) -> list[str]:
    groups = len(set(output.clips.groups))
    if groups == 1:
        return ["All clips are one group, so there is no interval, no p and no comparison with chance."]
    return [f"Only {groups} groups: the intervals are rough."] if groups < FEW_GROUPS else []


def _notes_on_lost(output: TaskOutput) -> list[str]:
    if not output.lost:
        return []
    clip, reason = output.lost[0]
    return [f"{len(output.lost)} clips could not be embedded and were left out. First: {clip} ({reason.rstrip('.')})."]


def compare(
    tasks: Sequence[Task], models: Sequence[str], outputs: Mapping[tuple[str, str], TaskOutput], seed: int
) -> Iterator[Comparison]:
    """Compare each pair of models on every shown figure, where both were measured on the same clips.

    Args:
        outputs: by (model, task).
    """
    for task in tasks:
        # Paired: hard clips are hard for both models, so their difference varies less than either figure.
        for a, b in combinations(models, 2):
            first, second = outputs.get((a, task.name)), outputs.get((b, task.name))
            # Different digests: one model could not embed some of the clips, so the figures are of different clips.
            if first is None or second is None or first.clips.digest != second.clips.digest:
                continue
            for metric in task.shown_metrics:
                if metric in first.measures:
                    # The change is the second's figure less the first's.
                    pair = second.measures[metric], first.measures[metric]
                    difference = paired_difference(*pair, first.clips.groups, seed=seed)
                    yield Comparison(task.name, metric, a, b, difference)
