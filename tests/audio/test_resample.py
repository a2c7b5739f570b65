"""Resampling: joined streams of any rates and channels become one stream of the first kind."""

from __future__ import annotations

import numpy as np

from openclap.audio.resample import at_one_rate


def test_channels_may_change_together_with_a_second_rate() -> None:
    kinds = [(2, 8000), (2, 16000), (1, 48000), (1, 8000)]
    blocks = list(at_one_rate((np.full((rate // 4, channels), 0.5, np.float32), rate) for channels, rate in kinds))
    assert {(rate, wave_NC.shape[1]) for wave_NC, rate in blocks} == {(8000, 2)}
    whole_NC = np.concatenate([wave_NC for wave_NC, _ in blocks])
    assert len(whole_NC) == 4 * 2000
    np.testing.assert_allclose(whole_NC[100:1900], 0.5, atol=1e-6)
    np.testing.assert_allclose(whole_NC[4100:5900], 0.5, atol=1e-2)
