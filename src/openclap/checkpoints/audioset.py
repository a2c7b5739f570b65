"""Audio towers alone, as they were trained to tag AudioSet: what training starts from.

HTSAT's files (Chen et al. 2022; names behind `sed_model.`) and PANN's official ones (Kong et al. 2020, such as
`Cnn14_mAP=0.431.pth`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from openclap.audio.config import FrontEndConfig
from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import laion
from openclap.checkpoints.folder import WithoutRandomWeights, fill
from openclap.checkpoints.names import translate
from openclap.checkpoints.shapes import audio_of, frontend_of, tower_name
from openclap.checkpoints.tensors import in_one_sentence, read_tensors
from openclap.errors import CheckpointError
from openclap.models.config import AudioConfig, HTSATConfig
from openclap.models.htsat import HTSAT
from openclap.models.pann import PANN

PREFIX = "sed_model."
FIRST_LAYERS = ("patch_embed.proj.weight", "conv_block1.conv1.weight")


@dataclass(frozen=True, slots=True)
class AudioTower:
    """A tower's weights under our names, without CLAP's "audio_tower." before them.

    Attributes:
        unused: learned tensors that the tower does not read, by the names of the file.
    """

    config: AudioConfig
    frontend: FrontEndConfig
    weights: dict[str, Tensor]
    unused: dict[str, Tensor]

    @property
    def name(self) -> str:
        return tower_name(self.config)

    def build(self) -> tuple[nn.Module, FrontEnd]:
        """The network in evaluation mode, whose `features(frontend(waves)).clipwise` are AudioSet's 527 scores."""
        tower = self.skeleton()
        fill(tower, self.weights, self.name)
        return tower.eval(), FrontEnd(self.frontend)

    def skeleton(self) -> nn.Module:
        """The network, its weights not set."""
        with WithoutRandomWeights():
            return HTSAT(self.config) if isinstance(self.config, HTSATConfig) else PANN(self.config)


def holds_tower(state: Mapping[str, Any]) -> bool:
    """Are these the names of an audio tower alone?"""
    return any(name.removeprefix(PREFIX) in FIRST_LAYERS for name in state)


def read(path: Path) -> AudioTower:
    """A tower from its file. Raises CheckpointError for any other file."""
    with in_one_sentence(path.name):
        state = read_tensors(path)
        if not holds_tower(state):
            raise CheckpointError(
                f"{path.name}: holds no audio tower; expected {' or '.join(FIRST_LAYERS)} among its names."
            )
        return from_state(state, path.name)


def from_state(state: Mapping[str, Tensor], source: str) -> AudioTower:
    """A tower from a state dict, its names with or without `sed_model.`."""
    branch = {f"audio_branch.{name.removeprefix(PREFIX)}": tensor for name, tensor in state.items()}
    config = audio_of(branch, source)
    weights: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for name, tensor in branch.items():
        if name.startswith(laion.FIXED) or name.endswith(laion.COMPUTED):
            continue
        if name.startswith(laion.UNUSED) or laion.SECOND_GLOBAL in name:
            unused[name.removeprefix("audio_branch.")] = tensor
        else:
            weights[translate(name, (laion.audio_table(config),)).removeprefix("audio_tower.")] = tensor
    frontend = replace(frontend_of(branch, fusion=False, source=source), int16=False)
    return AudioTower(config, frontend, weights, unused)
