"""Fetch from and publish to a local server. Each case has its own process: the hub's client reads its variables on
import."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openclap.checkpoints import hub as client
from openclap.errors import CheckpointError
from support.errors import raises_naming
from support.hub_server import TOKEN, Hub
from support.open_clip import CONFIG, WEIGHTS, write_folder

SAFE, PICKLED = b"s" * 300_000, b"p" * 1000
MODEL = {
    "README.md": b"# a model",
    "config.json": b"{}",
    "tokenizer.json": b'{"words": []}',
    "model.safetensors": SAFE,
    "pytorch_model.bin": PICKLED,
}

Run = Callable[..., list[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.add("me/clap", MODEL)
        yield server


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Run statements online, each on its own, and return their results, or the sentences of their CheckpointErrors."""

    def run(*statements: str, **environment: str) -> list[str]:
        code = "import json, os\nfrom pathlib import Path\nfrom openclap.checkpoints import hub\n"
        code += "from openclap.errors import CheckpointError\noutcome = []\n"
        code += "def token(name): os.environ['HF_TOKEN'] = name\n"
        for statement in statements:
            code += f"try: outcome.append(str({statement}))\n"
            code += "except CheckpointError as error: outcome.append(f'! {error}')\n"
        code += "print(json.dumps(outcome))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | hub.environment(tmp_path / "hf") | environment,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        run.err = done.stderr  # type: ignore[attr-defined]
        outcome: list[str] = json.loads(done.stdout)
        return outcome

    return run


