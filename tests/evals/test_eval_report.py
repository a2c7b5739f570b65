from __future__ import annotations

import base64
import errno
import io
import itertools
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.errors import ConfigError
from openclap.evals.dataset import Collection, EvalClips
from openclap.evals.examples import ExampleQuery, band_counts, choose_queries, encode, players, sampled_queries
from openclap.evals.report import headline
from openclap.evals.results import Results
from openclap.evals.retrieval import Retrieval
from openclap.evals.runner import evaluate
from openclap.pages.charts import log_ticks, most_frequent, nice_ticks
from openclap.pages.render import write
from support.errors import raises_naming
from support.evals_helpers import BandEmbedder

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
    """The page as a browser sees it: elements, their attributes, text, and whether tags close in order."""

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
def html(quick: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert quick.write_html(path, title="A tiny model", training_log=LOG) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture
def retrieval(quick: Results) -> Retrieval:
    found = quick.outputs[quick.models[0], "retrieval"].retrieval
    assert found is not None
    return found


def sample(retrieval: Retrieval, clips: EvalClips, room: int = 4_600_000) -> list[ExampleQuery]:
    return sampled_queries(retrieval, clips, players(clips, room))


def test_the_page_is_well_formed_and_titled(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert html.startswith("<!doctype html>") and 'lang="en"' in html
    assert len(page.all("h1")) == 1 and "A tiny model" in page.text
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))
    assert len(page.all("caption")) == len(page.all("table")) == 4
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


def test_every_picture_and_player_has_a_text_alternative(html: str) -> None:
    for attributes in Page(html).all("svg"):
        hidden = attributes.get("aria-hidden") == "true" or not attributes.get("role")
        assert hidden or attributes["aria-label"].strip()
    assert all(player["aria-label"] for player in Page(html).all("audio"))


def test_figures_are_on_the_page(html: str, quick: Results) -> None:
    text = Page(html).text
    for row in (row for row in quick.rows if row.is_shown):
        shown = f"{row.estimate.value:.1f}" if row.metric.is_rank else f"{row.estimate.value:.3f}"
        assert shown in text
    assert quick.rows[0].data_hash in text and "Training loss from 4.00 to" in text
    assert "Confusion: " in text and "of 60 clips are classified right" in text
    for _, note in quick.notes:
        assert note in text


def test_players_hold_decodable_sound(html: str) -> None:
    players = Page(html).all("audio")
    assert 18 <= len(players) <= 32 + 2 * 3, "sampled queries, and up to three mistakes of each classification"
    kind, data = players[0]["src"].split(",", 1)
    assert kind == "data:audio/ogg;base64"
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 48_000 and len(wave) / rate == pytest.approx(0.6, abs=0.05)
    assert np.abs(wave).max() > 0.05


def test_players_of_long_sounds_are_cut_and_small() -> None:
    noise, out = np.random.default_rng(0).standard_normal((44_100 * 25, 2)) * 0.1, io.BytesIO()
    soundfile.write(out, noise, 44_100, format="FLAC")
    uri = encode(out.getvalue())
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert len(wave) / rate == pytest.approx(10.0, abs=0.05)
    assert len(uri) < 140_000, "32 of them stay under the page's limit"


def test_players_of_inverted_stereo_are_not_silent() -> None:
    noise, out = np.random.default_rng(0).standard_normal(44_100) * 0.1, io.BytesIO()
    soundfile.write(out, np.stack([noise, -noise], axis=1), 44_100, format="FLAC")
    wave, _ = soundfile.read(io.BytesIO(base64.b64decode(encode(out.getvalue()).split(",", 1)[1])))
    assert np.abs(wave).max() > 0.1


def test_players_stop_when_there_is_no_room(retrieval: Retrieval, test_clips: EvalClips) -> None:
    hits = [hit for query in sample(retrieval, test_clips, 30_000) for hit in query.hits]
    playable = [hit.player for hit in hits if hit.player]
    assert 0 < len(playable) < len(hits) and sum(map(len, playable)) <= 30_000


def test_markup_in_data_stays_text(embedder: BandEmbedder, test_clips: EvalClips, tmp_path: Path) -> None:
    marked = {"title": EVIL, "author": EVIL, "link": "javascript:alert(1)"}
    evil = [
        replace(clip, captions=(f"{EVIL} {i}",), label=f"{clip.label}{EVIL}", **marked)
        for i, clip in enumerate(test_clips.clips)
    ]
    clips = replace(test_clips, clips=tuple(evil), name=EVIL)
    path = evaluate({EVIL: embedder}, Collection(clips)).write_html(tmp_path / "evil.html", title=EVIL)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert "<script" not in html and "<img" not in html
    assert not page.all("script") and not page.all("img")
    assert EVIL in page.text
    assert not any("javascript:" in link.get("href", "") for link in page.all("a"))


def test_sampled_queries_have_right_and_wrong_hits(retrieval: Retrieval) -> None:
    chosen = choose_queries(retrieval, seed=3)
    ranks = retrieval.ranks.text_to_audio_P[chosen]
    assert len(chosen) == len(set(chosen)) == 8
    assert (ranks == 1).any() and (ranks > 1).any()
    assert len({retrieval.captions[t] for t in chosen}) == 8
    assert chosen == choose_queries(retrieval, seed=3) != choose_queries(retrieval, seed=4)
    assert sum(count for count, _ in band_counts(retrieval)) == 120


def test_hits_tell_right_from_same_words(retrieval: Retrieval, test_clips: EvalClips) -> None:
    for query in sample(retrieval, test_clips):
        shown = [*query.hits, *([query.own] if query.own else [])]
        right = [hit for hit in shown if hit.right]
        assert len(right) == 1 and right[0].rank == query.rank
        assert query.caption in right[0].clip.captions
        assert all((query.caption in hit.clip.captions) == hit.same_words for hit in shown if not hit.right)


def test_a_page_without_log_labels_or_captions(embedder: BandEmbedder, test_clips: EvalClips, tmp_path: Path) -> None:
    bare = replace(test_clips, clips=tuple(replace(c, captions=(), label=None) for c in test_clips.clips))
    result = evaluate(embedder, Collection(bare))
    assert headline(result)["claim"].startswith("Nothing could be measured")
    text = Page(result.write_html(tmp_path / "r.html").read_text()).text
    assert "retrieval was left out: no clip has a caption" in text
    assert "No task could be done" in text and "Training loss" not in text


def test_the_headline_names_chance(test_clips: EvalClips) -> None:
    details = headline(evaluate(BandEmbedder(), Collection(test_clips)))["details"]
    assert "Chance would reach 17 %" in details
    assert "not above chance" in details or "may be chance" in details


def test_logs_with_gaps_are_drawn(quick: Results, tmp_path: Path) -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}, {"step": 3}, {"step": 4, "loss": 1.0}]
    path = quick.write_html(tmp_path / "r.html", training_log=log)
    assert "Training loss from 2.00 to 1.00 over 4 steps." in Page(path.read_text()).text
    assert "nan" not in re.sub(r'src="data:[^"]*"', "", path.read_text())


def test_the_page_of_several_models_is_well_formed(paper: Results, tmp_path: Path) -> None:
    page = Page(paper.write_html(tmp_path / "paper.html").read_text(encoding="utf-8"))
    assert page.open == [] and "Changes from " in page.text
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


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


def test_a_failed_write_leaves_the_previous_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write(page, "before")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with raises_naming(ConfigError, page):
        write(page, "after")
    assert page.read_text() == "before" and list(tmp_path.iterdir()) == [page]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write(pipe, "a page")
        assert read.result(10) == "a page" and pipe.is_fifo()
