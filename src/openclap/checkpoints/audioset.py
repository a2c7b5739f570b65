"""Read audio towers alone, as trained to tag AudioSet: pretrained towers that CLAP training starts from.

HTSAT's files (Chen et al. 2022; names behind `sed_model.`) and PANN's official ones (Kong et al. 2020, such as
`Cnn14_mAP=0.431.pth`). Their names are those of LAION-CLAP's audio branch, which was built from the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from openclap import presets
from openclap.audio.config import FrontEndConfig
from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import laion
from openclap.checkpoints.checkpoint import ZeroInit, load_weights
from openclap.checkpoints.damage import errors_as_checkpoint_errors
from openclap.checkpoints.tensors import read_tensors
from openclap.checkpoints.translate_keys import translate_key
from openclap.errors import CheckpointError
from openclap.models.build import build_audio_tower
from openclap.models.config import AudioConfig

PREFIX = "sed_model."
FIRST_LAYERS = ("patch_embed.proj.weight", "conv_block1.conv1.weight")
"""Names of the first layers of HTSAT and PANN, by which a tower is recognised."""


@dataclass(frozen=True, slots=True)
class AudioTower:
    """A tower's weights under our names, without CLAP's "audio_tower." prefix.

    Attributes:
        unused: trained tensors that the tower does not read, under the names of the file.
    """

    config: AudioConfig
    frontend: FrontEndConfig
    weights: dict[str, Tensor]
    unused: dict[str, Tensor]

    @property
    def name(self) -> str:
        return presets.tower_name(self.config)

    def build(self) -> tuple[nn.Module, FrontEnd]:
        """Build the network in evaluation mode, and its front end.

        `network.features(frontend(waves)).clipwise` are the scores of AudioSet's 527 classes.
        """
        network = self.empty_network()
        load_weights(network, self.weights, self.name)
        return network.eval(), FrontEnd(self.frontend)

    def empty_network(self) -> nn.Module:
        """Build the network with weights of zero."""
        with ZeroInit():
            return build_audio_tower(self.config)


def has_tower_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of an audio tower alone."""
    return any(name.removeprefix(PREFIX) in FIRST_LAYERS for name in state)


def read(path: Path) -> AudioTower:
    """Read a tower from its file. Raises CheckpointError for any other file."""
    with errors_as_checkpoint_errors(path.name):
        state = read_tensors(path)
        if not has_tower_names(state):
            raise CheckpointError(
                f"{path.name}: holds no audio tower; expected {' or '.join(FIRST_LAYERS)} among its names."
            )
        return from_state(state, path.name)


def from_state(state: Mapping[str, Tensor], source: str) -> AudioTower:
    """Translate a tower's state dict, its names with or without `sed_model.`."""
    branch = {f"audio_branch.{name.removeprefix(PREFIX)}": tensor for name, tensor in state.items()}
    config = laion.infer_audio_tower(branch, source)
    weights: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for name, tensor in branch.items():
        if name.startswith(laion.FRONT_END) or name.endswith(laion.COMPUTED):
            continue
        if name.startswith(laion.UNUSED) or laion.SECOND_GLOBAL in name:
            unused[name.removeprefix("audio_branch.")] = tensor
        else:
            key = translate_key(name, (laion.audio_key_table(config),))
            weights[key.removeprefix("audio_tower.")] = tensor
    # Rounding to 16 bits is LAION-CLAP's; these towers were trained without it.
    frontend = replace(laion.infer_front_end(branch, fusion=False, source=source), int16=False)
    return AudioTower(config, frontend, weights, unused)