def files_in(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_model_is_fetched_once_without_pickled_weights(hub: Hub, run: Run) -> None:
    first, again, offline = run(
        "hub.download('me/clap')", "hub.download('me/clap')", "hub.download('me/clap', offline=True)"
    )
    wanted = {name: MODEL[name] for name in ("config.json", "tokenizer.json", "model.safetensors")}
    assert files_in(first) == wanted and first == again == offline
    assert sorted(hub.bodies()) == sorted(wanted)
    assert run.err == ""  # type: ignore[attr-defined]
    requests_before = len(hub.log)
    there = "hub.is_cached('me/clap', '{}')"
    files = ["model.safetensors", "pytorch_model.bin", "nothing"]
    cached = run("hub.download('me/clap')", *(there.format(file) for file in files), HF_HUB_OFFLINE="1")
    assert cached == [first, "True", "False", "False"]
    assert len(hub.log) == requests_before


def test_pickled_weights_are_fetched_when_alone(hub: Hub, run: Run) -> None:
    hub.add("me/old", {name: data for name, data in MODEL.items() if name != "model.safetensors"})
    (folder,) = run("hub.download('me/old')")
    assert files_in(folder).keys() == {"config.json", "tokenizer.json", "pytorch_model.bin"}
    assert run("hub.download('me/old')", HF_ENDPOINT="http://127.0.0.1:1") == [folder]  # no network, but a copy


def test_of_a_repository_with_files_of_open_clip_and_transformers_the_former_are_fetched(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "tiny", "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("me/naflex", MODEL | files | {"open_clip_pytorch_model.bin": PICKLED})
    fetched, shape = run(
        "sorted(path.name for path in hub.download('me/naflex').iterdir())",
        "__import__('openclap').load('hf-hub:me/naflex').embed_text(['a']).shape",
    )
    assert fetched == str(["config.json", CONFIG, WEIGHTS, "tokenizer.json"])
    assert shape == "(1, 64)"


def test_all_parts_of_divided_weights_are_fetched(hub: Hub, run: Run) -> None:
    parts = {f"model-0000{number}-of-00003.safetensors": b"s" * number for number in (1, 2, 3)}
    settings = {"config.json": b"{}", "processor_config.json": b"{}"}
    index = {"model.safetensors.index.json": b"{}"}
    pickled = {"pytorch_model.bin.index.json": b"{}", "pytorch_model-00001-of-00001.bin": PICKLED}
    repo = hub.add("me/parts", settings | parts | index | pickled | {"pytorch_model.bin": PICKLED})
    hub.add("me/old", settings | pickled | {"model-00001-of-00002.safetensors": b"no index names it"})
    first, old = run("hub.download('me/parts')", "hub.download('me/old')")
    assert files_in(first) == settings | parts | index and files_in(old) == settings | pickled
    (Path(first) / "model-00002-of-00003.safetensors").unlink()
    (outcome,) = run("hub.download('me/parts', offline=True)")
    assert "lacks model-00002-of-00003.safetensors, and nothing is fetched offline" in outcome
    del repo.commits[repo.refs["main"]]["model-00003-of-00003.safetensors"]
    assert "holds no model-00003-of-00003.safetensors" in run("hub.download('me/parts')")[0]


def test_vocabulary_and_merges_are_fetched_without_tokenizer_json(hub: Hub, run: Run) -> None:
    words = {"vocab.json": b"{}", "merges.txt": b"", "tokenizer_config.json": b"{}"}
    rest = {name: MODEL[name] for name in ("config.json", "model.safetensors")}
    hub.add("me/words", rest | words)
    hub.add("me/both", MODEL | words)
    alone, both = run("hub.download('me/words')", "hub.download('me/both')")
    assert files_in(alone) == rest | words and files_in(both) == rest | {"tokenizer.json": MODEL["tokenizer.json"]}


def test_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, run: Run) -> None:
    repo = hub.repos["me/clap"]
    old = repo.refs["main"]
    repo.refs["v1"] = old
    new = repo.commit({"config.json": b'{"new": 1}'})
    call = "hub.download('me/clap', revision={!r}, files=['config.json'])"
    main, tag, commit, none = run(*(call.format(name) for name in (None, "v1", old, "v2")))
    assert Path(main).name == new and files_in(main) == {"config.json": b'{"new": 1}'}
    assert tag == commit and Path(tag).name == old and files_in(tag) == {"config.json": b"{}"}
    assert none == "! me/clap: has no revision 'v2', expected a branch, a tag or a commit."
    newest = repo.commit({"config.json": b'{"new": 2}'})
    assert Path(run(call.format(None))[0]).name == newest


def test_failed_download_says_what_to_do(hub: Hub, run: Run) -> None:
    hub.add("me/secret", MODEL, private=True)
    hub.add("me/gated", MODEL, gated=True)
    hub.add("me/empty", {})
    hub.add("me/other", {"config.json": b"{}", "weights.ckpt": b""})
    names = ["me/calp", "me/secret", "me/gated", "me/empty", "me/other", "no name"]
    missing, secret, gated, empty, other, unnamed, words, file, _, *rights = run(
        *(f"hub.download({name!r})" for name in names),
        "hub.tokenizer_file('roberta-base')",
        "hub.download('me/clap', files=['630k.pt'])",
        f"token({TOKEN!r})",
        "hub.download('me/secret')",
        "hub.download('me/gated')",
    )
    assert missing.startswith(f"! me/calp: {hub.url} has no such model, or it is private. Check the spelling")
    assert secret.endswith("for a private one, set HF_TOKEN, or log in with `hf auth login`.")
    assert f"{hub.url}/me/gated" in gated and "HF_TOKEN" in gated
    assert "it is empty" in empty
    assert "no model.safetensors or pytorch_model.bin; it has config.json, weights.ckpt" in other
    assert "expected USER/NAME" in unnamed
    assert "roberta-base" in words and "tokenizer.json" in words and "tokenizer=" in words
    assert "holds no 630k.pt" in file
    assert [files_in(folder)["config.json"] for folder in rights] == [b"{}", b"{}"]


def test_wrong_token_broken_hub_and_no_network(hub: Hub, run: Run) -> None:
    hub.add("me/broken", MODEL).status = 503
    broken, _, wrong = run("hub.download('me/broken')", "token('hf_wrong')", "hub.download('me/clap')")
    assert "answered 503. Run the same again later" in broken
    assert "the token (401)" in wrong
    (outcome,) = run("hub.download('me/clap')", HF_ENDPOINT="http://127.0.0.1:1")
    assert outcome.startswith("! me/clap: http://127.0.0.1:1 cannot be reached") and "local file or folder" in outcome


def test_offline_error_names_files_and_cache(hub: Hub, run: Run, tmp_path: Path) -> None:
    model, words = run("hub.download('me/clap')", "hub.tokenizer_file('roberta-base')", HF_HUB_OFFLINE="1")
    cache = f"the cache ({tmp_path / 'hf' / 'hub'}) lacks"
    assert f"{cache} config.json and model.safetensors or pytorch_model.bin" in model and "HF_HUB_OFFLINE" in model
    assert words.startswith(f"! roberta-base: {cache} tokenizer.json") and "tokenizer=" in words
    _, partial = run("hub.download('me/clap', files=['config.json'])", "hub.download('me/clap', offline=True)")
    assert f"{cache} model.safetensors or pytorch_model.bin, and nothing is fetched offline" in partial
    assert not any("roberta" in line for line in hub.log)


def test_broken_connection_is_resumed(hub: Hub, run: Run) -> None:
    large = os.urandom(12_000_000)  # the client keeps what has arrived in pieces of 10 MiB
    hub.add("me/large", {"model.safetensors": large})
    hub.cuts = [11_000_000]
    (folder,) = run("hub.download('me/large', files=['model.safetensors'])")
    assert files_in(folder) == {"model.safetensors": large}
    assert [line.split()[-1] for line in hub.log if " bytes=" in line] == ["bytes=10485760-"]


def test_incomplete_file_is_not_stored(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.cuts = [-100_000]
    call = "hub.download('me/clap', files=['model.safetensors'])"
    broken, whole = run(call, call)
    assert broken.startswith("! me/clap: a file arrived incomplete. Run the same again")
    assert files_in(whole) == {"model.safetensors": SAFE}
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_full_disk_is_reported_before_the_download(hub: Hub, run: Run, tmp_path: Path) -> None:
    full = "__import__('shutil').__dict__.update(disk_usage=lambda path: __import__('types').SimpleNamespace(free=10))"
    _, outcome = run(full, "hub.download('me/clap', files=['model.safetensors'])")
    assert outcome.startswith(f"! me/clap: the disk of {tmp_path / 'hf' / 'hub'} is full. Make room")
    assert hub.bodies() == []


@pytest.mark.parametrize(
    ("error", "values"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ("me/{x}", "full")),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/blobs"), ("/cache/blobs",)),
        (RuntimeError("something {odd}\nand more"), ("me/{x}", "RuntimeError: something {odd}")),
    ],
)
def test_system_errors_become_one_sentence(error: Exception, values: tuple[str, ...]) -> None:
    with raises_naming(CheckpointError, *values), client._as_checkpoint_error("me/{x}", None):
        raise error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    beside = {"README.md": b"---\nlicense: mit\n---\n# mine\n", "modules.json": b"[]", "notes.txt": b"private"}
    for name, data in {**MODEL, **beside}.items():
        (place / name).write_bytes(data)
    return place


NOT_FETCHED = {"README.md", "modules.json"}
PUSHED = NOT_FETCHED | {"config.json", "model.safetensors", "tokenizer.json"}
CALL = "hub.push(Path({!r}), {!r}, message='first', {})"


def test_only_model_files_are_published(hub: Hub, run: Run, folder: Path) -> None:
    hub.lfs_from = 100_000  # so that the weights go to the storage, the rest into the commit
    calls = [CALL.format(str(folder), "me/new", option) for option in ("private=True", "revision='v1'")]
    main, v1, back = run(*calls, "hub.download('me/new')", HF_TOKEN=TOKEN)
    assert (main, v1) == (f"{hub.url}/me/new", f"{hub.url}/me/new/tree/v1")
    repo = hub.repos["me/new"]
    assert repo.private and repo.messages[1] == "first" and {"main", "v1"} <= repo.refs.keys()
    arrived = repo.commits[repo.refs["main"]]
    assert {name: arrived[name] for name in PUSHED} == {name: (folder / name).read_bytes() for name in PUSHED}
    assert arrived.keys() - PUSHED == {".gitattributes"}
    assert list(hub.uploads.values()) == [SAFE]
    assert files_in(back) == {name: (folder / name).read_bytes() for name in PUSHED - NOT_FETCHED}


def test_upload_with_xet_enabled(hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
    """With hf_xet, large files go to a storage of its own protocol, which is not spoken here: all are small."""
    large = Path(shutil.copytree(folder, tmp_path / "large"))
    (large / "model.safetensors").write_bytes(bytes(hub.lfs_from))
    calls = [CALL.format(str(folder), "me/new", ""), CALL.format(str(large), "me/newer", "")]
    url, outcome = run(*calls, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="0")
    assert url == f"{hub.url}/me/new"
    repo = hub.repos["me/new"]
    assert repo.commits[repo.refs["main"]]["model.safetensors"] == SAFE and not repo.private
    assert outcome.startswith(f"! me/newer: {hub.url} cannot be reached") and "xet-write-token" in outcome


def test_refused_upload_says_why(hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(folder, tmp_path / "odd"))
    (odd / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    mine = CALL.format(str(folder), "me/new", "")
    no_folder, no_token, _, reader, _, strange, card = run(
        CALL.format(str(tmp_path / "nothing"), "me/new", ""),
        mine,
        "token('hf_reader')",
        mine,
        f"token({TOKEN!r})",
        CALL.format(str(folder), "you/new", ""),
        CALL.format(str(odd), "me/new", ""),
    )
    assert "is no model folder; expected config.json and model.safetensors" in no_folder
    assert "needs a token" in no_token and "HF_TOKEN" in no_token
    assert reader.startswith(f"! me/new: {hub.url} refused the upload (403). Is the name yours")
    assert "you/new" in strange and "(403)" in strange
    assert card.startswith("! me/new: Invalid metadata in README.md")
    offline = "__import__('huggingface_hub').constants.__dict__.update(HF_HUB_OFFLINE=True)"
    unreached, _, forbidden = run(mine, offline, mine, HF_TOKEN=TOKEN, HF_ENDPOINT="http://127.0.0.1:1")
    assert "cannot be reached" in unreached
    assert "while HF_HUB_OFFLINE is set" in forbidden
