"""The onnxruntime runtime, without torch: computes embeddings by the graphs of published presets, to which it binds the
weights of a model folder, or by those that `openclap convert --to onnx` writes.

N items, D embedding, B clips, T frames of the model's input, L frames of a clip or tokens of a text, F mel bins,
S samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclap import presets, runtimes
from openclap.arrays import Wave
from openclap.audio.numpy_views import Mel, fill, four_views
from openclap.checkpoints import clap_model, mapped
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.errors import CheckpointError, ConfigError, MissingExtraError
from openclap.formatting import describe_error
from openclap.runtimes import fetch_tokenizer, graph_cache, preset_graphs
from openclap.runtimes.graph_cache import DESCRIPTION
from openclap.runtimes.sessions import make_session
from openclap.text.numpy_tokenizer import FILE as TOKENIZER
from openclap.text.numpy_tokenizer import NumpyTokenizer
from openclap.types import Signature

if TYPE_CHECKING:
    import torch

    from openclap.presets import Preset

FORMAT_VERSION = 2
GRAPHS = ("audio.onnx", "logmel.onnx", "text.onnx")
SHARED = (graph_cache.CONFIGS[0], "model.safetensors")
"""A model folder's own files, for graphs that read their weights from it (`openclap.interop.onnx_shared`)."""
FILES = (*GRAPHS, *(f"{name}.data" for name in GRAPHS), DESCRIPTION, TOKENIZER, *SHARED)
PRECISIONS = ("fp32", "auto")
CPU_CLIPS = 1
"""Clips per forward pass of the audio tower. More are no faster (HTSAT, one core: 0.18 s for ten seconds, 0.20 s in a
batch of eight), and with one an embedding does not depend on its batch in any bit."""
MEL_FRAMES = 8192
"""Frames of a long clip whose log-mel is computed at once."""


class OnnxLoader:
    """Options of the onnxruntime runtime. Raises ConfigError for a device or precision that needs torch."""

    def __init__(self, device: str | torch.device | None, precision: str, *, compile: bool) -> None:
        if str(device or "cpu") != "cpu":
            raise ConfigError(f"device is {str(device)!r}, and the onnx runtime computes on the CPU. Choose 'cpu'.")
        if precision not in PRECISIONS:
            raise ConfigError(
                f"precision is {precision!r}, and the onnx runtime has 'fp32' and 'auto'. Others need torch: "
                "pip install 'openclap[torch]'."
            )
        if compile:
            raise ConfigError("The option compile applies to the torch runtime, and this is the onnx runtime.")

    def read(
        self, path: Path, *, preset: Preset | None, tokenizer: str | os.PathLike[str] | None, offline: bool
    ) -> OnnxRuntime:
        """Read a folder of graphs, a model folder whose preset has graphs in openclap, or the graphs of a checkpoint
        that were converted before.

        Raises CheckpointError when there are none, or they are damaged, and MissingExtraError where torch, which would
        have to convert the model, is not installed.
        """
        graphs = find_graphs(path)
        if preset is not None and preset != graphs.preset:
            raise ConfigError(f"{path}: has its preset in its graphs, and another one was given. Leave out preset.")
        # The model's own tokenizer first: models of equal weights share their graphs, whatever their tokenizers.
        files = [path / TOKENIZER, graphs.folder / TOKENIZER]
        found = Path(tokenizer) if tokenizer else next((file for file in files if file.is_file()), None)
        return OnnxRuntime(graphs, found, offline=offline)


class Graphs(Protocol):
    """The graphs of a model.

    Attributes:
        folder: of the graphs, or of the model whose weights are bound to them.
        scale: the logit scale.
        advice: the end of an error message about a damaged graph.
    """

    folder: Path
    preset: Preset
    scale: float
    advice: str

    def digest(self) -> str:
        """A SHA-256 of weights and preset, that of the torch runtime."""
        ...

    def session(self, graph: str) -> Any:
        """An onnxruntime session of "audio", "logmel" or "text". Raises CheckpointError, and what onnxruntime does."""
        ...

    def save(self, place: Path, tokenizer: str) -> None:
        """Write a folder that `openclap.load` reads back, with this content of `tokenizer.json`."""
        ...


