"""The step of MM-DINOv2 (Scholz et al., MICCAI 2025) written plainly, with torch and timm alone, for `bench/paper_step.py`.

All weights of a ViT-S are trained in fp32, a full teacher follows by EMA, one modality is masked in every global view of the
student, and AdamW moves everything: classification, DINO, iBOT and KoLeo. Nothing is frozen, shared or kept.
B patients, V views, M modalities, P patches of one of them, N = 1 + M P tokens, D width, K prototypes, which are the classes.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONE, PATCH = "vit_small_patch14_dinov2", 14
M, K, GLOBAL_VIEWS, LOCAL_VIEWS = 4, 3, 2, 4
GLOBAL_SCALE, LOCAL_SCALE, LOCAL_SIZE = (0.7, 1.0), (0.3, 0.7), 0.5
TEMPERATURE, TEACHER_TEMPERATURE, SMOOTHING, MOMENTUM, CENTRE_MOMENTUM, CLIP = 0.1, 0.04, 0.1, 0.992, 0.9, 3.0
WEIGHTS = {"classification": 0.5, "dino": 1.0, "ibot": 1.0, "koleo": 0.1}


class Model(nn.Module):
    """ViT, modality embeddings, mask token, and DINO's head of three layers.

    Args:
        side: patches along an edge of a global crop.
    """

    vit: Any

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.vit = timm.create_model(BACKBONE, num_classes=0, img_size=side * PATCH, dynamic_img_size=True, drop_path_rate=0.3)
        D = int(self.vit.embed_dim)
        self.modality = nn.Parameter(functional.normalize(torch.randn(M, 1, D), dim=-1))
        self.mask_token = nn.Parameter(torch.zeros(D))
        layers = [nn.Linear(D, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256)]
        self.projection = nn.Sequential(*layers)
        self.prototypes = nn.Parameter(torch.randn(K, 256))

    def forward(self, x: Tensor, masks: Tensor | None = None, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CLS [n, D] and patch tokens [n, M P, D].

        Args:
            x: [n, M, H, W].
            masks: [n, M, P], patches that are hidden; None: none.
            seen: [n, N], tokens that may be looked at; None: all.
        """
        images = x.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        grid = self.vit.patch_embed(images)  # [n M, h, w, D]
        if masks is not None:
            grid = torch.where(masks.reshape(*grid.shape[:3], 1), self.mask_token, grid)
        placed = self.vit._pos_embed(grid)  # [n M, 1 + P, D]
        patches = placed[:, 1:].unflatten(0, (-1, M)) + self.modality
        z = torch.cat([placed[::M, :1], patches.flatten(1, 2)], dim=1)
        for block in self.vit.blocks:
            z = block(z, attn_mask=None if seen is None else seen[:, None, None])
        z = self.vit.norm(z)
        return z[:, 0], z[:, 1:]

    def logits(self, z: Tensor) -> Tensor:
        """Tokens [..., D] to cosines with the prototypes [..., K]."""
        return functional.linear(functional.normalize(self.projection(z), dim=-1), functional.normalize(self.prototypes, dim=-1))


