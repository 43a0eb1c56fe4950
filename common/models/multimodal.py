"""Multi-modal tokens on a frozen ViT (MM-DINOv2: Scholz et al., MICCAI 2025).

One shared patch embedding and one position embedding serve every modality; a modality embedding tells them apart; one CLS token
(and the backbone's registers, where it has them) stands before all. A modality that a patient lacks contributes no tokens at all:
patients are grouped by how many modalities they have, and each group runs at its own length.

The paper lets all modalities attend to each other in every block. `joint_blocks` can keep that to the last blocks: the frozen
first ones then see what they were trained on, one image at a time, which is cheaper, and better where few patients train the
adapters.

B patients, S slices, M modalities, H x W pixels, P patches of one modality, N tokens, D width, K prototypes,
Q clinical covariates.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.decoders.decoder import Decoder
from common.models.backbones.backbone import Backbone, Tokens
from common.models.embedding import less_mean, patient_embedding, projected
from common.models.head import PrototypeHead
from common.models.linear_head import LinearHead
from common.models.per_patient import by_patient
from common.models.pixels import grid_of, pictures, volumes
from common.pooling.mean import Mean
from common.pooling.pooling import Pooling

PIECE = 2**24  # bytes: the C library keeps no memory above 2**25 for itself, and fresh memory must be filled with zeros
HIDDEN = 4  # width of an MLP's hidden layer over that of the tokens, in almost every transformer


class Output(NamedTuple):
    """The model's outputs for the loss terms and for prediction.

    Attributes:
        embedding: [B, E], one vector a patient, E = (1 + M) D.
        logits: [B, K], cosines of the patient with each prototype; the first C, with what covariates add to them and over the
            temperature, are the class logits.
        patch_logits: [R, K], cosines of the patch tokens that `read` marks, in its order.
        dense: [B, S, H, W], a logit for each pixel; None: not asked for.
    """

    embedding: Tensor
    logits: Tensor
    patch_logits: Tensor
    dense: Tensor | None = None


class Features(NamedTuple):
    """The backbone's features of each slice.

    Attributes:
        cls: [B, S, D].
        patches: [B, S, M, P, D]; zeros where the modality is absent.
    """

    cls: Tensor
    patches: Tensor


class Front(NamedTuple):
    """What stands between a patient's embedding and the head; nothing of it is trained.

    Attributes:
        centre: mean features [1 + M, D] over sqrt(D), that are taken off; None: none are.
        projection: [K, E], orthonormal rows; the head sees the unit vector of the projected embedding. None: it sees all.
    """

    centre: Tensor | None = None
    projection: Tensor | None = None


class Alone(NamedTuple):
    """What the first blocks make of each modality by itself, whichever others there are: the part that all subsets share.

    Attributes:
        prefix: [B, S, M, R, D]; [1, R, D], the same for all, where no block comes before the modalities meet.
        patches: [B, S, M, P, D]; zeros where the modality is absent.
        rope: rotary positions of one modality's patches, where the backbone has them.
        levels: by number of blocks, what `patches` was after so many of them; those that were asked for, and none in a part.
    """

    prefix: Tensor
    patches: Tensor
    rope: Tensor | None
    levels: Mapping[int, Tensor] = {}

    def take(self, rows: list[int]) -> "Alone":
        """The same of some of the patients."""
        return Alone(self.prefix if self.prefix.ndim == 3 else self.prefix[rows], self.patches[rows], self.rope)

    def some_slices(self, slices: Sequence[int]) -> "Alone":
        """The same of some of the slices."""
        prefix = self.prefix if self.prefix.ndim == 3 else self.prefix[:, slices]
        return Alone(prefix, self.patches[:, slices], self.rope)


class MultiModalViT(nn.Module):
    """Backbone with adapters, modality embeddings, mask token and head.

    Args:
        backbone: with its adapters.
        modalities: M.
        head: its first outputs are the class logits.
        joint_blocks: the last blocks, in which modalities attend to each other; 0: all (the paper's).
        pooling: of the patch tokens, with the arrays that it starts with (`Pooling.start`).
        front: mean features, which a round measures (`common.training.centring`) or the public gave, and the public's directions.
        decoder: of the pixels, with the arrays that it starts with (`Decoder.start`); None: the model has none.
    """

    vit: Any  # the backbone as its own family knows it; what is used of it goes through `backbone`
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        modalities: int,
        head: PrototypeHead | LinearHead,
        joint_blocks: int,
        pooling: tuple[Pooling, Mapping[str, Tensor]] = (Mean(), {}),
        front: Front | None = None,
        decoder: tuple[Decoder, Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.vit = backbone.module  # registered here under the name that all files of arrays have
        self.width = width = backbone.width
        mean, std = backbone.pixels
        self.head = head
        self.joint_blocks = joint_blocks
        self.pooling, values = pooling
        self.pool = nn.ParameterDict({name: nn.Parameter(value) for name, value in values.items()})
        self.dense = None if decoder is None else decoder[0]
        self.decoder = nn.ParameterDict({name: nn.Parameter(value) for name, value in decoder[1].items()} if decoder else {})
        # The paper's has norm 1 from the start; from zero a frozen backbone first sees the tokens that it knows.
        self.modality_embedding = nn.Parameter(torch.zeros(modalities, width))
        self.mask_token = nn.Parameter(torch.zeros(width))
        # Over sqrt(D): a standardised part has norm sqrt(D), so that no value is beyond 1, whatever a secure round can carry.
        centre, projection = front or Front()
        self.feature_centre = None if centre is None else nn.Parameter(centre)
        self.projection = None if projection is None else nn.Parameter(projection)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.patch_size, self.thickness = backbone.patch, backbone.thickness
        self.backbone_name = ""
        self.backbone_sha256 = ""

    def forward(
        self,
        x: Tensor,
        present: Tensor,
        masks: Tensor | None = None,
        read: Tensor | None = None,
        covariates: Tensor | None = None,
        hidden: Tensor | None = None,
        *,
        dense: bool = False,
    ) -> Output:
        """One call for everything, so that `torch.func.functional_call` can lend the model other arrays (the teacher's).

        Args:
            x: [B, S, M, H, W], as in `features`.
            present: [B, M] bool, as in `features`.
            masks: [B, S, M, P] bool, as in `features`.
            read: [B, S, M, P] bool, the patch tokens whose prototype scores are wanted; None: none.
            covariates: [B, Q], NaN where one is missing; None: nothing is known.
            hidden: [B, M] bool, as in `alone`.
            dense: whether pixels are wanted, of a model with a decoder.
        """
        reads = self.dense.reads(len(self.backbone.blocks)) if dense and self.dense else ()
        (cls, patches), levels = self.levels(self.alone(x, present, masks, reads, hidden=hidden), present, reads)
        embedding = self.embed(cls, patches, present)
        marked = patches[read] if read is not None else patches.new_zeros(0, patches.shape[-1])
        pixels = self.decoded(x, present, masks, [levels[block] for block in reads]) if reads else None
        return Output(embedding, self.head(embedding, covariates), self.head.patches(marked), pixels)

    def decoded(self, x: Tensor, present: Tensor, masks: Tensor | None, levels: Sequence[Tensor]) -> Tensor:
        """The decoder's logits [B, S, H, W]; args as `features`, and tokens [B, S, M, P, D] of the blocks that it reads."""
        assert self.dense is not None
        B, S, M, H, W = x.shape
        h, w = H // self.patch_size, W // self.patch_size
        seen = present.view(B, 1, M, 1, 1)
        if masks is not None:  # what the student must not see as a token, it must not see as pixels either
            hidden = masks.view(B, S, M, h, w).repeat_interleave(self.patch_size, 3).repeat_interleave(self.patch_size, 4)
            seen = seen & ~hidden
        maps = [level.view(B * S, M, h, w, -1).permute(0, 1, 4, 2, 3) for level in levels]
        images, here = torch.where(seen, x, 0.0).flatten(0, 1), present.repeat_interleave(S, 0)
        return self.dense.logits(maps, images, here, dict(self.decoder)).view(B, S, H, W)

    def embed(self, cls: Tensor, patches: Tensor, present: Tensor) -> Tensor:
        """What the head sees: `patient_embedding` by the model's own pooling, behind the model's `Front`."""
        return self.reduced(patient_embedding(cls, patches, present, self.token_weights(patches)), present)

    def reduced(self, embedding: Tensor, present: Tensor) -> Tensor:
        """An embedding [B, E] behind the model's `Front`: [B, E], or [B, K] where it is projected."""
        return projected(self.centred(embedding, present), self.projection)

    def centred(self, embedding: Tensor, present: Tensor) -> Tensor:
        """An embedding [B, E] less the mean features of the parts that are there; the zeros of an absent modality stay."""
        return embedding if self.feature_centre is None else less_mean(embedding, present, self.feature_centre)

    def token_weights(self, patches: Tensor) -> Tensor | None:
        """`Pooling.weights` of patches [B, S, M, P, D], in float32; None: all alike."""
        with torch.autocast(patches.device.type, enabled=False):
            weights: Tensor | None = by_patient(lambda own, some: self.pooling.weights(some, own), dict(self.pool), patches)
            return weights

    def features(self, x: Tensor, present: Tensor, masks: Tensor | None = None) -> Features:
        """Run the backbone over every slice.

        Args:
            x: [B, S, M, H, W], intensities 0 to 1; absent modalities hold anything finite.
            present: [B, M] bool, at least one a patient.
            masks: [B, S, M, P] bool, patches that the student must not see; None: sees all.
        """
        return self.together(self.alone(x, present, masks), present)

    def alone(
        self, x: Tensor, present: Tensor, masks: Tensor | None = None, reads: Sequence[int] = (), *, hidden: Tensor | None = None
    ) -> Alone:
        """The blocks in which each modality sees itself only, as the backbone was trained.

        Args:
            x: as in `features`.
            present: as in `features`.
            masks: as in `features`.
            reads: numbers of blocks after which patch tokens are wanted as well.
            hidden: [B, M] bool, modalities of which `masks` leaves nothing: one is as good as another, and is computed for all.
                None: nobody knows, and each is computed.
        """
        prefix, tokens, rope = self.tokens(x, masks)
        if not self.apart:
            return Alone(prefix, tokens, rope)
        (B, S, M, P, D), first = tokens.shape, prefix.shape[1]
        found = tokens.new_zeros(B, S, M, first + P, D)
        levels = {block: torch.zeros_like(tokens) for block in reads if block <= self.apart}
        index = present.unsqueeze(1).expand(-1, S, -1).nonzero(as_tuple=True)  # of n series of tokens, each of one modality
        chosen, place = (index, None) if hidden is None else _unlike(index, hidden)
        z = tokens[chosen]
        z = torch.cat([prefix.expand(len(z), -1, -1), z], dim=1)
        for begin, end in _stretches(0, self.apart, reads):
            z = self.encode(z, begin, end, rope)
            everyone = z if place is None else z[place]
            if end in levels:
                levels[end] = levels[end].index_put(index, everyone[:, first:].to(tokens.dtype))
        found = found.index_put(index, everyone.to(found.dtype))
        return Alone(found[..., :first, :], found[..., first:, :], rope, levels)

    def encode(self, z: Tensor, start: int, stop: int, rope: Tensor | None) -> Tensor:
        """`Backbone.encode`; without gradients on a CPU in pieces: memory too large to be used again costs a fifth of it."""
        if torch.is_grad_enabled() or z.device.type != "cpu" or not len(z):
            return self.backbone.encode(z, start, stop, rope)
        pieces = z.split(max(1, PIECE // (HIDDEN * z[0].nbytes)))
        return torch.cat([self.backbone.encode(piece, start, stop, rope) for piece in pieces])

    def together(self, alone: Alone, present: Tensor) -> Features:
        """The blocks in which modalities attend to each other.

        Where they meet, the prefix tokens of a slice's modalities are averaged, and their patches stand in one sequence.

        Args:
            alone: of all these modalities, or of more.
            present: [B, M] bool, at least one a patient.
        """
        return self.levels(alone, present)[0]

    def levels(self, alone: Alone, present: Tensor, reads: Sequence[int] = ()) -> tuple[Features, dict[int, Tensor]]:
        """`together`, and patch tokens [B, S, M, P, D] by number of blocks; of blocks before the meeting they are in `alone`."""
        B, S, _, P, D = alone.patches.shape
        cls, depth = alone.patches.new_zeros(B, S, D), len(self.backbone.blocks)
        # In this order in memory: a mean sums in it.
        found = {block: alone.patches.new_zeros(alone.patches.shape) for block in {depth, *reads} if block > self.apart}
        for rows, count, index in _groups(present, S):
            prefix = alone.prefix[index].mean(2).flatten(0, 1) if self.apart else alone.prefix.expand(len(rows) * S, -1, -1)
            z = torch.cat([prefix, alone.patches[index].reshape(len(rows) * S, count * P, D)], dim=1)
            positions = None if alone.rope is None else alone.rope.repeat(count, 1)  # every modality has the same ones
            for begin, end in _stretches(self.apart, depth, reads):
                z = self.encode(z, begin, end, positions)
                group = z[:, prefix.shape[1] :].reshape(len(rows), S, count, P, D)
                found[end] = found[end].index_put(index, group.to(alone.patches.dtype))
            cls = cls.index_copy(0, rows, z.view(len(rows), S, -1, D)[:, :, 0].to(cls.dtype))
        return Features(cls, found[depth]), {**alone.levels, **found}

    def pixels(self, x: Tensor) -> Tensor:
        """Slices [..., H, W] as the backbone's images [n, 3, H, W]; of one of volumes [..., S, H, W] as [n, S, H, W]."""
        return (pictures if self.thickness == 1 else volumes)(x, self.pixel_mean, self.pixel_std)

    def tokens(self, x: Tensor, masks: Tensor | None) -> Tokens:
        """x [B, S, M, H, W] to the prefix [1, R, D] and patch tokens [B, S, M, P, D] with all embeddings added."""
        B, _, M = x.shape[:3]
        grid = grid_of(self.backbone, x, self.pixels)  # [B S M, h, w, D]; of volumes from here on layers of patches are slices
        if masks is not None:
            hidden = masks.reshape(*grid.shape[:3], 1)
            grid = by_patient(_masked, {"token": self.mask_token}, grid, hidden)
        prefix, patches, rope = self.backbone.tokens(grid)
        patches = patches.view(B, -1, M, *patches.shape[-2:])
        return Tokens(prefix, by_patient(_told_apart, {"embedding": self.modality_embedding}, patches), rope)

    @property
    def apart(self) -> int:
        """How many of the first blocks see each modality by itself."""
        return len(self.backbone.blocks) - self.joint_blocks if self.joint_blocks else 0


def _masked(values: Mapping[str, Tensor], grid: Tensor, hidden: Tensor) -> Tensor:
    """Patch embeddings [n, h, w, D], the mask token in the place of those that are hidden [n, h, w, 1]."""
    return torch.where(hidden, values["token"].to(grid.dtype), grid)


def _told_apart(values: Mapping[str, Tensor], patches: Tensor) -> Tensor:
    """Patch tokens [B, S, M, P, D] with the embeddings [M, D] of their modalities."""
    return patches + values["embedding"].unsqueeze(1)


def _stretches(start: int, stop: int, reads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Blocks from `start` to `stop` in pieces that end where tokens are read."""
    yield from pairwise([start, *sorted({block for block in reads if start < block < stop}), stop])


def _unlike(index: tuple[Tensor, ...], hidden: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Which series of tokens must be computed, of those at `index`, and for each of all its place among them.

    Of a hidden modality a slice shows no patient, only where it stands among the slices.
    """
    rows, slices, modalities = index
    number = torch.arange(len(rows), device=rows.device)
    whole = hidden[rows, modalities]
    alike = torch.where(whole, -1 - (slices * hidden.shape[1] + modalities), number)
    _, place = alike.unique(return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(rows), device=rows.device).scatter_reduce(0, place, number, "amin")
    return (rows[first], slices[first], modalities[first]), place


def _groups(present: Tensor, slices: int) -> Iterator[tuple[Tensor, int, tuple[Tensor, Tensor, Tensor]]]:
    """Patients with equally many modalities: rows [b], how many, and the index of their tokens in [B, S, M], to [b, S, count]."""
    counts, every = present.sum(1), torch.arange(slices, device=present.device).view(1, slices, 1)
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero().squeeze(1)
        kept = present[rows].nonzero()[:, 1].view(-1, 1, count)  # ascending modality numbers
        yield rows, count, (rows.view(-1, 1, 1), every, kept)
