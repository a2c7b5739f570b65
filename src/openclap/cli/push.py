"""`openclap push`: a model folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap.cli.console import note, print_json, results


def push(
    folder: Path,
    repo: str,
    *,
    private: Annotated[bool, Parameter(negative="")] = False,
    message: str = "Upload a model with openclap",
    revision: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Publish a model folder on the Hugging Face hub, and print the URL of its page.

    Needs a token with the right to write, in HF_TOKEN or from `hf auth login`. The weights, the configuration, the
    tokenizer and, where the folder has them, the two files that sentence-transformers loads it by are uploaded, with
    the model card README.md, which is written where there is none; an `evaluation.json` from `openclap eval --json`, of
    any suite, becomes part of it. Other files in the folder stay here.

    Parameters
    ----------
    folder
        A model folder, such as OUT/model of a training run.
    repo
        USER/NAME on the hub; made if it is not there.
    private
        Make a new repository visible to you alone.
    message
        What the commit says.
    revision
        A branch to write to, made if it is not there; the main branch without it.
    json
        Print one JSON object instead of the URL.
    """
    from openclap.checkpoints import hub, model_card, openclap_folder

    openclap_folder.check_model(folder)
    hub.check_push(repo)
    if written := model_card.write(folder, repo):
        note(f"Wrote {written}. It states no licence yet: add one there, or on the hub.")
    note(f"Uploading {folder} to {repo}")
    url = hub.push(folder, repo, private=private, message=message, revision=revision)
    if json:
        print_json({"url": url})
    else:
        results.print(url, markup=False)
