"""Model files from the Hugging Face hub, in its standard cache, and folders published there.

The hub's own client does the work, so its variables count: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
HF_HUB_DISABLE_PROGRESS_BARS. Whatever goes wrong comes out as a CheckpointError of one sentence.

A connection that breaks off is taken up again where it broke; a file whose download was stopped starts over, and
files that were complete are kept.
"""

from __future__ import annotations

import errno
import glob
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from openclap.checkpoints.hub_files import BESIDE, TOKENIZER, WEIGHTS, choose, lacking
from openclap.errors import CheckpointError, MissingTokenizerError

SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
"""By these, that library loads a folder of ours (see `openclap.interop.sentence_transformers`)."""
PUSHED = ("config.json", WEIGHTS[0], TOKENIZER, *BESIDE, *SENTENCE_TRANSFORMERS, "evaluation.json", "README.md")

TIMEOUT_S = 10.0


def download(
    repo: str, *, revision: str | None = None, offline: bool = False, files: Sequence[str] | None = None
) -> Path:
    """The folder in the cache that holds the files of a model repository.

    Args:
        revision: a branch, a tag or a commit; the main branch without it.
        offline: look in the cache alone, as with HF_HUB_OFFLINE=1.
        files: names and patterns; what a model consists of (`FILES`) without it. A name must be there, a pattern
            may match nothing.

    Without a network, what is cached serves. Raises CheckpointError when files are missing or cannot be had.
    """
    import huggingface_hub

    cached = _cached_folder(repo, revision)
    missing = lacking(_names(cached) if cached else [], files)
    if offline or is_offline():
        if cached and not missing:
            return cached
        raise CheckpointError(_not_cached(repo, missing))
    try:
        with _one_sentence(repo, revision):
            commit, names = _list(repo, revision)
    except CheckpointError:
        if cached and not missing:
            return cached
        raise
    if missing := lacking(names, files):
        there = f"it has {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
        raise CheckpointError(f"{repo}: holds no {' and no '.join(missing)}; {there}. Is it the right repository?")
    chosen = choose(names, files)
    if cached and cached.name == commit and all((cached / name).is_file() for name in chosen):
        return cached
    with _one_sentence(repo, revision), _full_disks_are_errors(), _bars_on_terminals_alone():
        patterns = [glob.escape(name) for name in chosen]
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))


def tokenizer_file(name: str, *, offline: bool = False) -> Path:
    """The `tokenizer.json` of a repository such as "roberta-base". Raises MissingTokenizerError."""
    try:
        return download(name, offline=offline, files=[TOKENIZER]) / TOKENIZER
    except CheckpointError as error:
        raise MissingTokenizerError(f"{error} Text cannot be embedded without the {TOKENIZER} of {name}.") from None


def is_cached(repo: str, file: str, revision: str | None = None) -> bool:
    """Is this file of a repository in the cache?"""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(huggingface_hub.try_to_load_from_cache(repo, file, revision=revision), str)
    except HFValidationError:
        return False


def is_offline() -> bool:
    """Does HF_HUB_OFFLINE say so?"""
    import huggingface_hub

    return bool(huggingface_hub.is_offline_mode())


def check_push(repo: str) -> None:
    """Raises CheckpointError for what can be known before anything is sent: no such name, no network, no token."""
    import huggingface_hub
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _one_sentence(repo, None, writing=True):
        validate_repo_id(repo)
    if is_offline():
        raise CheckpointError(f"{repo}: cannot be written while HF_HUB_OFFLINE is set. Unset it to publish.")
    if huggingface_hub.get_token() is None:
        raise CheckpointError(f"{repo}: publishing needs a token of yours with the right to write: {_LOG_IN}")


def push(folder: Path, repo: str, *, private: bool = False, message: str, revision: str | None = None) -> str:
    """Upload a model folder of ours, and return the URL of its page.

    The repository is made if it is not there; one that is keeps its visibility. Other files of the folder stay
    here. Raises CheckpointError when `folder` is no model of ours, and when the hub cannot be reached or refuses.
    """
    check_model(folder)
    return _push(folder, repo, "model", private=private or None, message=message, revision=revision, only=PUSHED)


