"""Compare other sparse activations and additional losses with those of the preset.

    python -m tests.benchmarks.sparsity COLLECTION --train OTHER --track caption --epochs 6

Uses only validation items and tuning pairs, as `tests.benchmarks.ablation`. All variants have at
most k active dimensions per item, so that their codes take the same space.

- BatchTopK (Bussmann et al. 2024, arXiv 2412.06410): in training, the k·B largest activations of a
  batch.
- JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): a learned threshold for each dimension,
  with straight-through gradients, and a penalty that keeps the mean number of active ones at k.
- Nested prefixes (Matryoshka; Bussmann et al. 2025, arXiv 2503.17547): the first eighth, quarter
  and half of the dimensions must also reconstruct the embedding.
- Paired groups: Σ_j |(ū_j, v̄_j)| of an image's and its caption's unit codes, a group lasso.
- Centres: none, or one for both modalities.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sieve.data_prep.bundled import locate_collection
from sieve.model.backbone.clip import backbone_of
from sieve.model.benchmark.methods import BackboneEmbeddings
from sieve.model.collection import Collection
from sieve.model.encoder import ActiveCode, SparseEncoder, keep_top
from sieve.model.hyperparameters import IMAGE, LOSSES, LOSSES_OF_OBJECTIVE, TEXT, TrainingConfig
from sieve.model.training.data import Batch, TrainingData, modality_means
from sieve.model.training.losses import reconstruction
from sieve.model.training.objectives import OBJECTIVES, Compact, StepLosses, TrainingModule
from sieve.model.training.trainer import Trainer
from tests.benchmarks.ablation import arguments, measure, print_row, select_questions, subtraction

_BANDWIDTH = 0.03
"""Bandwidth of the gradient of a threshold; about a tenth of a typical activation."""


class BatchTopK(Compact):
    """BatchTopK: the k·B largest activations of a batch."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Select over the batch in training; at inference, select the k largest of each row."""
        super().begin(encoder)
        encoder.keep = _keep_of_batch


def _keep_of_batch(activations: Tensor, k: int) -> Tensor:
    return keep_top(activations.flatten()[None], k * len(activations)).view_as(activations)


