"""Context sets that differ from the targets: unseen views of an object from one of its views (GradNCP table 4).

Scenes are generated: a few shaded ellipsoids, looked at from known directions. The field is a NeRF (Mildenhall et al.
2020) with one network and no view direction; context points are rays.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.curves import decibels
from experiments.pruned import Bench, Examples, Problem, compared
from experiments.result import Result
from experiments.variants import with_adaptation
from inrcodec.models import FourierFeatureNetwork, Parameters

NEAR, FAR = 1.0, 3.0
"""Distances along a ray between which the object is; cameras are 2 away from its middle."""

FIELD_OF_VIEW = 0.35
"""Half the width of a picture at distance 1."""

DENSITY, SPARSE = 8.0, 4.0
"""Density is 8 softplus(x - 4) where the network gives x: with 0 everywhere, as about at the start, three quarters of
the light come through, and with 6 nothing after a few samples."""


@dataclass(frozen=True, eq=False)
class Rays(Examples):
    """Rays and what is seen along them.

    origins, directions: [B, N, 3], directions of length 1. colors: [B, N, 3] in [0, 1].
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor


def camera_rays(eye: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Return origins and directions [N, 3] of the rays of a camera at `eye` [3] that looks at the origin."""
    forward = -eye / eye.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    up = torch.linalg.cross(right, forward)
    places = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    y, x = torch.meshgrid(-places, places, indexing="ij")
    directions = forward + FIELD_OF_VIEW * (x[..., None] * right + y[..., None] * up)
    directions = (directions / directions.norm(dim=-1, keepdim=True)).reshape(-1, 3)
    return eye.expand_as(directions), directions


def scene(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw middles, radii along the axes and colors, [P, 3] each, of some ellipsoids: a body and what is on it."""
    parts = 5
    middles = torch.rand((parts, 3), generator=generator) * 0.7 - 0.35
    radii = torch.rand((parts, 3), generator=generator) * 0.2 + 0.12
    middles[0], radii[0] = 0.0, torch.tensor([0.45, 0.25, 0.2]) + 0.1 * torch.rand(3, generator=generator)
    return middles, radii, torch.rand((parts, 3), generator=generator)


def look(objects: tuple[Tensor, Tensor, Tensor], origins: Tensor, directions: Tensor) -> Tensor:
    """Return the colors [N, 3] of rays: the nearest ellipsoid's, shaded by a light from above; white without one."""
    middles, radii, colors = objects
    start = (origins[:, None] - middles) / radii
    way = directions[:, None] / radii
    a, b, c = way.square().sum(-1), (way * start).sum(-1), start.square().sum(-1) - 1
    root = b.square() - a * c
    distance = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, math.inf)
    nearest, which = distance.min(1)
    hit = nearest.isfinite()
    points = origins + nearest.nan_to_num(posinf=0.0)[:, None] * directions
    normals = (points - middles[which]) / radii[which].square()
    normals = normals / normals.norm(dim=1, keepdim=True)
    light = 0.6 + 0.4 * normals @ torch.tensor([0.48, 0.36, 0.8])
    return torch.where(hit[:, None], colors[which] * light[:, None], 1.0)


