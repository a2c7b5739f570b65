"""Write captions from keywords with a sequence-to-sequence model: "dog, bark, rain" → "A dog barks in the rain".

Any such model of transformers works: a name on the hub, a folder, or the small one that comes with openclap (`BUNDLED`,
trained by scripts/captioner/train_captioner.py). `GenerationSettings` say how a model is prompted and decoded.
`COMMON_GEN` is the model behind LAION-Audio-630K's text_augment_t5; its card joins words with spaces, "tree plant
ground hole dig", and generates at most 32 tokens (https://huggingface.co/mrm8488/t5-base-finetuned-common_gen).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from openclap.captions.cache import Keywords
from openclap.captions.keywords import in_latin
from openclap.captions.rules import clean, sounds_of
from openclap.errors import CheckpointError, ConfigError

BUNDLED = "bundled"
COMMON_GEN = "mrm8488/t5-base-finetuned-common_gen"
MODEL = Path(__file__).parent / "model"
# The bundled model copies these, where it would misspell words that AudioCaps lacks (docs/LOG.md).
PLACEHOLDERS = tuple(f"<{number}>" for number in range(8))


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How a model is prompted and decoded. Decoding is deterministic: beam search without sampling.

    Attributes:
        prefix, separator: the beginning of the prompt, and the text between keywords.
        max_tokens: the longest caption.
        beams: width of the beam search.
        prefer_coverage: take the beam's caption with most keywords, the likelier of equals; otherwise the likeliest.
        no_repeat_ngram: no run of this many tokens occurs twice; 0 for no limit.
        capitalise: begin with a capital letter, for a model that writes none.
        faithful: drop keywords in other than Latin script and redundant ones, and replace captions that are not
            faithful to the keywords (`is_faithful`) by the plain sentence ("The sounds of A and B").
        placeholders: tokens that the model was trained to copy. They stand for words that its tokenizer would split,
            and are replaced by them in its output; words beyond their number are left out.
    """

    prefix: str = ""
    separator: str = " "
    max_tokens: int = 32
    beams: int = 4
    prefer_coverage: bool = False
    no_repeat_ngram: int = 0
    capitalise: bool = False
    faithful: bool = False
    placeholders: tuple[str, ...] = ()


SETTINGS: dict[str, GenerationSettings] = {
    COMMON_GEN: GenerationSettings(),
    BUNDLED: GenerationSettings(
        separator=", ",
        max_tokens=48,
        prefer_coverage=True,
        no_repeat_ngram=3,
        capitalise=True,
        faithful=True,
        placeholders=PLACEHOLDERS,
    ),
}
"""Settings by model name; other models use those of `COMMON_GEN`."""


