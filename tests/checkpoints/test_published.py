from __future__ import annotations

from pathlib import Path

import pytest

import openclap
from openclap import presets
from openclap.checkpoints import hub, published
from openclap.checkpoints.published import PUBLISHED, RECOMMENDATIONS, RECOMMENDED, closest, fetch, find
from openclap.errors import CheckpointError
from support.errors import raises_naming

NAMES = {
    "630k-best",
    "630k-audioset-best",
    "630k-fusion-best",
    "630k-audioset-fusion-best",
    "music_audioset_epoch_15_esc_90.14",
    "music_speech_epoch_15_esc_89.25",
    "music_speech_audioset_epoch_15_esc_89.98",
    "laion/clap-htsat-unfused",
    "laion/clap-htsat-fused",
    "laion/larger_clap_general",
    "laion/larger_clap_music",
    "laion/larger_clap_music_and_speech",
    "msclap-2022",
    "msclap-2023",
    "facebook/pe-av-small",
    "facebook/pe-av-base",
    "facebook/pe-av-large",
    "laion/clap2-small-audioxl-s1B",
    "laion/clap2-medium-audioxl-s1B",
    "laion/clap2-large-audioxl-s1B",
}


def test_published_models_are_found_with_and_without_suffix() -> None:
    assert PUBLISHED.keys() == NAMES
    for name, entry in PUBLISHED.items():
        assert entry.name == name and find(name) is entry and find(f"{name}.pt") is entry
        assert (entry.format == "laion") == (entry.file == f"{name}.pt")
        assert (entry.format == "open_clip") == (entry.audio == "naflex") == (entry.licence is None)
        assert (entry.format == "transformers") == (entry.audio == "pe-av")
        assert (entry.format == "msclap") == ((entry.file or "").startswith("CLAP_weights"))
        assert entry.audio in {*presets.AUDIO_TOWERS, "naflex", "pe-av"}
        assert bool(entry.scores) <= (entry.source is not None)
        assert all(0 < score < 1 for score in entry.scores.values())
    assert find("630k") is None


def test_scores_in_names_equal_the_stated_scores() -> None:
    for name, entry in PUBLISHED.items():
        if "_esc_" in name:
            assert entry.scores["ESC-50"] == pytest.approx(float(name.rpartition("_")[2]) / 100)


def test_every_recommended_model_has_a_licence_that_was_verified() -> None:
    assert all(PUBLISHED[name].licence for name in RECOMMENDATIONS.values())
    assert RECOMMENDATIONS["sounds in general"] == RECOMMENDED


def test_a_repository_of_several_files_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for repo, names in {
        "microsoft/msclap": ["msclap-2022", "msclap-2023"],
        "lukewys/laion_clap": ["630k-audioset-best", "630k-best"],
    }.items():
        with raises_naming(CheckpointError, repo, *names):
            openclap.load(repo)


def test_microsofts_files_are_fetched_by_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = []

    def download(repo: str, *, files: list[str], **options: object) -> Path:
        wanted.append((repo, files))
        return tmp_path

    monkeypatch.setattr(hub, "download", download)
    assert fetch(PUBLISHED["msclap-2023"]) == tmp_path / "CLAP_weights_2023.pth"
    assert wanted == [("microsoft/msclap", ["CLAP_weights_2023.pth"])]


def test_fusion_follows_the_names() -> None:
    assert {name for name, entry in PUBLISHED.items() if entry.fusion} == {
        "630k-fusion-best",
        "630k-audioset-fusion-best",
        "laion/clap-htsat-fused",
    }


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("630k-audioset-bets.pt", "630k-audioset-best"),
        ("clap-htsat-unfused", "laion/clap-htsat-unfused"),
        ("LAION/larger_clap_musik", "laion/larger_clap_music"),
        ("music_audioset_epoch_15_esc_90.41", "music_audioset_epoch_15_esc_90.14"),
    ],
)
def test_misspelt_name_finds_the_intended_one(typed: str, meant: str) -> None:
    suggestions = closest(typed)
    assert suggestions[0] == meant and len(suggestions) <= 3 and len(set(suggestions)) == len(suggestions)


def test_unrelated_name_has_no_suggestion() -> None:
    assert closest("runs/demo/model") == []


def test_fetch_downloads_a_file_or_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requests = []

    def download(repo: str, **options: object) -> Path:
        requests.append((repo, options))
        return tmp_path

    monkeypatch.setattr(hub, "download", download)
    laion, face = PUBLISHED["630k-best"], PUBLISHED["laion/clap-htsat-fused"]
    assert fetch(laion) == tmp_path / "630k-best.pt"
    assert fetch(face, revision="abc", offline=True) == tmp_path
    assert requests == [
        ("lukewys/laion_clap", {"revision": None, "offline": False, "files": ["630k-best.pt"]}),
        ("laion/clap-htsat-fused", {"revision": "abc", "offline": True, "files": None}),
    ]


def test_offline_error_names_the_file_and_the_cache() -> None:
    with raises_naming(CheckpointError, "lukewys/laion_clap", "630k-best.pt"):
        fetch(PUBLISHED["630k-best"], offline=True)


def test_model_is_cached_when_its_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    in_cache = {("lukewys/laion_clap", "630k-best.pt"), ("laion/larger_clap_music", "pytorch_model.bin")}
    monkeypatch.setattr(published.hub, "is_cached", lambda repo, file, revision: (repo, file) in in_cache)
    assert {name for name, entry in PUBLISHED.items() if entry.cached} == {"630k-best", "laion/larger_clap_music"}