def push_dataset(folder: Path, repo: str, *, private: bool, revision: str | None, without: Sequence[str]) -> str:
    """Upload a data set and return the URL of its page, all but the files that `without` matches.

    What the hub has already is not sent again, so a stopped upload goes on. Raises CheckpointError as `push`.
    """
    said = "Upload with openclap"
    return _push(folder, repo, "dataset", private=private, message=said, revision=revision, without=without)


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
    with _one_sentence(repo, revision, writing=True), _bars_on_terminals_alone():
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
    """Raises CheckpointError when `folder` does not look like a model folder of ours."""
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS[0]).is_file():
        raise CheckpointError(f"{folder}: is no model folder; expected config.json and {WEIGHTS[0]} in it.")


def _list(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that `revision` names now, and the files in it."""
    import huggingface_hub

    info = huggingface_hub.HfApi(library_name="openclap").model_info(repo, revision=revision, timeout=TIMEOUT_S)
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def _cached_folder(repo: str, revision: str | None) -> Path | None:
    """Where the cache keeps a revision, complete or not."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise CheckpointError(_reason(error, repo, revision, writing=False)) from None


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _not_cached(repo: str, lacking: Sequence[str]) -> str:
    from huggingface_hub import constants

    return (
        f"{repo}: the cache ({constants.HF_HUB_CACHE}) lacks {' and '.join(lacking)}, and nothing is fetched offline. "
        "Go online once (without HF_HUB_OFFLINE), copy the cache from where it is whole, or pass a file or folder."
    )


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """The client draws progress bars even where stderr is a file."""
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
def _full_disks_are_errors() -> Iterator[None]:
    """The client only warns when a file will not fit, and then writes until the disk is full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough free disk space")
        yield


@contextmanager
def _one_sentence(repo: str, revision: str | None, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the client's, its transport's and the system's: each has its own tree
        raise CheckpointError(_reason(error, repo, revision, writing)) from error


_LOG_IN = "set HF_TOKEN, or log in with `hf auth login`."
_FULL = "{repo}: the disk of {cache} is full. Make room, or set HF_HOME to a folder on another disk."
_LOCKED = "{file}: cannot be written ({why}). Set HF_HOME to a folder of yours."
_SENTENCES = {
    "HFValidationError": "{repo!r} is no name of a model on the hub, expected USER/NAME (or a file or folder).",
    "GatedRepoError": "{repo}: is open only to those who accept its terms. Do so at {hub}/{repo}, then " + _LOG_IN,
    "DisabledRepoError": "{repo}: was disabled at {hub}.",
    "RevisionNotFoundError": "{repo}: has no revision {revision!r}, expected a branch, a tag or a commit.",
    "RepositoryNotFoundError": "{repo}: {hub} has no such model, or it is private. Check the spelling; for a private "
    "one, " + _LOG_IN,
    "UserWarning": _FULL,
    "ValueError": "{repo}: {why}.",
}
"""By the name of the client's exception, which is imported only when it is needed."""
_STATUSES = {
    401: "{repo}: {hub} does not know the token (401). For another one, " + _LOG_IN,
    403: "{repo}: {hub} refused it to the token (403). For another one, " + _LOG_IN,
}
_ERRNOS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.EROFS: _LOCKED,
}
_NOT_YOURS = "{repo}: {hub} refused it to the token ({status}). Is the name yours, and may it write? For another one, "
_ANSWERED = "{repo}: {hub} answered {status}. Run the same again later; complete files are kept."
_BROKE_OFF = "{repo}: a file did not arrive whole. Run the same again; complete files are kept."
_NOT_REACHED = "{repo}: {hub} cannot be reached ({kind}: {why}). Check the network, or pass a local file or folder."


def _reason(error: BaseException, repo: str, revision: str | None, writing: bool) -> str:
    """What happened, and the way on."""
    from huggingface_hub import constants

    if isinstance(error, RuntimeError) and error.__cause__:  # an upload in a thread
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
    if writing and status in (401, 403, 404):
        return _NOT_YOURS + _LOG_IN
    if known := [_SENTENCES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _SENTENCES]:
        return known[0]
    if status:
        return _STATUSES.get(status, _ANSWERED)
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    return _BROKE_OFF if "Consistency check" in str(error) else _NOT_REACHED