@dataclass
class Recipe:
    """Student, teacher and what moves them.

    Attributes:
        side: patches along an edge of a global crop.
        padded: local crops stand on a canvas of the global ones' size, and nobody looks at the rest; else they run by themselves.
        generator: of crops and masks.
    """

    side: int
    padded: bool
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __post_init__(self) -> None:
        self.local_side = round(self.side * LOCAL_SIZE)
        self.student = Model(self.side).train()
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4, weight_decay=0.04)
        self.centres: dict[str, Tensor] = {}

    def step(self, x: Tensor, labels: Tensor) -> None:
        """One step on x [B, M, H, W] with labels [B]."""
        large = torch.cat([self.crops(x, self.side, GLOBAL_SCALE) for _ in range(GLOBAL_VIEWS)])
        small = torch.cat([self.crops(x, self.local_side, LOCAL_SCALE) for _ in range(LOCAL_VIEWS)])
        masks = self.masks(len(large))
        targets, patch_targets = self.targets(large, masks)
        cls, patches = self.of_student(large, small, masks)
        logits = self.student.logits(cls).unflatten(0, (-1, len(x))) / TEMPERATURE
        patch_logits = self.student.logits(patches[masks.flatten(1)]) / TEMPERATURE
        losses = {
            "classification": functional.cross_entropy(
                logits.flatten(0, 1), labels.repeat(len(logits)), label_smoothing=SMOOTHING
            ),
            "dino": dino(targets, logits),
            "ibot": -(patch_targets * patch_logits.log_softmax(-1)).sum(-1).mean(),
            "koleo": torch.stack([koleo(view) for view in cls[: len(large)].split(len(x))]).mean(),
        }
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum())
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.mul_(MOMENTUM).add_(theirs, alpha=1 - MOMENTUM)

    def crops(self, x: Tensor, side: int, scale: tuple[float, float]) -> Tensor:
        """A random square of each patient, resampled: [B, M, side PATCH, side PATCH]."""
        zoom = scale[0] + (scale[1] - scale[0]) * torch.rand(len(x), generator=self.generator)
        shift = (torch.rand(len(x), 2, generator=self.generator) * 2 - 1) * (1 - zoom).unsqueeze(1)
        affine = torch.cat([torch.diag_embed(zoom.unsqueeze(1).expand(-1, 2)), shift.unsqueeze(2)], dim=2)
        grid = functional.affine_grid(affine, [len(x), M, side * PATCH, side * PATCH], align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)

    def masks(self, views: int) -> Tensor:
        """[views, M, P]: one modality whole, and in half of the views a random square, the same in every modality."""
        found = torch.zeros(views, M, self.side, self.side, dtype=torch.bool)
        for view in found:
            view[int(torch.randint(M, (), generator=self.generator))] = True
            part, chance = torch.rand(2, generator=self.generator).tolist()
            if chance < 0.5:
                edge = max(1, int(self.side * (0.1 + 0.4 * part) ** 0.5))
                top, left = torch.randint(self.side - edge + 1, (2,), generator=self.generator).tolist()
                view[:, top : top + edge, left : left + edge] = True
        return found.flatten(2)

    @torch.no_grad()
    def targets(self, large: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's distributions of the global views [2, B, K], which it sees whole, and of the masked patches [R, K]."""
        cls, patches = self.teacher(large)
        patient = self.centred(self.teacher.logits(cls).unflatten(0, (GLOBAL_VIEWS, -1)), "patient")
        return patient, self.centred(self.teacher.logits(patches[masks.flatten(1)]), "patch")

    def centred(self, logits: Tensor, name: str) -> Tensor:
        """Sharpened and centred distributions; the centre moves."""
        mean = logits.flatten(0, -2).mean(0)
        centre = self.centres.get(name, mean)
        self.centres[name] = CENTRE_MOMENTUM * centre + (1 - CENTRE_MOMENTUM) * mean
        return ((logits - self.centres[name]) / TEACHER_TEMPERATURE).softmax(-1)

    def of_student(self, large: Tensor, small: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """CLS of all views [V B, D], and the patches of the global ones [2 B, M P, D]."""
        if not self.padded:
            cls, patches = self.student(large, masks)
            return torch.cat([cls, self.student(small)[0]]), patches
        gap = (self.side - self.local_side) * PATCH
        views = torch.cat([large, functional.pad(small, (0, gap, 0, gap))])
        nothing = torch.zeros(len(small), *masks.shape[1:], dtype=torch.bool)
        cls, patches = self.student(views, torch.cat([masks, nothing]), self.seen(len(large), len(small)))
        return cls, patches[: len(large)]

    def seen(self, large: int, small: int) -> Tensor:
        """[V B, N]: all tokens of global views, of padded ones CLS and the corner that holds an image."""
        found = torch.ones(large + small, M, self.side, self.side, dtype=torch.bool)
        found[large:, :, self.local_side :] = False
        found[large:, :, :, self.local_side :] = False
        return torch.cat([torch.ones(large + small, 1, dtype=torch.bool), found.flatten(1)], dim=1)


def dino(targets: Tensor, logits: Tensor) -> Tensor:
    """Mean cross entropy over pairs of different views: the teacher's [2, B, K] and the student's [V, B, K]."""
    pairs = -torch.einsum("ubk,vbk->uv", targets, logits.log_softmax(-1)) / logits.shape[1]
    others = 1 - torch.eye(len(targets), len(logits))
    return (pairs * others).sum() / others.sum()


def koleo(cls: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other patient, of [B, D]."""
    z = functional.normalize(cls, dim=-1)
    nearest = (z @ z.T).detach().fill_diagonal_(-2).argmax(1)
    return -torch.log(functional.pairwise_distance(z, z[nearest]) + 1e-8).mean()


def run(x: Tensor, labels: Tensor, steps: int, padded: bool, tick: Callable[[], None]) -> None:
    """So many steps on patients x [B, M, H, W]; `tick` is called after each."""
    recipe = Recipe(x.shape[-1] // PATCH, padded)
    for _ in range(steps):
        recipe.step(x, labels)
        tick()
