from __future__ import annotations

import base64
import io
import itertools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evals_helpers import BandEmbedder

from openclap.evals.charts import most_frequent
from openclap.evals.clips import EvalClips
from openclap.evals.evaluation import Evaluation
from openclap.evals.examples import choose_queries, encode, kind_counts, queries
from openclap.evals.report import headline, write_report
from openclap.evals.suite import evaluate
from openclap.pages.charts import log_ticks, nice_ticks

EVIL = '<script>alert("caption")</script> & <img src=x onerror=alert(1)>'
LOG = [
    {
        "step": 10 * i,
        "loss": 1 + 3 * math.exp(-i / 40),
        "scale": 14.3 + i / 30,
        "pairs_per_s": 350.0,
        "lr": 1e-4,
    }
    for i in range(120)
]
VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, text, and whether tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(evaluation: Evaluation, test_clips: EvalClips, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert write_report(path, evaluation, title="A tiny model", training_log=LOG, clips=test_clips) == path
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_named(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert html.startswith("<!doctype html>") and 'lang="en"' in html
    assert len(page.all("h1")) == 1 and "A tiny model" in page.text
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))
    assert len(page.all("caption")) == len(page.all("table")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labelled) <= set(ids)


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data", "poster"):
            if name in attributes and tag != "a":
                assert attributes[name].startswith("data:"), (tag, attributes[name][:60])
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in html and "url(" not in html
    assert len(html.encode()) < 6_000_000


def test_every_picture_has_words(html: str) -> None:
    for attributes in Page(html).all("svg"):
        hidden = attributes.get("aria-hidden") == "true" or not attributes.get("role")
        assert hidden or attributes["aria-label"].strip()
    assert all(player["aria-label"] for player in Page(html).all("audio"))


def test_figures_are_on_the_page(html: str, evaluation: Evaluation) -> None:
    text = Page(html).text
    for figure in evaluation.figures:
        shown = f"{figure.estimate.value:.1f}" if figure.is_rank else f"{figure.estimate.value:.3f}"
        assert shown in text
    assert evaluation.data_hash in text and "Training loss from 4.00 to" in text
    assert "Zero-shot labels: " in text and "of 60 clips are named right" in text
    for note in evaluation.notes:
        assert note in text


def test_players_hold_sound_that_decodes(html: str) -> None:
    players = Page(html).all("audio")
    assert 18 <= len(players) <= 32
    kind, data = players[0]["src"].split(",", 1)
    assert kind == "data:audio/ogg;base64"
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 48_000 and len(wave) / rate == pytest.approx(0.6, abs=0.05)
    assert np.abs(wave).max() > 0.05


def test_long_sounds_are_cut_and_small() -> None:
    noise, out = np.random.default_rng(0).standard_normal((44_100 * 25, 2)) * 0.1, io.BytesIO()
    soundfile.write(out, noise, 44_100, format="FLAC")
    uri = encode(out.getvalue())
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert len(wave) / rate == pytest.approx(10.0, abs=0.05)
    assert len(uri) < 140_000, "32 of them stay under the page's limit"


def test_inverted_stereo_can_be_heard() -> None:
    noise, out = np.random.default_rng(0).standard_normal(44_100) * 0.1, io.BytesIO()
    soundfile.write(out, np.stack([noise, -noise], axis=1), 44_100, format="FLAC")
    wave, _ = soundfile.read(io.BytesIO(base64.b64decode(encode(out.getvalue()).split(",", 1)[1])))
    assert np.abs(wave).max() > 0.1