def views(number: int, count: int, resolution: int) -> Rays:
    """Return `count` views of the scene of a number: [count, N, 3] each."""
    generator = torch.Generator().manual_seed(number)
    objects = scene(generator)
    found = []
    for _ in range(count):
        turn, rise = torch.rand(2, generator=generator).tolist()
        azimuth, height = 2 * math.pi * turn, 0.1 + 0.7 * rise
        flat = math.sqrt(1 - height**2)
        eye = 2 * torch.tensor([flat * math.cos(azimuth), flat * math.sin(azimuth), height])
        origins, directions = camera_rays(eye, resolution)
        found.append((origins, directions, look(objects, origins, directions)))
    return Rays(*(torch.stack(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class RadianceField:
    """A field from places to color and density, and how rays are rendered.

    samples: of a ray.
    """

    network: FourierFeatureNetwork
    samples: int

    def render(self, theta: Parameters, rays: Rays, *, readout: Tensor | None = None) -> Tensor:
        """Return colors [B, N, 3]; with a `readout`, [B, N * samples, 4], of what the network gave."""
        batch, count = rays.origins.shape[:2]
        if readout is None:
            features = self.network.features(theta, self.places(rays))
            readout = self.network.preactivation(theta, features)
        raw = readout.reshape(batch, count, self.samples, 4)
        colors, density = raw[..., :3].sigmoid(), DENSITY * torch.nn.functional.softplus(raw[..., 3] - SPARSE)
        opacity = 1 - torch.exp(-density * (FAR - NEAR) / self.samples)
        passed = torch.cumprod(torch.cat((torch.ones_like(opacity[..., :1]), 1 - opacity), -1), -1)
        weights = opacity * passed[..., :-1]
        return (weights[..., None] * colors).sum(-2) + passed[..., -1:]  # on white

    def places(self, rays: Rays) -> Tensor:
        """Return the samples of rays, in the middles of equal parts: [B, N * samples, 3]."""
        distances = NEAR + (FAR - NEAR) * (torch.arange(self.samples, device=rays.origins.device) + 0.5) / self.samples
        places = rays.origins[:, :, None] + distances[:, None] * rays.directions[:, :, None]
        return places.flatten(1, 2)

    def scores(self, theta: Parameters, rays: Rays, score: str) -> Tensor:
        """Return scores of rays, [B, N]: the norm of the error, or of the gradient with respect to the readout.

        Every sample of a ray has a share in that gradient.
        """
        with torch.no_grad():
            features = self.network.features(theta, self.places(rays))
            readout = self.network.preactivation(theta, features)
        if score == "error":
            return (self.render(theta, rays, readout=readout) - rays.colors).norm(dim=-1)
        with torch.enable_grad():
            leaf = readout.detach().requires_grad_()
            loss = (self.render(theta, rays, readout=leaf) - rays.colors).square().sum()
            (slopes,) = torch.autograd.grad(loss, leaf)
        batch, count = rays.origins.shape[:2]
        slopes = slopes.reshape(batch, count, self.samples, 4)
        ones = torch.ones_like(features[..., :1])
        features = torch.cat((features, ones), -1).reshape(batch, count, self.samples, -1)
        return torch.einsum("bnsc,bnsf->bncf", slopes, features).flatten(2).norm(dim=2)


@dataclass(frozen=True)
class Views(Problem[Rays]):
    """Tasks: a scene of which one view is seen, and rays of others.

    scenes: how many are learned from; those of higher numbers are measured on.
    unseen: views beside the one that is seen.
    rays: how many of the seen view are drawn as a task's context set; the rest is not seen in training.
    targets: rays of the other views in the outer loss.
    """

    field: RadianceField
    resolution: int
    scenes: int
    rays: int
    unseen: int = 4
    targets: int = 256

    @property
    def constants(self) -> frozenset[str]:
        return self.field.network.constants

    def initialize(self, generator: torch.Generator) -> Parameters:
        return self.field.network.initialize(generator)

    def tasks(self, count: int, generator: torch.Generator) -> tuple[Rays, Rays]:
        numbers = torch.randint(self.scenes, (count,), generator=generator).tolist()
        first = int(torch.randint(1 + self.unseen, (), generator=generator))
        seen, unseen = self.of(numbers, first)
        parts = []
        for rays, size in ((seen, self.rays), (unseen, self.targets)):
            drawn = torch.rand((count, rays.points), generator=generator).topk(min(size, rays.points), 1).indices
            parts.append(rays.select(drawn))
        return parts[0], parts[1]

    def of(self, numbers: list[int], first: int = 0) -> tuple[Rays, Rays]:
        """Return the rays of the view `first` of scenes, and all those of the others."""
        found = [views(number, 1 + self.unseen, self.resolution) for number in numbers]
        kinds = list(zip(*((each.origins, each.directions, each.colors) for each in found), strict=True))
        others = [view for view in range(1 + self.unseen) if view != first]
        seen = Rays(*(torch.stack([part[first] for part in kind]) for kind in kinds))
        return seen, Rays(*(torch.stack([part[others].flatten(0, 1) for part in kind]) for kind in kinds))

    def losses(self, theta: Parameters, examples: Rays) -> Tensor:
        return (self.field.render(theta, examples) - examples.colors).square().mean((1, 2))

    def scores(self, theta: Parameters, examples: Rays, score: str) -> Tensor:
        return self.field.scores(theta, examples, score)

    def measure(self, theta: Parameters, targets: Rays) -> Tensor:
        """Return the PSNR in dB."""
        return decibels(self.losses(theta, targets))


SMALL = Views(
    RadianceField(FourierFeatureNetwork(3, 4, width=32, depth=4, frequencies=32, scale=0.5), samples=16),
    resolution=16,
    scenes=500,
    rays=256,
)
PAPER = Views(
    RadianceField(FourierFeatureNetwork(3, 4, width=256, depth=6, frequencies=64, scale=0.5), samples=64),
    resolution=64,
    scenes=2500,
    rays=512,
)

HELD_OUT = 16
"""Scenes that are measured on."""


def unseen_views(bench: Bench) -> Result:
    """Show a generated object's unseen views from one of its views, with a NeRF (GradNCP table 4)."""
    usual = replace(bench.training, inner_step_size=0.1)
    if bench.scale == "paper":
        problem = PAPER
    else:
        problem, usual = SMALL, with_adaptation(replace(usual, outer_step_size=3e-3), steps=8)
    held_out = problem.of(list(range(problem.scenes, problem.scenes + HELD_OUT)))
    found = compared(problem, usual, held_out, bench, f"PSNR of unseen views of {HELD_OUT} held-out objects, mean, dB")
    return replace(found, notes=[*found.notes, f"a mean picture of other objects: {_mean_picture(problem):.2f} dB"])


def _mean_picture(problem: Views) -> float:
    """Return the PSNR in dB of what a view is without knowing anything of its object."""
    _, learned = problem.of(list(range(HELD_OUT * problem.unseen)))
    _, asked = problem.of(list(range(problem.scenes, problem.scenes + HELD_OUT)))
    pixels = learned.colors.unflatten(1, (problem.unseen, -1)).mean((0, 1))
    errors = (asked.colors.unflatten(1, (problem.unseen, -1)) - pixels).square().mean((1, 2, 3))
    return float(decibels(errors).mean())
