"""`openclap locate`: when a sound is heard in a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.cli.console import note, print_json, print_table, progress, shown
from openclap.cli.model_options import ModelOptions
from openclap.text.prompts import LABEL, prompts

if TYPE_CHECKING:
    from openclap.location import Location

COLUMNS = 900
"""Columns of the waveform in a picture."""
WAVEFORM_RATE = 8000
"""Hz at which it is read."""
NAMED = 10
"""Most descriptions without a span that are named."""


def locate(
    file: Path,
    *descriptions: str,
    present: bool = False,
    threshold: float | None = None,
    shortest: float | None = None,
    smoothing: float | None = None,
    template: str = LABEL,
    svg: Path | None = None,
    scores: Annotated[bool, Parameter(help="With --json, print the score of every moment as well.")] = False,
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Find when sounds are heard in a recording by describing them. Needs torch.

    A model that was trained with phrases and their on- and offsets (`objective.frames`) gives probabilities, and the
    threshold is 0.5. Scores of any other model are standard deviations above a background of descriptions: spans show
    where a description fits best, and say little about whether the sound is there at all. Their threshold is 1, and
    six tenths of the way from the median of the recording to its highest score.

    Parameters
    ----------
    file
        A recording of any length.
    descriptions
        One or more descriptions, each in plain words: "a dog barking".
    present
        The sounds are known to be there: find where each fits best, without a threshold.
    threshold
        The least score of a span.
    shortest
        Leave out spans that are shorter, in seconds. Default: 0.2.
    smoothing
        Smooth scores by a median of so many seconds. Default: 0.4.
    template
        A prompt template; {} stands for the description.
    svg
        Draw waveform, scores and spans to this SVG file, for browsers.
    batch_size
        The number of windows per forward pass.
    json
        Print one JSON object instead of a table.
    """
    from openclap import location
    from openclap.audio.opened import opened
    from openclap.embedder import distinct_labels
    from openclap.errors import ConfigError
    from openclap.limits import check_count

    # Checked before the model is loaded, which takes seconds.
    if not descriptions:
        example = f"openclap locate {shown(file)} 'a dog barking'"
        raise ConfigError(f"No description was given, expected one or more: {example}.")
    names = distinct_labels(descriptions)
    prompts(names, template)
    check_count("--batch-size", batch_size)
    with opened(file):
        pass
    if svg is not None and not svg.absolute().parent.is_dir():
        raise ConfigError(f"{svg}: there is no folder {shown(svg.absolute().parent)} for the picture. Create it first.")
    if scores and not json:
        raise ConfigError("--scores goes with --json, and the table has spans alone. Add --json.")
    rule_options = {
        name: value
        for name, value in (("threshold", threshold), ("shortest_s", shortest), ("smoothing_s", smoothing))
        if value is not None
    }
    rules = (location.PRESENT,) if present else (location.TRAINED, location.UNTRAINED)
    checked = [replace(rule, **rule_options) for rule in rules]
    model_options.announce()
    embedder = model_options.load_named(model_options.name, revision=model_options.revision, runtime="torch")
    rule = checked[0] if location.has_frame_loss(embedder) else checked[-1]
    with progress("Locating") as advance:
        found = location.locate(
            embedder, file, names, template=template, rule=rule, batch_size=batch_size, progress=advance.add_seconds
        )
    if not found.is_trained:
        note(
            f"{model_options.name} was not trained to tell when: spans show where each description fits best, not "
            "whether it is there."
        )
    if json:
        print_json(_facts(found, file, scores=scores) | model_options.facts(embedder))
    else:
        _print(found, names, is_hinting=not present)
    # Last: a picture that cannot be written takes nothing else with it.
    if svg is not None:
        _draw(found, file, svg)


def _print(found: Location, names: Sequence[str], *, is_hinting: bool) -> None:
    rows = [[f"{span.start_s:.2f}", f"{span.end_s:.2f}", f"{span.score:.2f}", span.label] for span in found.spans]
    print_table(["start", "end", "score", "description"], rows, right=[0, 1, 2])
    located = {span.label for span in found.spans}
    if missing := [name for name in names if name not in located]:
        named = ", ".join(shorten(name, 60, placeholder=" …") for name in missing[:NAMED])
        further = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        hint = " Where a sound is known to be there, --present shows where it fits best." if is_hinting else ""
        note(f"No span for: {named}{further}.{hint}")


def _facts(found: Location, file: Path, *, scores: bool) -> dict[str, object]:
    timeline = found.timeline
    facts: dict[str, object] = {
        "path": str(file),
        "duration_s": timeline.duration_s,
        "resolution_s": timeline.resolution_s,
        "score": found.unit,
        "spans": [asdict(span) for span in found.spans],
    }
    if scores:
        facts["times_s"] = timeline.times_s.tolist()
        facts["scores"] = dict(zip(timeline.labels, timeline.scores.T.tolist(), strict=True))
    return facts


def _draw(found: Location, file: Path, svg: Path) -> None:
    """Write the picture. Raises ConfigError for a path that cannot be written."""
    import numpy as np

    from openclap.audio.inputs import blocks
    from openclap.errors import ConfigError
    from openclap.pages.location_chart import location_chart
    from openclap.storage import write_bytes

    columns = np.zeros((2, COLUMNS))
    samples, total = 0, max(1, round(found.timeline.duration_s * WAVEFORM_RATE))
    for block_N in blocks(file, WAVEFORM_RATE, name=str(file)):
        place_N = np.minimum((samples + np.arange(len(block_N))) * COLUMNS // total, COLUMNS - 1)
        np.minimum.at(columns[0], place_N, block_N)
        np.maximum.at(columns[1], place_N, block_N)
        samples += len(block_N)
    picture = location_chart(columns[0], columns[1], found.timeline, found.spans, unit=found.unit)
    try:
        write_bytes(svg, picture.encode())
    except OSError as error:
        raise ConfigError(f"{svg}: the picture cannot be written ({error.strerror}). Choose another place.") from None
    note(f"Picture: {svg}")
