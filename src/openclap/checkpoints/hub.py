"""Fetch models from the Hugging Face hub into its standard cache, and publish folders there.

The hub's own client does the work, so its variables apply: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
HF_HUB_DISABLE_PROGRESS_BARS. Every failure is raised as a CheckpointError of one sentence.

A broken connection is resumed where it broke. A file whose download was stopped starts over; complete files are not
fetched again.
"""

from __future__ import annotations

import errno
import glob
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from openclap.errors import CheckpointError, MissingTokenizerError
from openclap.formatting import join_first

TOKENIZER = "tokenizer.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
EXTRA_WEIGHTS = ("unused.safetensors", "objective.safetensors")
ALTERNATIVES = (
    (
        ("model.safetensors",),
        ("model.safetensors.index.json", "model-*.safetensors"),
        ("pytorch_model.bin",),
        ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ),
    tuple((name,) for name in OPEN_CLIP_WEIGHTS),
    ((TOKENIZER,), ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")),
)
"""The forms of weights and of tokenizers, by preference. Only one form of each is fetched, the first that a repository
has (judged by the form's first file): many repositories hold the same weights several times, at a gigabyte each."""
OPEN_CLIP = "open_clip_config.json"
MODEL_FILES = (
    *("config.json", OPEN_CLIP, "preprocessor_config.json", "processor_config.json", *EXTRA_WEIGHTS),
    *(name for forms in ALTERNATIVES for form in forms for name in form),
)
"""The files that a model consists of, openclap's, open_clip's or Hugging Face's."""
WEIGHT_PART = re.compile(r"(.+-)\d{5}(-of-(\d{5})\..+)")
"""A name such as `model-00002-of-00003.safetensors`."""
SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
"""Files by which sentence-transformers loads a folder of openclap (see `openclap.interop.sentence_transformers`)."""
PUSHED = ("config.json", WEIGHTS[0], TOKENIZER, *EXTRA_WEIGHTS, *SENTENCE_TRANSFORMERS, "evaluation.json", "README.md")
"""The files of a model folder that are uploaded."""

# Seconds for the list of files: without a network the cache serves, and nobody should wait for it.
TIMEOUT_S = 10.0


def choose_files(names: Sequence[str], files: Sequence[str] | None) -> list[str]:
    """Choose the files to fetch among the `names` in a repository: those that `files` name, or a model's."""
    superseded = [name for forms in ALTERNATIVES for name in _superseded(names, forms)] if files is None else []
    if files is None and _is_open_clip(names):
        # The repository may hold the same weights for transformers, too.
        superseded += [name for form in ALTERNATIVES[0] for name in form]
    wanted = [name for name in names if any(fnmatchcase(name, pattern) for pattern in files or MODEL_FILES)]
    return [name for name in wanted if not any(fnmatchcase(name, pattern) for pattern in superseded)]


def _is_open_clip(names: Sequence[str]) -> bool:
    return OPEN_CLIP in names and any(form[0] in names for form in ALTERNATIVES[1])


def _superseded(names: Sequence[str], forms: Sequence[Sequence[str]]) -> list[str]:
    """Return the patterns of all forms but the first that a repository has."""
    first = next((form for form in forms if form[0] in names), ())
    return [name for form in forms if form is not first for name in form]


def missing_files(names: Sequence[str], files: Sequence[str] | None) -> list[str]:
    """List the required files that are not among `names`. Patterns in `files` may match nothing."""
    if files is not None:
        return [file for file in files if not glob.has_magic(file) and file not in names]
    if _is_open_clip(names):
        return []
    missing = [] if "config.json" in names else ["config.json"]
    chosen = choose_files(names, None)
    if not any(form[0] in chosen for form in ALTERNATIVES[0]):
        missing.append(" or ".join(WEIGHTS))
    # A part's name says how many parts there are, so that an incomplete cache is noticed without the index file.
    numbered = [part for name in chosen if (part := WEIGHT_PART.fullmatch(name))]
    parts = {f"{part[1]}{number:05}{part[2]}" for part in numbered for number in range(1, int(part[3]) + 1)}
    return missing + sorted(parts - set(names))


def download(
    repo: str, *, revision: str | None = None, offline: bool = False, files: Sequence[str] | None = None
) -> Path:
    """Return the folder in the cache that holds a model repository's files, fetching those that are missing.

    Args:
        revision: a branch, a tag or a commit; the default is the main branch.
        offline: use the cache alone, as with HF_HUB_OFFLINE=1.
        files: names and patterns; the default is `MODEL_FILES`. A name must exist, a pattern may match nothing.

    Without a network, complete cached files are used. Raises CheckpointError when files are missing or cannot be
    fetched.
    """
    import huggingface_hub

    cached = _cached_folder(repo, revision)
    missing = missing_files(_names(cached) if cached else [], files)
    if offline or is_offline():
        if cached and not missing:
            return cached
        raise CheckpointError(_not_cached(repo, missing))
    try:
        with _as_checkpoint_error(repo, revision):
            commit, names = _list(repo, revision)
    except CheckpointError:
        # The hub comes first, so that a new commit is noticed; the cache serves where the hub cannot be reached.
        if cached and not missing:
            return cached
        raise
    if missing := missing_files(names, files):
        contents = f"it has {join_first(names, 5)}" if names else "it is empty"
        raise CheckpointError(f"{repo}: holds no {' and no '.join(missing)}; {contents}. Is it the right repository?")
    chosen = choose_files(names, files)
    # The client would request every file's metadata again, although the same commit means the same files.
    if cached and cached.name == commit and all((cached / name).is_file() for name in chosen):
        return cached
    with _as_checkpoint_error(repo, revision), _fail_on_full_disk(), _progress_bars_on_terminals_only():
        # Names are escaped: a file called "a[1].json" is no pattern.
        patterns = [glob.escape(name) for name in chosen]
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))


