"""Keywords to a sentence, by a sequence-to-sequence model: "dog, bark, rain" → "A dog barks in the rain".

Any such model of transformers' will do: one of the hub's, a folder, or the small one that comes along (`BUNDLED`,
made by scripts/captioner/train_captioner.py). How keywords are put to a model, and how its answer is searched for, is
its `Form`. `PUBLISHED` is the model behind LAION-Audio-630K's text_augment_t5; its card puts words side by side,
"tree plant ground hole dig", and asks for at most 32 tokens
(https://huggingface.co/mrm8488/t5-base-finetuned-common_gen).
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
PUBLISHED = "mrm8488/t5-base-finetuned-common_gen"
MODEL = Path(__file__).parent / "model"
STAND_INS = tuple(f"<{number}>" for number in range(8))


@dataclass(frozen=True, slots=True)
class Form:
    """How to ask, and how to search for the answer.

    Attributes:
        before, between: what the prompt begins with, and what parts keywords.
        most_tokens: of the sentence.
        beams: sentences followed side by side; no chance is involved.
        covering: of the beams' sentences, take the one with the most keywords, the likelier of equals; otherwise the
            likeliest.
        no_repeat: no run of so many tokens occurs twice; 0 lets it.
        capital: begin with a capital letter, for a model that writes none.
        plain: write of keywords in Latin script alone, none of which is part of another, and put the plainest sentence
            ("The sounds of A and B") in place of one that is not true to them (`true_to`).
        stand_ins: tokens that the model was taught to place, put for words that its tokenizer would break up and
            turned back in its answer; words beyond their number are left out.
    """

    before: str = ""
    between: str = " "
    most_tokens: int = 32
    beams: int = 4
    covering: bool = False
    no_repeat: int = 0
    capital: bool = False
    plain: bool = False
    stand_ins: tuple[str, ...] = ()


FORMS: dict[str, Form] = {
    PUBLISHED: Form(),
    BUNDLED: Form(
        between=", ", most_tokens=48, covering=True, no_repeat=3, capital=True, plain=True, stand_ins=STAND_INS
    ),
}
"""By name; a model that is not here is asked as `PUBLISHED` is."""


class Writer:
    """A maker that runs a model here.

    Sentences depend on nothing but weights, form and keywords; what shares a batch changes them only where two
    sentences are as good as equally likely, to within rounding.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, form: Form, *, digest: str, batch_size: int = 64) -> None:
        self.name = name
        self.identity = f"{digest} {json.dumps(asdict(form), sort_keys=True)}"
        self._model, self._tokenizer, self._form, self._batch_size = model, tokenizer, form, batch_size

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """A sentence for each; None where the model writes no word, or there are no keywords that it can read."""
        if self._form.plain:
            keywords = [apart(words) for words in keywords]
        hidden = [self._stand_ins(words) for words in keywords]
        prompts = [self._prompt(*pair) for pair in zip(keywords, hidden, strict=True)]
        by_length = sorted((n for n, words in enumerate(keywords) if words), key=lambda n: len(prompts[n]))
        made: list[str | None] = [None] * len(keywords)
        for start in range(0, len(by_length), self._batch_size):
            numbers = by_length[start : start + self._batch_size]
            beams = self._beams([prompts[number] for number in numbers])
            for number, texts in zip(numbers, beams, strict=True):
                made[number] = self._choose(keywords[number], [shown(text, hidden[number]) for text in texts])
        return made

    def _stand_ins(self, keywords: Keywords) -> dict[str, str]:
        """What to put for which words; "" for those there is no stand-in for."""
        names = self._form.stand_ins
        if not names:
            return {}
        broken = dict.fromkeys(
            word for keyword in keywords for word in keyword.split() if len(self._tokenizer.tokenize(word)) != 1
        )
        return dict(zip_longest(broken, names[: len(broken)], fillvalue=""))

    def _prompt(self, keywords: Keywords, hidden: dict[str, str]) -> str:
        shown = (" ".join(filter(None, (hidden.get(word, word) for word in keyword.split()))) for keyword in keywords)
        return self._form.before + self._form.between.join(filter(None, shown))

    def _beams(self, prompts: list[str]) -> list[list[str]]:
        """For each prompt what the model writes, likeliest first."""
        import torch

        form = self._form
        kept = form.beams if form.covering else 1
        batch = self._tokenizer(prompts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            ids = self._model.generate(
                input_ids=batch["input_ids"].to(self._model.device),
                attention_mask=batch["attention_mask"].to(self._model.device),
                do_sample=False,
                num_beams=form.beams,
                num_return_sequences=kept,
                max_new_tokens=form.most_tokens,
                no_repeat_ngram_size=form.no_repeat,
                early_stopping=form.beams > 1,
            )
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [texts[start : start + kept] for start in range(0, len(texts), kept)]

    def _choose(self, keywords: Keywords, texts: Sequence[str]) -> str | None:
        odd = ("\ufffd", *self._form.stand_ins)
        usable = [
            text for text in map(clean, texts) if any(map(str.isalpha, text)) and not any(sign in text for sign in odd)
        ]
        if self._form.plain:
            whole = [re.sub(r",(?:\s*,)+", ",", text).rstrip(" ,;") for text in usable]
            usable = [text for text in whole if true_to(keywords, text)] or [sounds_of(keywords)]
        best = max(usable, key=lambda text: coverage(keywords, text), default=None)
        return best[0].upper() + best[1:] if best and self._form.capital else best


def shown(text: str, hidden: dict[str, str]) -> str:
    """The words in place of their stand-ins."""
    for word, name in hidden.items():
        text = text.replace(name, f" {word}") if name else text
    return re.sub(r"\s+(?=[,.;:!?])", "", text)


def load(
    name: str = PUBLISHED,
    *,
    revision: str | None = None,
    device: str | None = None,
    form: Form | None = None,
    batch_size: int = 64,
) -> Writer:
    """The model of a name on the hub, a folder, or `BUNDLED`, on a GPU where there is one.

    Raises CheckpointError when it cannot be had or is no sequence-to-sequence model, ConfigError for an unknown device.
    """
    import torch

    folder = MODEL if name == BUNDLED else Path(name).expanduser()
    local = folder.is_dir()
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CheckpointError(f"{name}: no such folder, expected a model of transformers', or a name on the hub.")
    place = str(folder) if local else name
    with _one_sentence(name), _bars_on_terminals_alone():
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
        model = AutoModelForSeq2SeqLM.from_pretrained(place, revision=revision, dtype=torch.float32).eval()
    digest = digest_of(folder) if local else f"{name}@{model.config._commit_hash}"
    shown = BUNDLED if name == BUNDLED else folder.resolve().name if local else name
    chosen = form or FORMS.get(name, FORMS[PUBLISHED])
    return Writer(shown, _moved(model, device), tokenizer, chosen, digest=digest, batch_size=batch_size)


def digest_of(folder: Path) -> str:
    """Of names and content of all files that a model is read from."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin", ".model")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def coverage(keywords: Sequence[str], text: str) -> float:
    """The share of the keywords' words that a sentence has, endings aside: "barking" is there in "a dog barks"."""
    wanted = {stem(word) for keyword in keywords for word in _words(keyword)}
    return len(wanted & set(map(stem, _words(text)))) / len(wanted) if wanted else 1.0


COVERED = 0.5
"""A sentence says at least so much of its keywords."""
_SOUNDING = """
man men male | woman women female | person people child children baby girl boy crowd someone | speak speech talk
voice conversation | laugh laughter | sing song singer choir | cry sob | cough | sneeze | snore | applaud applause
clap | cheer | scream shout | dog | cat | bird | horse | animal | insect | car truck vehicle engine motor motorcycle
| train | boat ship | helicopter aircraft plane | music | guitar | piano | drum | bell | siren | phone telephone |
gun gunshot
"""
"""What sounds, in families: a sentence that names one which its keywords do not is made up."""


def apart(keywords: Sequence[str]) -> Keywords:
    """Keywords in Latin script, without those that another one says as well ("piano" beside "grand piano", "birds")."""
    stems = {word: frozenset(map(stem, _words(word))) for word in keywords if in_latin(word)}
    kept: list[str] = []
    for place, word in enumerate(stems):
        others = list(stems)[:place], list(stems)[place + 1 :]
        before = any(stems[word] <= stems[other] for other in others[0])
        if not before and not any(stems[word] < stems[other] for other in others[1]):
            kept.append(word)
    return tuple(kept)


def true_to(keywords: Sequence[str], text: str) -> bool:
    """Does a sentence say most of its keywords, none of them twice, and name nothing that sounds beside them?"""
    given = Counter(stem(word) for keyword in keywords for word in _words(keyword))
    said = Counter(map(stem, _words(text)))
    if coverage(keywords, text) < COVERED or any(said[word] > given[word] for word in given):
        return False
    return all(family & given.keys() or not family & said.keys() for family in _families())


@cache
def _families() -> tuple[frozenset[str], ...]:
    return tuple(frozenset(map(stem, family.split())) for family in _SOUNDING.split("|"))


def stem(word: str) -> str:
    """Without an English ending, near enough to tell that "idling" and "idle", or "cries" and "cry", are one."""
    for endings in (("es", "s"), ("ing", "ed", "e")):
        word = next(
            (word.removesuffix(end) for end in endings if word.endswith(end) and len(word) > len(end) + 2), word
        )
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return f"{word[:-1]}i" if word.endswith("y") else word


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _moved(model: Any, device: str | None) -> Any:
    import torch

    try:
        return model.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {device!r} cannot be used ({reason}). Expected cpu, cuda or cuda:N.") from error


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """transformers draws progress bars even where stderr is a file."""
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
def _one_sentence(name: str) -> Iterator[None]:
    """Whatever transformers and its readers raise, as one sentence."""
    try:
        yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{name}: cannot be loaded as a sequence-to-sequence model ({reason.rstrip('.')}). Expected the name of "
            f"one on the Hugging Face hub, or a folder of one; '{BUNDLED}' comes along."
        ) from error