def find_graphs(model: Path) -> Graphs:
    """The graphs of a model file or folder. Raises as `OnnxLoader.read`."""
    if graph_cache.is_graph_folder(model):
        return ConvertedGraphs(model)
    obstacle = preset_graphs.obstacle(model)
    if obstacle is None:
        return preset_graphs.BoundGraphs(model)
    if converted := graph_cache.find(model):
        return ConvertedGraphs(converted)
    if kind := clap_model.foreign_type(model):
        raise CheckpointError(f"{model}: models of the type {kind!r} have no graphs. Leave out the runtime.")
    advice = f"torch converts it once: 'openclap convert {model} --to onnx'"
    if runtimes.has("torch"):
        raise CheckpointError(f"{model}: {obstacle}, and it was not converted for onnxruntime; {advice}.")
    raise MissingExtraError(
        f"{model}: {obstacle}, so it needs torch. Install it with: pip install 'openclap[torch]'. Elsewhere, {advice}."
    )


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """The part of `onnx.json` that openclap reads.

    Attributes:
        digest: of weights and preset, as the torch runtime computes it.
        scale: the logit scale.
        shared_weights: the SHA-256 of `model.safetensors`, for graphs that read their weights from it.
    """

    preset: Preset
    digest: str
    scale: float
    shared_weights: str | None


def read_description(folder: Path) -> GraphDescription:
    """Read `onnx.json`. Raises CheckpointError for a damaged file, and for another format version."""
    file = folder / DESCRIPTION
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = facts["format_version"]
        if version == FORMAT_VERSION:
            return GraphDescription(
                presets.from_dict(facts["preset"]),
                str(facts["weights_digest"]),
                float(facts["scale"]),
                facts.get("shared_weights"),
            )
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        raise CheckpointError(f"{file}: is damaged ({describe_error(error)}). Convert the model again.") from None
    action = (
        "Upgrade openclap."
        if isinstance(version, int) and version > FORMAT_VERSION
        else f"Run 'openclap convert MODEL {folder} --to onnx' to write it again."
    )
    raise CheckpointError(f"{folder}: has format {version!r}, and this openclap reads {FORMAT_VERSION}. {action}")


def _check_shared(weights: Path, sha256: str) -> None:
    """Raise CheckpointError for weights that are damaged or others; graphs read them by offsets, unchecked."""
    mapped.check_safetensors(weights)
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise CheckpointError(
                f"{weights}: is not the file that the ONNX graphs beside it were made for. Delete {DESCRIPTION} and "
                "the graphs, and openclap reads the weights without them."
            )


def _is_folder(path: Path) -> bool:
    """Whether `path` is a folder of graphs, of any format version, that a new one may replace."""
    try:
        return "format_version" in json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


KIND = CheckpointKind("ONNX folder of openclap", FILES, _is_folder)


class ConvertedGraphs:
    """A folder of graphs with weights. Raises CheckpointError as `read_description`, and for graphs that read their
    weights from another file than they were made for."""

    advice = "Convert the model again."

    def __init__(self, folder: Path) -> None:
        description = read_description(folder)
        if description.shared_weights is not None:
            _check_shared(folder / SHARED[1], description.shared_weights)
        self.folder, self.preset, self.scale = folder, description.preset, description.scale
        self._digest = description.digest

    def digest(self) -> str:
        """The digest of the model that was converted."""
        return self._digest

    def session(self, graph: str) -> Any:
        """An onnxruntime session of a graph."""
        return make_session(self.folder / f"{graph}.onnx")

    def save(self, place: Path, tokenizer: str) -> None:
        """Copy the folder, with this tokenizer. Raises CheckpointError as `checkpoints.destination`."""
        with drafted(place, KIND, read_description, [self.folder]) as draft:
            draft.mkdir()
            for file in self.folder.iterdir():
                if file.name in FILES:
                    shutil.copyfile(file, draft / file.name)
            (draft / TOKENIZER).write_text(tokenizer, encoding="utf-8")


