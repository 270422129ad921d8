"""Fidelity as eyes see it: SSIM, and LPIPS (Zhang et al. 2018) where its weights can be had."""

from collections.abc import Callable
from pathlib import Path

import report
import safetensors.torch
import similarity
import torch
from torch import Tensor

from inrcodec.errors import UsageError

Distance = Callable[[Tensor, Tensor], float | None]
"""Mean distance of pictures [P, H, W, 3] in [0, 1]; None for pictures it does not take."""

SMALLEST_LPIPS = 31
"""Samples along both axes that AlexNet needs."""


def planes(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return values [B, N, C] on a grid as pictures [P, H, W, C], frame by frame."""
    return values.reshape(-1, *shape[-2:], values.shape[-1])


def mean_ssim(pictures: Tensor, originals: Tensor) -> float:
    """Return the mean SSIM of pictures with values in [0, 1]."""
    return similarity.planes_ssim(originals.cpu().numpy(), pictures.clamp(0, 1).cpu().numpy(), 1.0)


def lpips_distance(backbone: Path | None) -> Distance | None:
    """Load LPIPS with AlexNet, or return None and say why there is none.

    backbone: torchvision's AlexNet as safetensors; the package lpips has the other weights.
    Raises: UsageError if the file is not that, or without the package.
    """
    if backbone is None:
        report.say("no LPIPS: it needs the weights of torchvision's AlexNet as safetensors, give --lpips-backbone FILE")
        return None
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that is not for this torch
        raise UsageError(f"--lpips-backbone needs the package lpips, which cannot be loaded: {error}") from error
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    try:
        weights = safetensors.torch.load_file(backbone)
        features = {name.removeprefix("features."): value for name, value in weights.items() if "features." in name}
        # The package cuts the layers into slices and keeps their numbers.
        own = network.net.state_dict()
        network.net.load_state_dict({name: features[name.split(".", 1)[1]] for name in own})
    except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise UsageError(f"{backbone} has not the weights of torchvision's AlexNet: {error}") from error

    def distance(pictures: Tensor, originals: Tensor) -> float | None:
        if pictures.shape[-1] != 3 or min(pictures.shape[1:3]) < SMALLEST_LPIPS:
            return None
        pairs = [2 * each.cpu().movedim(-1, 1).clamp(0, 1) - 1 for each in (pictures, originals)]
        with torch.no_grad():
            return float(network(*pairs).mean())

    return distance
