"""Write the model card of a folder, the page that the hub shows: Markdown under a YAML head.

No licence is written: choosing one is up to the person who publishes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from openclap import presets
from openclap.checkpoints import figures, hub, openclap_folder
from openclap.checkpoints.figures import CardFigures
from openclap.errors import CheckpointError
from openclap.formatting import markdown_table
from openclap.models.config import HTSATConfig, NaFlexConfig, PANNConfig, WhisperConfig
from openclap.presets import Preset
from openclap.storage import write_bytes

CARD, CONFIG, EVALUATION = "README.md", "config.json", "evaluation.json"
TAGS = ("audio", "clap", "contrastive-language-audio-pretraining", "text-to-audio-retrieval")


def publish(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a model with openclap",
    revision: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> str:
    """Publish a model folder on the Hugging Face hub with a model card, and return the URL of its page.

    Args:
        repo: USER/NAME, created if it does not exist, as a private repository with `private`.
        revision: a branch, created if it does not exist; the default is the main branch.
        report: called with a line about each step.

    Raises CheckpointError when `folder` is no model of openclap, and when the hub cannot be reached or refuses.
    """
    openclap_folder.check_model(folder)
    hub.check_push(repo)  # before the card: where nothing can be sent, nothing is written either
    if written := write(folder, repo):
        report(f"Wrote {written}. It states no licence yet: add one there, or on the hub.")
    report(f"Uploading {folder} to {repo}")
    return hub.push(folder, repo, private=private, message=message, revision=revision)


def write(folder: Path, repo: str) -> Path | None:
    """Write the card beside the weights and return its path; None where there is a card already.

    Raises CheckpointError when the folder is no model of openclap, or its `evaluation.json` is damaged.
    """
    place = folder / CARD
    if place.exists():
        return None
    write_bytes(place, card_text(folder, repo).encode())
    return place


def card_text(folder: Path, repo: str) -> str:
    """Return the card: how to load the model, how it is built and, where the folder has an `evaluation.json` (from
    `openclap eval --json`), its scores."""
    preset = presets.from_dict(_read(folder / CONFIG)["preset"])
    scores = figures.read(_read(folder / EVALUATION), folder) if (folder / EVALUATION).is_file() else None
    parts = [_yaml_head(repo, scores), _usage(repo, preset), _architecture(preset), *([scores.text] if scores else [])]
    parts.append("## Licence\n\nNot stated yet. Add `license:` and its identifier to the head of this card.")
    return "\n\n".join(parts) + "\n"


def _yaml_head(repo: str, scores: CardFigures | None) -> str:
    """Return the YAML that the hub reads, with the scores as its `model-index`."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="openclap",
        pipeline_tag="zero-shot-audio-classification",
        tags=list(TAGS),
        model_name=_model_name(repo) if scores else None,
        eval_results=list(scores.results) if scores else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _model_name(repo: str) -> str:
    return repo.rpartition("/")[2]


def _usage(repo: str, preset: Preset) -> str:
    return f"""# {_model_name(repo)}

A CLAP model (contrastive language-audio pretraining): it embeds audio and text as unit vectors of
{preset.embedding_size} dimensions, which are close to each other where the text describes the sound.

```python
import openclap

model = openclap.load("{repo}")
audio_ND = model.embed_audio(["dog.wav", "rain.wav"])
text_ND = model.embed_text(["a dog barking", "rain on a tin roof"])
probabilities_NC = model.classify(["dog.wav"], ["dog", "rain"])
```

Install the library with `pip install openclap`."""


def _architecture(preset: Preset) -> str:
    mel = preset.frontend.mel
    rows = [
        ("audio tower", _audio_tower(preset)),
        ("input", f"{preset.frontend.samples / mel.rate:.4g} s of mono audio at {mel.rate / 1000:.4g} kHz"),
        (
            "front end",
            f"{mel.n_mels} log-mel bins of {mel.f_min:.0f}–{mel.f_max:.0f} Hz, a frame every {mel.hop} samples",
        ),
        ("longer clips", _longer_clips(preset)),
        ("text tower", f"{preset.text.model_type}, {preset.text.context} tokens at most"),
        ("embedding", f"{preset.embedding_size} dimensions"),
        ("preset", preset.name),
    ]
    return markdown_table([("", ""), *rows])


LONG = {"windows": "consecutive windows, averaged", "fusion": "the whole clip and three crops, fused"}


def _longer_clips(preset: Preset) -> str:
    front = preset.frontend
    if front.is_any_length:
        return f"whole, at their own length, up to {front.longest / front.mel.rate:.4g} s; then {LONG['windows']}"
    return LONG[front.long]


def _audio_tower(preset: Preset) -> str:
    audio = preset.audio
    fused = f", fusion {audio.fusion}" if audio.fusion else ""
    if isinstance(audio, HTSATConfig):
        return f"HTSAT, width {audio.width}, depths {'-'.join(map(str, audio.depths))}{fused}"
    if isinstance(audio, PANNConfig):
        return f"convolutional (PANN), widths {'-'.join(map(str, audio.widths))}{fused}"
    if isinstance(audio, NaFlexConfig):
        size = f"width {audio.width}, {audio.depth} blocks, {audio.heads} heads"
        return f"NaFlex transformer, {size}, patches of {audio.patch_freq} bins × {audio.patch_time} frames"
    if isinstance(audio, WhisperConfig):
        return f"Whisper's encoder, width {audio.width}, {audio.layers} blocks"
    assert_never(audio)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"preset": content["preset"]} if path.name == CONFIG else dict(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: has no {path.name}, expected a folder written by openclap.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: is damaged or was not written by openclap.") from None
