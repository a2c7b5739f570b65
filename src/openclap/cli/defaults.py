"""The model and the index of commands without --model and --index."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from openclap import paths
from openclap.checkpoints.bundled import MINI
from openclap.cli.console import note

if TYPE_CHECKING:
    from openclap.search.index import Index


def default_model() -> str:
    """The bundled model."""
    return MINI


def advise_model(index: Index, *, is_named: bool = False) -> None:
    """Note, once for each index that uses the default model, a published one that was trained on far more sounds, and
    how to take it.

    Args:
        is_named: whether the user has named the model: then there is nothing to advise, now or later.
    """
    from openclap.checkpoints.published import PUBLISHED, RECOMMENDED

    folder, advised = index.place.own_folder, paths.home() / "advised.txt"
    if folder is None:  # `openclap index rebuild` refuses an index in object storage
        return
    if folder == (paths.home() / "demo" / "index").absolute():  # the demo's model was fine-tuned on its sounds
        return
    with suppress(OSError):  # without the file, the line would come at every search
        if index.identity.model != default_model() or (
            advised.is_file() and str(folder) in advised.read_text(encoding="utf-8").splitlines()
        ):
            return
        advised.parent.mkdir(parents=True, exist_ok=True)
        with advised.open("a", encoding="utf-8") as file:
            file.write(f"{folder}\n")
        if not is_named:
            better = PUBLISHED[RECOMMENDED]
            size = f"{better.megabytes / 1000:.1f} GB, " if better.megabytes else ""
            note(
                f"This index uses the default model, which is small. {better.name} ({size}"
                f"{better.licence}), was trained on far more sounds: "
                f"openclap index rebuild --index {shlex.quote(str(folder))} --model {better.name}"
            )


def default_index() -> Path:
    """The user's own index if there is one, otherwise the demo's; it need not exist."""
    own, demo = paths.home() / "index", paths.home() / "demo" / "index"
    return demo if demo.is_dir() and not own.is_dir() else own