class _Jump(torch.autograd.Function):
    """x·H(x - θ), and H(x - θ) itself; θ's gradient through a box of a small width."""

    @staticmethod
    def forward(ctx, x: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN001
        ctx.save_for_backward(x, threshold)
        above = (x > threshold).to(x.dtype)
        return x * above, above

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN001
        of_value, of_above = gradients
        x, threshold = ctx.saved_tensors
        near = ((x - threshold).abs() < _BANDWIDTH / 2).to(x.dtype) / _BANDWIDTH
        moved = -near * (threshold * of_value + of_above)
        return of_value * (x > threshold), moved.sum(0)


class _More(Compact):
    """The preset's losses and one more, which is added to the reconstruction loss (weight 1)."""

    def losses(self, module: TrainingModule, batch: Batch, k: int, *rest: Any) -> StepLosses:
        """Add the loss of `more`."""
        losses, fired = super().losses(module, batch, k, *rest)
        encoder = module.encoder
        sides = []
        for given, modality in ((batch.images, IMAGE), (batch.texts, TEXT)):
            target = encoder.centred(given, modality)
            sides.append((encoder.activations(target, modality), target))
        losses["reconstruct"] = losses["reconstruct"] + self.more(encoder, sides, k)
        return losses, fired

    def more(self, encoder: SparseEncoder, sides: list[tuple[Tensor, Tensor]], k: int) -> Tensor:
        """Return the added loss, (), of both modalities: activations (B, m) and targets (B, d)."""
        raise NotImplementedError


class JumpReLU(_More):
    """JumpReLU: a learned threshold for each dimension."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Add thresholds to the encoder: e^t times the bandwidth, with t = 0 initially."""
        super().begin(encoder)
        encoder.register_parameter("threshold", nn.Parameter(torch.zeros(encoder.config.m)))
        encoder.keep = lambda activations, k: self._jump(encoder, activations)[0]  # noqa: ARG005
        encoder.encode = partial(self._encode, encoder)

    def more(self, encoder: SparseEncoder, sides: list[tuple[Tensor, Tensor]], k: int) -> Tensor:
        """Return the difference between the mean number of active dimensions and k, squared."""
        counts = [self._jump(encoder, activations)[1].sum(1) for activations, _ in sides]
        return (torch.cat(counts).mean() / k - 1).square()

    @staticmethod
    def _jump(encoder: SparseEncoder, activations: Tensor) -> tuple[Tensor, Tensor]:
        return _Jump.apply(activations, _BANDWIDTH * encoder.get_parameter("threshold").exp())

    def _encode(self, encoder: SparseEncoder, embeddings: Tensor, modality: str) -> ActiveCode:
        active = encoder.activations(encoder.centred(embeddings, modality), modality)
        saved = self._jump(encoder, active)[0]
        return ActiveCode(*torch.topk(saved, encoder.config.active(modality), dim=-1))


class Nested(_More):
    """Prefixes of the dimensions also reconstruct the embedding."""

    def more(self, encoder: SparseEncoder, sides: list[tuple[Tensor, Tensor]], k: int) -> Tensor:
        """Return the mean loss over an eighth, a quarter and a half of the dimensions."""
        codes = [(encoder.keep(activations, k), target) for activations, target in sides]
        directions = functional.normalize(encoder.decode_md, dim=1)
        prefixes = [encoder.config.m // part for part in (8, 4, 2)]
        return sum(
            (reconstruction(code[:, :p] @ directions[:p], target) for p in prefixes
             for code, target in codes), torch.zeros(())
        ) / (2 * len(prefixes))  # fmt: skip


class Groups(_More):
    """Group lasso over the codes of an image and its caption."""

    weight = 0.2

    def more(self, encoder: SparseEncoder, sides: list[tuple[Tensor, Tensor]], k: int) -> Tensor:
        """Return the mean group lasso of the pairs."""
        codes = (encoder.keep(activations, k) for activations, _ in sides)
        image, text = (functional.normalize(code, dim=1) for code in codes)
        return self.weight * (image.square() + text.square() + 1e-8).sqrt().sum(1).mean()


class MoreGroups(Groups):
    """The same with a larger weight."""

    weight = 1.0


class NotCentred(Compact):
    """Embeddings without centring."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Set no centre."""
        encoder.centre.zero_()


class CentredTogether(Compact):
    """One centre for both modalities."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Set both centres to the mean of the two means."""
        centres = torch.from_numpy(modality_means(self.data.collection))
        encoder.centre.copy_(centres.mean(0, keepdim=True).expand(2, -1))


KINDS: dict[str, type[Compact]] = {
    "compact": Compact,
    "BatchTopK": BatchTopK,
    "JumpReLU": JumpReLU,
    "nested prefixes": Nested,
    "paired groups, weight 0.2": Groups,
    "paired groups, weight 1": MoreGroups,
    "not centred": NotCentred,
    "centred together": CentredTogether,
}


def train_kind(
    name: str, collection: Collection, config: TrainingConfig, source: BackboneEmbeddings
) -> SparseEncoder:
    """Train one variant."""
    data = TrainingData(collection, source.texts, config)
    trainer = Trainer(data, replace(config, objective=name), torch.device("cpu"))
    for _ in range(trainer.n_steps):
        trainer.train_step()
    return trainer.export()


def main() -> None:
    """Train every variant and print its metrics."""
    parser = arguments(__doc__)
    parser.add_argument("--train", help="collection to train on")
    parser.add_argument(
        "--only", default=";".join(KINDS), help="semicolon-separated names of the variants"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    OBJECTIVES.update(KINDS)
    LOSSES_OF_OBJECTIVE.update(dict.fromkeys(KINDS, LOSSES))
    collection = Collection.open(locate_collection(args.collection))
    train = Collection.open(locate_collection(args.train)) if args.train else collection
    source = BackboneEmbeddings(collection, backbone_of(collection).encode_texts, train)
    questions = select_questions(collection, args.track)
    baseline = subtraction(source, questions)
    for name in args.only.split(";"):
        encoders = [
            train_kind(name, train, TrainingConfig(epochs=args.epochs, seed=int(seed)), source)
            for seed in args.seeds.split(",")
        ]
        print_row(name, measure(source, encoders, questions), baseline)


if __name__ == "__main__":
    main()
