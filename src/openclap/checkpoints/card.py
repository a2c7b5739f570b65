"""The model card of a folder: what the hub shows of a model, as Markdown under a YAML head.

No licence is written: that is for the person to choose who publishes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclap import presets
from openclap.checkpoints import figures
from openclap.checkpoints.figures import CardFigures
from openclap.errors import CheckpointError
from openclap.formatting import markdown_table
from openclap.models.htsat import HTSATConfig
from openclap.presets import Preset
from openclap.storage import write_bytes

CARD, CONFIG, EVALUATION = "README.md", "config.json", "evaluation.json"
TAGS = ("audio", "clap", "contrastive-language-audio-pretraining", "text-to-audio-retrieval")


def write(folder: Path, repo: str) -> Path | None:
    """Write the card beside the weights and return its path; None where a card stands already.

    Raises CheckpointError when the folder is no model of ours or its `evaluation.json` is damaged.
    """
    place = folder / CARD
    if place.exists():
        return None
    write_bytes(place, card(folder, repo).encode())
    return place


def card(folder: Path, repo: str) -> str:
    """The text: how to load the model, what it is made of and, where `evaluation.json` lies there (what `openclap eval
    --json` wrote, of one model or of a suite), what it reached."""
    preset = presets.from_dict(_read(folder / CONFIG)["preset"])
    measured = figures.read(_read(folder / EVALUATION), folder) if (folder / EVALUATION).is_file() else None
    parts = [_head(repo, measured), _what(repo, preset), _parts(preset), *([measured.text] if measured else [])]
    parts.append("## Licence\n\nNot stated yet. Add `license:` and its identifier to the head of this card.")
    return "\n\n".join(parts) + "\n"


def _head(repo: str, measured: CardFigures | None) -> str:
    """The YAML that the hub reads, figures as its `model-index`."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="openclap",
        pipeline_tag="zero-shot-audio-classification",
        tags=list(TAGS),
        model_name=_name(repo) if measured else None,
        eval_results=list(measured.results) if measured else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _name(repo: str) -> str:
    return repo.rpartition("/")[2]


def _what(repo: str, preset: Preset) -> str:
    return f"""# {_name(repo)}

A CLAP model (contrastive language-audio pretraining): it turns sounds and sentences into unit vectors of
{preset.embedding_size} numbers, close to each other where the sentence describes the sound.

```python
import openclap

model = openclap.load("{repo}")
sounds_ND = model.embed_audio(["dog.wav", "rain.wav"])
texts_ND = model.embed_text(["a dog barking", "rain on a tin roof"])
chances_NC = model.classify(["dog.wav"], ["dog", "rain"])
```

`pip install openclap` brings the library."""


def _parts(preset: Preset) -> str:
    mel = preset.frontend.mel
    rows = [
        ("audio tower", _audio(preset)),
        ("reads", f"{preset.frontend.samples / mel.rate:.4g} s of mono sound at {mel.rate / 1000:.4g} kHz"),
        (
            "front end",
            f"{mel.n_mels} log-mel bins of {mel.f_min:.0f}–{mel.f_max:.0f} Hz, a frame every {mel.hop} samples",
        ),
        ("longer clips", LONG[preset.frontend.long]),
        ("text tower", f"{preset.text.model_type}, {preset.text.context} tokens at most"),
        ("vectors", f"{preset.embedding_size} numbers"),
        ("preset", preset.name),
    ]
    return markdown_table([("", ""), *rows])


LONG = {"windows": "windows end to end, averaged", "fusion": "the whole and three crops, fused"}


def _audio(preset: Preset) -> str:
    audio = preset.audio
    fused = f", fusion {audio.fusion}" if audio.fusion else ""
    if isinstance(audio, HTSATConfig):
        return f"HTSAT, width {audio.width}, depths {'-'.join(map(str, audio.depths))}{fused}"
    return f"convolutional (PANN), widths {'-'.join(map(str, audio.widths))}{fused}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"preset": content["preset"]} if path.name == CONFIG else dict(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: has no {path.name}, expected a folder written by openclap.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: is damaged or was not written by openclap.") from None
