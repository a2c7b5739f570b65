"""Wrong captions that differ from a right one in one respect only, made by rule from any captions in English.

Four kinds: the *order* of two events, which of two *sources* does what, *negation*, and a *count*. The ideas are those
of CompA (Ghosh et al. 2024, arXiv:2310.08753: order and attributes swapped) and of T-CLAP (Yuan et al. 2024,
arXiv:2404.17806: temporal order changed for negatives); rules and words are openclap's own, so that figures cannot be
compared with theirs.

The rules are narrow on purpose. A caption to which none applies cleanly is not used: with a pronoun, a swap could
change what the pronoun stands for; with several conjunctions, the parts are unknown; "beeps and buzzes" have no order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MakeWrong = Callable[[str], str | None]
"""A caption without its full stop and with a small first letter, to the changed one, or None."""

_ARTICLE = r"(?:an?|the|some|several|many|two|three|four|five|another|someone|something|people)"
_STARTS_A_CLAUSE = re.compile(rf"{_ARTICLE}\b")
_PRONOUN = re.compile(
    r"\b(?:it|its|itself|they|them|their|he|him|his|she|her|this|that|these|those|which|who|whose|one|other|others|each|"
    r"both|same)\b"
)
_HOW = r"(?:(?:is|are|being) )?(?:(?:closely|immediately|quickly|shortly|soon|directly) )?"
_IN_ORDER = re.compile(rf",? {_HOW}followed by |,? and then |,? then | before | after ")
_JOINS = re.compile(
    r"\b(?:and|or|but|with|without|while|as|when|then|before|after|until|during|followed|by|over|nor)\b"
)


def swap_order(caption: str) -> str | None:
    """Exchange two events: "a dog barks, then a door closes" to "a door closes, then a dog barks"."""
    joints = list(_IN_ORDER.finditer(caption))
    if len(joints) != 1 or _PRONOUN.search(caption):
        return None
    joint = joints[0].group()
    first, second = caption[: joints[0].start()], caption[joints[0].end() :]
    if first == second or re.search(r"[,;:.]|\b(?:while|when|until|during|as)\b", f"{first} {second}"):
        return None
    # "an engine sputters and then dies": the second part must have a subject of its own. "Followed by" takes a noun.
    if "followed by" not in joint and not (_STARTS_A_CLAUSE.match(first) and _STARTS_A_CLAUSE.match(second)):
        return None
    if _JOINS.match(first) or _JOINS.match(second) or re.search(rf"\b(?:{_LINKS})$", f"{first}"):
        return None
    return f"{second}{joint}{first}"


_LINKS = "is|are|was|were|and|or|but|just|right|shortly|immediately|soon|long|moments?|seconds?"
_SOUND_VERBS = (
    "bang bark beep bellow blare bleat boom bubble burp buzz chatter cheer chime chirp chuckle clang clap clatter "
    "click clink cluck coo cough crackle crash creak croak crow cry drip fizz giggle groan growl grunt gurgle "
    "hiss honk hoot howl hum jingle knock laugh meow moan moo mumble murmur neigh oink patter pop purr quack "
    "rattle ring roar rumble rustle scream screech shout sigh sing sizzle slam sneeze snore snort sob speak "
    "splash splutter sputter squawk squeak squeal talk thud thump tick tinkle toot trickle tweet wail whimper "
    "whine whirr whisper whistle whoosh yell yelp "
)


def _inflected(verb: str) -> dict[str, str]:
    """(form: the name of its inflection) of a regular verb."""
    third = f"{verb}es" if re.search(r"(?:s|x|z|ch|sh)$", verb) else re.sub(r"(?<![aeiou])y$", "ie", verb) + "s"
    doubled = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwy]", verb)
    ing = f"{verb[:-1] if verb.endswith('e') else verb}{verb[-1] if doubled else ''}ing"
    return {verb: "plain", third: "third person", ing: "participle"}


_FORMS = {form: kind for verb in _SOUND_VERBS.split() for form, kind in _inflected(verb).items()}
_VERB = "|".join(sorted(_FORMS, key=len, reverse=True))
_ACTOR = r"(?:an?|the|two|three|several|some)(?: (?!of\b|and\b)[a-z]+){1,3}?"
_MANNER = r"(?: [a-z]+ly| in the (?:background|distance)| nearby)?"
_TWO_ACTORS = re.compile(rf"({_ACTOR} )({_VERB})({_MANNER} (?:and|while|as) {_ACTOR} )({_VERB})({_MANNER})")


def swap_sources(caption: str) -> str | None:
    """Exchange what two sources do: "a dog barks and a cat meows" to "a dog meows and a cat barks"."""
    found = _TWO_ACTORS.fullmatch(caption)
    if not found or _PRONOUN.search(caption):
        return None
    before, one, between, other, after = found.groups()
    # Verbs of one inflection, so that both clauses stay grammatical.
    if one == other or _FORMS[one] != _FORMS[other]:
        return None
    return f"{before}{other}{between}{one}{after}"


# Words with which "with" means something else than presence: "filled with", "along with".
_BOUND = re.compile(
    r"\b(?:"
    r"along|together|filled|begins|begin|beginning|starts|start|starting|ends|end|ending|mixed|"
    r"combined|accompanied|hit|struck|played|plays|playing|covered|beat|beaten|done|made|hits|"
    r"strikes|compared|interspersed|over|up|down|out|away|agrees|agree|agreeing|deals|dealing"
    r")$"
)
# A tool or a voice is no sound beside the other one: "a lock opened without a key" denies nothing that can be heard.
_NO_SOUND = re.compile(
    r"\b(?:axe|blade|brush(?:es)?|chisel|finger(?:s|nails?)?|fists?|foot|feet|fork|hammers?|hands?|key|knife|mallets?|"
    r"pedals?|saw|shield|shovel|spoon|sticks?|sword|tools?|voices?|on|off)\b"
)


def negate(caption: str) -> str | None:
    """Deny one of two parts: "rain with thunder" to "rain without thunder", "a whistle and a bell" to "a whistle but
    no bell"; and the reverse of "without"."""
    if _PRONOUN.search(caption) or re.search(r"[,;:.]|\b(?:no|not|never|but|or|nor|neither)\b", caption):
        return None
    found = re.fullmatch(r"(.+) (and|with|without|while|as) (.+)", caption)
    if not found or re.search(r"\b(?:and|with|without|while|as)\b", f"{found[1]} | {found[3]}"):
        return None
    first, joint, second = found.groups()
    if joint in ("with", "without"):
        other = "without" if joint == "with" else "with"
        return None if _BOUND.search(first) or _NO_SOUND.search(second) else f"{first} {other} {second}"
    noun = re.match(r"an? (.+)", second)
    return f"{first} but no {noun[1]}" if joint == "and" and noun and _STARTS_A_CLAUSE.match(first) else None


