"""Published CLAP models by name: where they are, how they are built, and their published scores.

Files, towers and domains are as stated in the README of LAION-CLAP (github.com/LAION-AI/CLAP) and on the cards of the
Hugging Face models, licences and sizes as shown on the repositories' pages; unknown facts are left out. LAION's files
hold the optimizer's state too, hence their size. Sizes of Microsoft's files are computed from their parameters; their
licence is that of the package msclap.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openclap.checkpoints import hub

LAION_FILES = "lukewys/laion_clap"
README = "README of LAION-CLAP"
FIRST_SPLIT = "README of LAION-CLAP, on its first split of ESC-50"
PAPER = "paper (arXiv:2211.06687), the model trained on the same data"
MTEB = "MTEB's board"
MSCLAP_2022 = "paper (arXiv:2206.04769)"
MSCLAP_2023 = "README of msclap"
PE_AV = "paper (arXiv:2512.19687), its metric taken to be R@1"

Domain = Literal["sound", "music", "music+speech", "any"]


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A checkpoint on the hub.

    Attributes:
        file: the file in `repo`; None where the whole repository is the model.
        revision: the commit to use; None for the main branch.
        audio: the audio tower, as in `openclap.presets.AUDIO_TOWERS`, with RoBERTa; "naflex" for a NaFlex transformer
            whose sizes are in its own configuration; "pe-av" for Meta's, which transformers computes.
        fusion: whether a long clip is read as a whole and three crops, fused.
        domain: the kind of audio that it was trained on.
        good_for: its strength, in a word or two.
        licence: as its page states it; None where that could not be verified.
        megabytes: size of the download, in millions of bytes; None where it is not known.
        scores: published scores by data set: accuracy of zero-shot classification, or R@1 of text → audio retrieval
            where the name ends in "R@1". Protocols differ between sources.
        source: where the scores were published.
    """

    name: str
    repo: str
    audio: str
    domain: Domain
    good_for: str
    licence: str | None
    megabytes: int | None
    format: Literal["laion", "huggingface", "open_clip", "msclap", "transformers"]
    file: str | None = None
    revision: str | None = None
    fusion: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None

    @property
    def cached(self) -> bool:
        """Whether its weights are in the hub's cache."""
        weights = hub.OPEN_CLIP_WEIGHTS if self.format == "open_clip" else hub.WEIGHTS
        files = [self.file] if self.file else weights
        return any(hub.is_cached(self.repo, file, self.revision) for file in files)


def _good_for(domain: Domain, fusion: bool) -> str:
    if fusion:
        return "long sounds"
    return {"sound": "sounds", "music": "music", "music+speech": "music+speech", "any": "anything"}[domain]


def _laion(
    name: str,
    domain: Domain,
    scores: Mapping[str, float],
    source: str,
    *,
    base: bool = False,
    fusion: bool = False,
) -> PublishedModel:
    return PublishedModel(
        name=name,
        repo=LAION_FILES,
        file=f"{name}.pt",
        audio="htsat-base" if base else "htsat-tiny",
        domain=domain,
        good_for=_good_for(domain, fusion),
        licence="CC0-1.0",
        megabytes=2352 if base else 1860,
        format="laion",
        fusion=fusion,
        scores=scores,
        source=source,
    )


def _hugging_face(
    name: str,
    domain: Domain,
    scores: Mapping[str, float] | None = None,
    source: str | None = None,
    *,
    base: bool = False,
    fusion: bool = False,
) -> PublishedModel:
    return PublishedModel(
        name=name,
        repo=name,
        audio="htsat-base" if base else "htsat-tiny",
        domain=domain,
        good_for=_good_for(domain, fusion),
        licence="Apache-2.0",
        megabytes=776 if base else 615,
        format="huggingface",
        fusion=fusion,
        scores=scores or {},
        source=source,
    )


def _microsoft(year: int, audio: str, megabytes: int, score: float, source: str) -> PublishedModel:
    return PublishedModel(
        name=f"msclap-{year}",
        repo="microsoft/msclap",
        file=f"CLAP_weights_{year}.pth",
        audio=audio,
        domain="sound" if year == 2022 else "any",
        good_for="sounds",
        licence="MIT",
        megabytes=megabytes,
        format="msclap",
        scores={"ESC-50": score},
        source=source,
    )


def _perception(size: str, audiocaps: float, clotho: float) -> PublishedModel:
    name = f"facebook/pe-av-{size}"
    return PublishedModel(
        name=name,
        repo=name,
        audio="pe-av",
        domain="any",
        good_for="captions",
        licence="Apache-2.0",
        megabytes=None,
        format="transformers",
        scores={"AudioCaps R@1": audiocaps, "Clotho R@1": clotho},
        source=PE_AV,
    )