def test_players_stop_when_there_is_no_room(
    evaluation: Evaluation, test_clips: EvalClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclap.evals.examples.PLAYERS_BYTES", 30_000)
    assert evaluation.retrieval is not None
    hits = [hit for query in queries(evaluation.retrieval, test_clips) for hit in query.hits]
    players = [hit.player for hit in hits if hit.player]
    assert 0 < len(players) < len(hits) and sum(map(len, players)) <= 30_000


def test_markup_in_data_stays_text(embedder: BandEmbedder, test_clips: EvalClips, tmp_path: Path) -> None:
    marked = {"title": EVIL, "author": EVIL, "link": "javascript:alert(1)"}
    evil = [
        replace(clip, captions=(f"{EVIL} {i}",), label=f"{clip.label}{EVIL}", **marked)
        for i, clip in enumerate(test_clips.clips)
    ]
    clips = replace(test_clips, clips=tuple(evil), name=EVIL)
    path = write_report(tmp_path / "evil.html", evaluate(embedder, clips), title=EVIL, training_log=None, clips=clips)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert "<script" not in html and "<img" not in html
    assert not page.all("script") and not page.all("img")
    assert EVIL in page.text
    assert not any("javascript:" in link.get("href", "") for link in page.all("a"))


def test_examples_are_right_and_wrong_ones(evaluation: Evaluation) -> None:
    assert evaluation.retrieval is not None
    chosen = choose_queries(evaluation.retrieval, seed=3)
    ranks = evaluation.retrieval.ranks.text_to_audio_T[chosen]
    assert len(chosen) == len(set(chosen)) == 8
    assert (ranks == 1).any() and (ranks > 1).any()
    said = [evaluation.retrieval.captions[t] for t in chosen]
    assert len(set(said)) == 8
    assert chosen == choose_queries(evaluation.retrieval, seed=3) != choose_queries(evaluation.retrieval, seed=4)
    assert sum(count for count, _ in kind_counts(evaluation.retrieval)) == 120


def test_hits_tell_right_from_same_words(evaluation: Evaluation, test_clips: EvalClips) -> None:
    assert evaluation.retrieval is not None
    for query in queries(evaluation.retrieval, test_clips):
        shown = [*query.hits, *([query.wanted] if query.wanted else [])]
        right = [hit for hit in shown if hit.right]
        assert len(right) == 1 and right[0].rank == query.rank
        assert query.caption in right[0].clip.captions
        assert all((query.caption in hit.clip.captions) == hit.same_words for hit in shown if not hit.right)


def test_a_page_without_log_labels_or_captions(embedder: BandEmbedder, test_clips: EvalClips, tmp_path: Path) -> None:
    bare = replace(test_clips, clips=tuple(replace(c, captions=(), label=None) for c in test_clips.clips))
    result = evaluate(embedder, bare)
    assert headline(result)["claim"].startswith("Nothing could be measured")
    text = Page(write_report(tmp_path / "r.html", result, title="t", training_log=[], clips=bare).read_text()).text
    assert "Retrieval: left out, no clip has a caption." in text
    assert "No task could be done" in text and "Training loss" not in text


def test_the_headline_says_when_it_is_chance(test_clips: EvalClips) -> None:
    said = headline(evaluate(BandEmbedder(), test_clips))
    assert "Chance would reach 17 %" in said["against"]
    assert "not above chance" in said["against"] or "may be chance" in said["against"]


def test_logs_with_gaps_are_drawn(evaluation: Evaluation, test_clips: EvalClips, tmp_path: Path) -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}, {"step": 3}, {"step": 4, "loss": 1.0}]
    path = write_report(tmp_path / "r.html", evaluation, title="t", training_log=log, clips=test_clips)
    assert "Training loss from 2.00 to 1.00 over 4 steps." in Page(path.read_text()).text
    assert "nan" not in re.sub(r'src="data:[^"]*"', "", path.read_text())


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(0.3, 4.7) == [0, 1, 2, 3, 4, 5]
    assert nice_ticks(10, 2990, inside=True) == [1000, 2000]
    assert nice_ticks(2, 2) == pytest.approx([1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6])
    assert log_ticks(1, 60) == [1, 2, 5, 10, 20, 50]


def test_large_confusions_keep_the_most_frequent_labels() -> None:
    count = np.diag(np.arange(60))
    labels, part = most_frequent([str(i) for i in range(60)], count)
    assert labels == [str(i) for i in range(20, 60)]
    assert part.shape == (40, 40) and part[0, 0] == 20