def tokenizer_file(name: str, *, offline: bool = False) -> Path:
    """Return the `tokenizer.json` of a repository such as "roberta-base". Raises MissingTokenizerError."""
    try:
        return download(name, offline=offline, files=[TOKENIZER]) / TOKENIZER
    except CheckpointError as error:
        raise MissingTokenizerError(f"{error} Text cannot be embedded without the {TOKENIZER} of {name}.") from None


def is_cached(repo: str, file: str, revision: str | None = None) -> bool:
    """Return whether a repository's file is in the cache."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(huggingface_hub.try_to_load_from_cache(repo, file, revision=revision), str)
    except HFValidationError:
        return False


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE is set."""
    import huggingface_hub

    return bool(huggingface_hub.is_offline_mode())


def check_push(repo: str) -> None:
    """Check what is known before an upload.

    Raises CheckpointError for an invalid name, in offline mode, and without a token.
    """
    import huggingface_hub
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _as_checkpoint_error(repo, None, writing=True):
        validate_repo_id(repo)
    if is_offline():
        raise CheckpointError(f"{repo}: cannot be written while HF_HUB_OFFLINE is set. Unset it to publish.")
    if huggingface_hub.get_token() is None:
        raise CheckpointError(f"{repo}: publishing needs a token with the right to write: {_LOG_IN}")


def push(folder: Path, repo: str, *, private: bool = False, message: str, revision: str | None = None) -> str:
    """Upload a model folder of openclap, and return the URL of its page.

    A missing repository is created; the visibility of an existing one is not changed. Only the files in `PUSHED` are
    uploaded. Raises CheckpointError when `folder` is no model of openclap, and when the hub cannot be reached or
    refuses.
    """
    check_model(folder)
    return _push(folder, repo, "model", private=private or None, message=message, revision=revision, only=PUSHED)


def push_dataset(folder: Path, repo: str, *, private: bool, revision: str | None, without: Sequence[str]) -> str:
    """Upload a data set, but for the files that match `without`, and return the URL of its page.

    Files that the hub has already are not sent again, so that a stopped upload resumes. Raises CheckpointError as
    `push`.
    """
    message = "Upload with openclap"
    return _push(folder, repo, "dataset", private=private, message=message, revision=revision, without=without)


def _push(
    folder: Path,
    repo: str,
    kind: str,
    *,
    private: bool | None,
    message: str,
    revision: str | None,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> str:
    import huggingface_hub

    check_push(repo)
    api = huggingface_hub.HfApi(library_name="openclap")
    with _as_checkpoint_error(repo, revision, writing=True), _progress_bars_on_terminals_only():
        page = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        if revision:
            api.create_branch(page.repo_id, repo_type=kind, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=page.repo_id,
            repo_type=kind,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=None if only is None else list(only),
            ignore_patterns=list(without),
        )
    return f"{page}/tree/{revision}" if revision else str(page)


def check_model(folder: Path) -> None:
    """Raise CheckpointError when `folder` has no configuration or weights of openclap."""
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS[0]).is_file():
        raise CheckpointError(f"{folder}: is no model folder; expected config.json and {WEIGHTS[0]} in it.")