class OnnxRuntime:
    """A CLAP model in onnxruntime, on the CPU in fp32. See `openclap.runtimes.Runtime` for the methods.

    A graph is read when it is first used: a search by text needs only that of texts.
    """

    name, precision, batches_waves = "onnxruntime fp32", "fp32", CPU_CLIPS > 1

    def __init__(self, graphs: Graphs, tokenizer: Path | None, *, offline: bool = False) -> None:
        self.graphs, self.preset = graphs, graphs.preset
        self._tokenizer_file, self._offline = tokenizer, offline
        self._words: NumpyTokenizer | None = None
        self._sessions: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without sessions, which another process reads again."""
        return vars(self) | {"_sessions": {}}

    @property
    def signature(self) -> Signature:
        """What the model reads and returns."""
        return self.preset.signature

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before a softmax."""
        return self.graphs.scale

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer file is at hand; otherwise it would be fetched."""
        return self._words is not None or self._tokenizer_file is not None

    @property
    def tokenizer(self) -> NumpyTokenizer:
        """Read, or fetched, when text is first embedded. Raises CheckpointError when it is missing."""
        if self._words is None:
            file = self._tokenizer_file or fetch_tokenizer(self.preset, self._offline)
            text = self.preset.text
            self._words = NumpyTokenizer.read(file, text.context, padded=text.padded)
        return self._words

    def check_tokenizer(self) -> None:
        """Read the tokenizer. Raises CheckpointError where text could not be embedded later."""
        _ = self.tokenizer

    def embed_waves(self, waves: Sequence[Wave]) -> NDArray[np.float32]:
        """(N, D) unit vectors of mono waveforms at the model's rate."""
        starts = range(0, len(waves), CPU_CLIPS)
        embed = self._embed_views if self.preset.frontend.long == "fusion" else self._embed_inputs
        return np.concatenate([embed(waves[start : start + CPU_CLIPS]) for start in starts])

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of `texts`."""
        vectors_ND = np.zeros((len(texts), self.preset.embedding_size), np.float32)
        for rows, tokens in self.tokenizer.batches(texts, batch_size):
            vectors_ND[rows] = self._run("text", ids=tokens.ids_BL, mask=tokens.mask_BL)
        return vectors_ND

    def weights_digest(self) -> str:
        """A SHA-256 of weights and preset: that of the torch runtime."""
        return self.graphs.digest()

    def save(self, folder: Path) -> None:
        """Write a folder with the tokenizer. Raises CheckpointError as `checkpoints.destination`."""
        self.graphs.save(folder, self.tokenizer.settled)

    def _embed_inputs(self, waves: Sequence[Wave]) -> NDArray[np.float32]:
        front = self.preset.frontend
        if front.is_any_length:
            # One clip at a time (`CPU_CLIPS`), so that none is padded but to a whole window of the Fourier transform.
            waves = [fill(wave_S, max(len(wave_S), front.mel.n_fft), "pad") for wave_S in waves]
        return self._run("audio", wave=np.stack([fill(wave_S, front.samples, front.fill) for wave_S in waves]))

    def _embed_views(self, waves: Sequence[Wave]) -> NDArray[np.float32]:
        front = self.preset.frontend
        mels = [
            self._log_mel(wave_S if len(wave_S) >= front.samples else fill(wave_S, front.samples, front.fill))
            for wave_S in waves
        ]
        mel_BVTF = np.stack([four_views(mel_LF, front.frames, antialias=front.antialias) for mel_LF in mels])
        return self._run("audio", mel=mel_BVTF, is_long=np.array([len(mel_LF) > front.frames for mel_LF in mels]))

    def _log_mel(self, wave_S: Wave) -> Mel:
        """(L, F), computed in blocks, so that an hour needs little more memory than its log-mel.

        The graph reflects both ends of its input. The frames that this touches are dropped, except at the ends of the
        whole clip.
        """
        mel = self.preset.frontend.mel
        margin = mel.n_fft // mel.hop + 1
        frames = mel.frames(len(wave_S))
        starts = list(range(0, max(frames - margin, 1), MEL_FRAMES))  # as LogMel: no last block of a few frames
        parts = []
        for start, stop in zip(starts, [*starts[1:], frames], strict=True):
            first, last = max(start - margin, 0), min(stop + margin, frames)
            end = len(wave_S) if stop == frames else (last - 1) * mel.hop + 1
            [mel_LF] = self._run("logmel", wave=wave_S[None, first * mel.hop : end])
            parts.append(mel_LF[start - first : stop - first])
        return np.concatenate(parts)

    def _run(self, graph: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        try:
            if graph not in self._sessions:
                self._sessions[graph] = self.graphs.session(graph)
            output: NDArray[np.float32] = self._sessions[graph].run(None, inputs)[0]
        except CheckpointError:
            raise
        except Exception as error:  # onnxruntime has a type for each kind of damage
            raise CheckpointError(
                f"{self.graphs.folder}: the graph {graph}.onnx cannot be run by onnxruntime ({describe_error(error)}). "
                f"{self.graphs.advice}"
            ) from None
        return output