class KeywordCaptioner:
    """A caption maker that runs a model in this process.

    Captions depend only on weights, settings and keywords. The rest of a batch matters only where two captions are
    equally likely to within rounding.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, settings: GenerationSettings, *, digest: str, batch_size: int = 64
    ) -> None:
        self.name = name
        self.identity = f"{digest} {json.dumps(asdict(settings), sort_keys=True)}"
        self._model, self._tokenizer, self._settings, self._batch_size = model, tokenizer, settings, batch_size

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """Write a caption for each; None where the output has no word, or no keyword remains (`faithful`)."""
        if self._settings.faithful:
            keywords = [distinct_keywords(words) for words in keywords]
        substitutes = [self._substitutes(words) for words in keywords]
        prompts = [self._prompt(*pair) for pair in zip(keywords, substitutes, strict=True)]
        # Prompts of similar length share a batch, which wastes little time on padding.
        by_length = sorted((n for n, words in enumerate(keywords) if words), key=lambda n: len(prompts[n]))
        captions: list[str | None] = [None] * len(keywords)
        for start in range(0, len(by_length), self._batch_size):
            numbers = by_length[start : start + self._batch_size]
            beams = self._generate([prompts[number] for number in numbers])
            for number, beam in zip(numbers, beams, strict=True):
                texts = [restore_words(text, substitutes[number]) for text in beam]
                captions[number] = self._choose(keywords[number], texts)
        return captions

    def _substitutes(self, keywords: Keywords) -> dict[str, str]:
        """Map the words that the tokenizer would split to placeholders; to "" where none is left."""
        placeholders = self._settings.placeholders
        if not placeholders:
            return {}
        rare = dict.fromkeys(
            word for keyword in keywords for word in keyword.split() if len(self._tokenizer.tokenize(word)) != 1
        )
        return dict(zip_longest(rare, placeholders[: len(rare)], fillvalue=""))

    def _prompt(self, keywords: Keywords, substitutes: dict[str, str]) -> str:
        texts = (" ".join(filter(None, (substitutes.get(word, word) for word in words.split()))) for words in keywords)
        return self._settings.prefix + self._settings.separator.join(filter(None, texts))

    def _generate(self, prompts: list[str]) -> list[list[str]]:
        """Return the model's captions for each prompt, the likeliest first."""
        import torch

        settings = self._settings
        returned = settings.beams if settings.prefer_coverage else 1
        batch = self._tokenizer(prompts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            # Without sampling: the same keywords always give the same caption.
            ids = self._model.generate(
                input_ids=batch["input_ids"].to(self._model.device),
                attention_mask=batch["attention_mask"].to(self._model.device),
                do_sample=False,
                num_beams=settings.beams,
                num_return_sequences=returned,
                max_new_tokens=settings.max_tokens,
                no_repeat_ngram_size=settings.no_repeat_ngram,
                early_stopping=settings.beams > 1,
            )
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [texts[start : start + returned] for start in range(0, len(texts), returned)]

    def _choose(self, keywords: Keywords, texts: Sequence[str]) -> str | None:
        # The tokenizer decodes bytes that form no character to U+FFFD.
        invalid = ("\ufffd", *self._settings.placeholders)
        usable = [
            text
            for text in map(clean, texts)
            if any(map(str.isalpha, text)) and not any(sign in text for sign in invalid)
        ]
        if self._settings.faithful:
            tidy = [re.sub(r",(?:\s*,)+", ",", text).rstrip(" ,;") for text in usable]
            usable = [text for text in tidy if is_faithful(keywords, text)] or [sounds_of(keywords)]
        # The beam with the most keywords makes better captions than the likeliest one (docs/LOG.md). max returns the
        # first of equals, which is the likelier one.
        best = max(usable, key=lambda text: coverage(keywords, text), default=None)
        return best[0].upper() + best[1:] if best and self._settings.capitalise else best


def restore_words(text: str, substitutes: dict[str, str]) -> str:
    """Replace placeholders by their words."""
    for word, placeholder in substitutes.items():
        text = text.replace(placeholder, f" {word}") if placeholder else text
    return re.sub(r"\s+(?=[,.;:!?])", "", text)


def load(
    name: str = COMMON_GEN,
    *,
    revision: str | None = None,
    device: str | None = None,
    settings: GenerationSettings | None = None,
    batch_size: int = 64,
) -> KeywordCaptioner:
    """Load a model by its name on the hub, its folder, or `BUNDLED`; on a GPU if there is one.

    Raises CheckpointError when it cannot be fetched or is not a sequence-to-sequence model, ConfigError for an unknown
    device.
    """
    import torch

    folder = MODEL if name == BUNDLED else Path(name).expanduser()
    is_local = folder.is_dir()
    if not is_local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CheckpointError(f"{name}: no such folder, expected a model of transformers, or a name on the hub.")
    place = str(folder) if is_local else name
    with _as_checkpoint_error(name), _progress_bars_on_terminals_only():
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
        model = AutoModelForSeq2SeqLM.from_pretrained(place, revision=revision, dtype=torch.float32).eval()
    digest = digest_of(folder) if is_local else f"{name}@{model.config._commit_hash}"
    title = BUNDLED if name == BUNDLED else folder.resolve().name if is_local else name
    settings = settings or SETTINGS.get(name, SETTINGS[COMMON_GEN])
    return KeywordCaptioner(title, _to_device(model, device), tokenizer, settings, digest=digest, batch_size=batch_size)


def digest_of(folder: Path) -> str:
    """Return a digest of the names and contents of all files that a model is read from."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin", ".model")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def coverage(keywords: Sequence[str], text: str) -> float:
    """Return the share of the keywords' words that a caption has, endings aside: "a dog barks" covers "barking"."""
    wanted = {stem(word) for keyword in keywords for word in _words(keyword)}
    return len(wanted & set(map(stem, _words(text)))) / len(wanted) if wanted else 1.0


LEAST_COVERAGE = 0.5
"""A faithful caption has at least this share of its keywords."""
_SOUND_SOURCES = """
man men male | woman women female | person people child children baby girl boy crowd someone | speak speech talk
voice conversation | laugh laughter | sing song singer choir | cry sob | cough | sneeze | snore | applaud applause
clap | cheer | scream shout | dog | cat | bird | horse | animal | insect | car truck vehicle engine motor motorcycle
| train | boat ship | helicopter aircraft plane | music | guitar | piano | drum | bell | siren | phone telephone |
gun gunshot
"""
"""Sources of sound in families of related words. A caption that names a family absent from its keywords is made up;
these are the words that models of everyday scenes like to add."""


def distinct_keywords(keywords: Sequence[str]) -> Keywords:
    """Drop keywords outside Latin script, and redundant ones ("piano" beside "grand piano", "birds" beside "bird")."""
    stems = {word: frozenset(map(stem, _words(word))) for word in keywords if in_latin(word)}
    distinct: list[str] = []
    for place, word in enumerate(stems):
        earlier, later = list(stems)[:place], list(stems)[place + 1 :]
        # Of equals the first stays, hence <= for earlier ones and < for later ones.
        is_repeated = any(stems[word] <= stems[other] for other in earlier)
        if not is_repeated and not any(stems[word] < stems[other] for other in later):
            distinct.append(word)
    return tuple(distinct)


def is_faithful(keywords: Sequence[str], text: str) -> bool:
    """Return whether a caption has most of its keywords, none repeated, and names no other source of sound."""
    wanted = Counter(stem(word) for keyword in keywords for word in _words(keyword))
    written = Counter(map(stem, _words(text)))
    if coverage(keywords, text) < LEAST_COVERAGE or any(written[word] > wanted[word] for word in wanted):
        return False
    return all(family & wanted.keys() or not family & written.keys() for family in _sound_families())


@cache
def _sound_families() -> tuple[frozenset[str], ...]:
    return tuple(frozenset(map(stem, family.split())) for family in _SOUND_SOURCES.split("|"))


def stem(word: str) -> str:
    """Remove an English ending, well enough that "idling" and "idle", or "cries" and "cry", have one stem."""
    for endings in (("es", "s"), ("ing", "ed", "e")):
        word = next(
            (word.removesuffix(end) for end in endings if word.endswith(end) and len(word) > len(end) + 2), word
        )
    if len(word) > 3 and word[-1] == word[-2]:  # running → runn → run
        word = word[:-1]
    return f"{word[:-1]}i" if word.endswith("y") else word  # cry, cries → cri


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _to_device(model: Any, device: str | None) -> Any:
    import torch

    try:
        return model.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {device!r} cannot be used ({reason}). Expected cpu, cuda or cuda:N.") from error


@contextmanager
def _progress_bars_on_terminals_only() -> Iterator[None]:
    """Turn transformers' progress bars off where stderr is a file; it draws them even there."""
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextmanager
def _as_checkpoint_error(name: str) -> Iterator[None]:
    """Turn any error of transformers and its readers into a CheckpointError of one sentence."""
    try:
        yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{name}: cannot be loaded as a sequence-to-sequence model ({reason.rstrip('.')}). Expected the name of "
            f"one on the Hugging Face hub, or a folder of one; '{BUNDLED}' comes with openclap."
        ) from error