def _list(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """Return the commit that `revision` names now, and the files in it."""
    import huggingface_hub

    info = huggingface_hub.HfApi(library_name="openclap").model_info(repo, revision=revision, timeout=TIMEOUT_S)
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def _cached_folder(repo: str, revision: str | None) -> Path | None:
    """Return the cached folder of a revision, complete or not; None where there is none."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise CheckpointError(_error_sentence(error, repo, revision, writing=False)) from None


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _not_cached(repo: str, missing: Sequence[str]) -> str:
    from huggingface_hub import constants

    return (
        f"{repo}: the cache ({constants.HF_HUB_CACHE}) lacks {' and '.join(missing)}, and nothing is fetched offline. "
        "Go online once (without HF_HUB_OFFLINE), copy a complete cache from another machine, or pass a file or folder."
    )


@contextmanager
def _progress_bars_on_terminals_only() -> Iterator[None]:
    """Turn the client's progress bars off where stderr is a file; it draws them even there."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _fail_on_full_disk() -> Iterator[None]:
    """Raise where a file will not fit on the disk; the client only warns, and then writes until the disk is full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough free disk space")
        yield


@contextmanager
def _as_checkpoint_error(repo: str, revision: str | None, *, writing: bool = False) -> Iterator[None]:
    """Turn any error of the client into a CheckpointError of one sentence."""
    try:
        yield
    except Exception as error:  # the client, its transport and the system each have their own exceptions
        raise CheckpointError(_error_sentence(error, repo, revision, writing)) from error


_LOG_IN = "set HF_TOKEN, or log in with `hf auth login`."
_FULL = "{repo}: the disk of {cache} is full. Make room, or set HF_HOME to a folder on another disk."
_LOCKED = "{file}: cannot be written ({why}). Set HF_HOME to a folder that you may write to."
_SENTENCES = {
    "HFValidationError": "{repo!r} is no model name on the hub, expected USER/NAME (or a file or folder).",
    "GatedRepoError": "{repo}: is gated. Accept its terms at {hub}/{repo}, then " + _LOG_IN,
    "DisabledRepoError": "{repo}: was disabled at {hub}.",
    "RevisionNotFoundError": "{repo}: has no revision {revision!r}, expected a branch, a tag or a commit.",
    "RepositoryNotFoundError": "{repo}: {hub} has no such model, or it is private. Check the spelling; for a private "
    "one, " + _LOG_IN,
    "UserWarning": _FULL,
    "ValueError": "{repo}: {why}.",
}
"""By the name of the client's exception: importing the classes would import the client."""
_STATUSES = {
    401: "{repo}: {hub} does not accept the token (401). To use another one, " + _LOG_IN,
    403: "{repo}: {hub} refused access with this token (403). To use another one, " + _LOG_IN,
}
_ERRNOS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.EROFS: _LOCKED,
}
_MAY_NOT_WRITE = (
    "{repo}: {hub} refused the upload ({status}). Is the name yours, and may the token write? To use another one, "
)
_ANSWERED = "{repo}: {hub} answered {status}. Run the same again later; complete files are not fetched again."
_BROKE_OFF = "{repo}: a file arrived incomplete. Run the same again; complete files are not fetched again."
_NOT_REACHED = "{repo}: {hub} cannot be reached ({kind}: {why}). Check the network, or pass a local file or folder."


def _error_sentence(error: BaseException, repo: str, revision: str | None, writing: bool) -> str:
    """Say what happened and what to do."""
    from huggingface_hub import constants

    if isinstance(error, RuntimeError) and error.__cause__:  # raised in one of the client's upload threads
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    return _template(error, status, writing).format(
        repo=repo,
        revision=revision,
        hub=constants.ENDPOINT,
        cache=constants.HF_HUB_CACHE,
        status=status,
        kind=type(error).__name__,
        file=getattr(error, "filename", None),
        why=next(iter(str(error).strip().splitlines()), "no reason was given").rstrip("."),
    )


def _template(error: BaseException, status: int | None, writing: bool) -> str:
    # The hub answers 404 to users who may not see a repository, and 401 or 403 depending on the kind of token.
    if writing and status in (401, 403, 404):
        return _MAY_NOT_WRITE + _LOG_IN
    if known := [_SENTENCES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _SENTENCES]:
        return known[0]
    if status:
        return _STATUSES.get(status, _ANSWERED)
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    return _BROKE_OFF if "Consistency check" in str(error) else _NOT_REACHED