_COUNTS = {
    "two": "five",
    "three": "six",
    "four": "two",
    "five": "two",
    "six": "three",
    "seven": "three",
    "eight": "three",
    "nine": "four",
    "ten": "four",
}
_NUMBER = re.compile(r"(?<![\w-])(?:one|" + "|".join(_COUNTS) + r"|once|twice|single|pair|couple)(?![\w-])")
_UNITS = re.compile(
    r" (?:and|or|to|of|seconds?|minutes?|hours?|semitones?|octaves?|hertz|channels?|thousand|hundred|dozen|o'clock|"
    r"more|pieces?|parts?|halves)\b"
)


def recount(caption: str) -> str | None:
    """Change one number: "two dogs bark" to "five dogs bark", "a horn toots twice" to "a horn toots five times"."""
    numbers = list(_NUMBER.finditer(caption))
    if len(numbers) != 1:
        return None
    before, word, after = caption[: numbers[0].start()], numbers[0].group(), caption[numbers[0].end() :]
    if word in ("once", "twice"):
        # "at once" and "once the engine starts" count nothing.
        counts = not after and before and not before.endswith("at ")
        return f"{before}{'four' if word == 'once' else 'five'} times" if counts else None
    if word not in _COUNTS or not after.strip() or _UNITS.match(after) or re.search(r"\b(?:or|at|by|in) $", before):
        return None
    return f"{before}{_COUNTS[word]}{after}"


RULES: Mapping[str, MakeWrong] = {"order": swap_order, "source": swap_sources, "negation": negate, "count": recount}
"""The rule of each kind."""


def hard_captions(caption: str) -> dict[str, str]:
    """The wrong captions that the rules make of a right one, by kind; {} where no rule applies."""
    text = " ".join(caption.split())
    stop = "." if text.endswith(".") else ""
    body = text.removesuffix(".")
    is_capital = (body[:1].isupper() and body[1:2] != body[1:2].upper()) or body[:2] == "A "
    if is_capital:
        body = body[0].lower() + body[1:]
    made = {kind: rule(body) for kind, rule in RULES.items()}
    return {
        kind: (wrong[0].upper() + wrong[1:] if is_capital else wrong) + stop
        for kind, wrong in made.items()
        if wrong and wrong != body
    }
