"""`openclap push`: publish a model folder on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note, print_json, results


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a model with openclap",
    revision: str | None = None,
    json: bool = False,
) -> None:
    """Publish a model folder on the Hugging Face hub, and print the URL of its page.

    Needs a token with write access, in HF_TOKEN or from `hf auth login`. Uploads the weights, the configuration, the
    tokenizer, the files of sentence-transformers if there are any, and the model card README.md, which is written if it
    is missing; no other files. The card shows the scores of an `evaluation.json` in the folder, the output of `openclap
    eval --json`.

    Parameters
    ----------
    folder
        A model folder, such as OUT/model of a training run.
    repo
        USER/NAME on the hub; created if it does not exist.
    private
        Create the repository as private.
    message
        The commit message.
    revision
        The branch to write to, created if it does not exist. Default: the main branch.
    json
        Print one JSON object instead of the URL.
    """
    from openclap.checkpoints.model_card import publish

    url = publish(folder, repo, private=private, message=message, revision=revision, report=note)
    if json:
        print_json({"url": url})
    else:
        results.print(url, markup=False)