def _clap2(name: str, megabytes: int | None = None) -> PublishedModel:
    """A model of CLAP2, known from its name alone: its configuration, licence and scores could not be verified."""
    return PublishedModel(
        name=name,
        repo=name,
        audio="naflex",
        domain="any",
        good_for="any length",
        licence=None,
        megabytes=megabytes,
        format="open_clip",
    )


PUBLISHED: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        _laion("630k-audioset-best", "sound", {"ESC-50": 0.9275}, FIRST_SPLIT),
        _laion("630k-audioset-fusion-best", "sound", {"ESC-50": 0.9050}, FIRST_SPLIT, fusion=True),
        _laion("630k-best", "sound", {"ESC-50": 0.891}, PAPER),
        _laion("630k-fusion-best", "sound", {"AudioCaps R@1": 0.362, "Clotho R@1": 0.172}, PAPER, fusion=True),
        _laion("music_speech_audioset_epoch_15_esc_89.98", "any", {"ESC-50": 0.8998, "GTZAN": 0.73}, README, base=True),
        _laion("music_audioset_epoch_15_esc_90.14", "music", {"ESC-50": 0.9014, "GTZAN": 0.64}, README, base=True),
        _laion("music_speech_epoch_15_esc_89.25", "music+speech", {"ESC-50": 0.8925, "GTZAN": 0.73}, README, base=True),
        # According to LAION-CLAP's authors these are the weights of 630k-audioset-best; the protocol is another one.
        _hugging_face("laion/clap-htsat-unfused", "sound", {"ESC-50": 0.817}, MTEB),
        _hugging_face("laion/clap-htsat-fused", "sound", fusion=True),
        _hugging_face("laion/larger_clap_general", "any", base=True),
        _hugging_face("laion/larger_clap_music", "music", base=True),
        _hugging_face("laion/larger_clap_music_and_speech", "music+speech", base=True),
        _microsoft(2022, "pann-14", 780, 0.826, MSCLAP_2022),
        _microsoft(2023, "htsat-tiny", 630, 0.939, MSCLAP_2023),
        _perception("small", 0.418, 0.239),
        _perception("base", 0.427, 0.238),
        _perception("large", 0.458, 0.230),
        _clap2("laion/clap2-small-audioxl-s1B"),
        _clap2("laion/clap2-medium-audioxl-s1B"),
        _clap2("laion/clap2-large-audioxl-s1B", 1360),  # 340.1 million parameters in fp32
    )
}

RECOMMENDED = "laion/clap-htsat-unfused"
"""For sounds of any kind: the smallest download, trained on 630,000 pairs and AudioSet, and read without torch."""
RECOMMENDATIONS = {
    "sounds in general": RECOMMENDED,
    "recordings of minutes, as a whole": "laion/clap-htsat-fused",
    "music": "laion/larger_clap_music",
    "music and speech together": "laion/larger_clap_music_and_speech",
    "zero-shot classes of sounds": "msclap-2023",
    "finding sounds by captions": "facebook/pe-av-large",
}
"""The model to begin with, by use. None is a model whose licence could not be verified. docs/concepts/models.md has the
reasons."""


def find(source: str) -> PublishedModel | None:
    """Return the model of this name, with or without ".pt"; None for an unknown name."""
    return PUBLISHED.get(source.removesuffix(".pt"))


def names_in(repo: str) -> list[str]:
    """The names of the models that are single files of a repository, which has no model of its own name."""
    return [model.name for model in PUBLISHED.values() if model.repo == repo and model.file]


def closest(source: str) -> list[str]:
    """Return up to three names that are spelt like `source`, the closest first."""
    wanted = source.removesuffix(".pt").casefold()
    known = {name.casefold(): name for name in PUBLISHED} | {
        name.rpartition("/")[2].casefold(): name for name in PUBLISHED
    }
    # Twice as many as are returned, for a name may match with and without its user.
    matches = difflib.get_close_matches(wanted, known, n=6, cutoff=0.6)
    return list(dict.fromkeys(known[name] for name in matches))[:3]


def fetch(published: PublishedModel, *, revision: str | None = None, offline: bool = False) -> Path:
    """Return the file (LAION) or folder (Hugging Face) in the hub's cache, fetching it if need be.

    Raises CheckpointError as `hub.download` does.
    """
    files = [published.file] if published.file else None
    folder = hub.download(published.repo, revision=revision or published.revision, offline=offline, files=files)
    return folder / published.file if published.file else folder
