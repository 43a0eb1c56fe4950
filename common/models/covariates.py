"""Clinical covariates as a late input: a linear map from what is known of a patient to class logits, added to the cosines.

Why late, linear, and beside the head, not inside it:
- A covariate beside E = (1 + M) D image features would be one number in a thousand, and the head's unit sphere would divide what
  it adds by the length of the rest: how much an age of 80 counts would depend on the images. Added to the logits it is a piece of
  evidence by itself (a prior that the images then change), which one number a class describes: what it did can be read off.
- The map starts at zero, and a missing covariate adds zero: nothing known is, to the bit, the model without covariates.
- A few numbers: a federation averages them exactly, noise for privacy barely touches them, and a dozen patients do not overfit.
- Head rounds teach it from a copy of each patient without images, too (`common.training.probing`). Rounds on views teach it
  beside images alone, and little: a run with covariates wants `training.head_rounds`.
What it cannot say is that a finding means another thing in the old. A dozen patients of a class could not teach that.

B patients, Q covariates, C classes, F features of the covariates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.config.covariates import LIMIT, Covariate

# Adam moves a weight by the rate in a step, whatever the gradient's size: at 1, eighty steps of 1e-3 make 15 years of age worth
# 0.8 of a logit at most (temperature 0.1), and runs with fewer or smaller steps would hardly hear of it. On patients held back
# inside the training hospitals (three real ones in turn, DeiT-Tiny, head rounds) 3 and 10 gave the same log-loss, 0.78; 0.92
# without age, and 0.85 to 0.88 where nothing but copies with images taught it (`common.training.probing`).
GAIN = 3.0


class CovariateLogits(nn.Module):
    """Covariates to what is added to the class cosines.

    Args:
        covariates: Q, of the run.
        classes: C.
    """

    def __init__(self, covariates: Sequence[Covariate], classes: int) -> None:
        super().__init__()
        self.rows = tuple(covariates)
        features = sum(len(row.values) or 2 for row in self.rows)
        self.weight = nn.Parameter(torch.zeros(classes, features))

    def forward(self, covariates: Tensor) -> Tensor:
        """[B, Q], NaN where one is missing, to [B, C]; zeros for a patient of whom nothing is known."""
        return self.added(covariates, self.weight)

    def added(self, covariates: Tensor, weight: Tensor) -> Tensor:
        """`forward` with another weight [C, F]."""
        with torch.autocast(covariates.device.type, enabled=False):
            return nn.functional.linear(GAIN * self.features(covariates), weight.float())

    def features(self, covariates: Tensor) -> Tensor:
        """[B, F]: of a number its standardised value beside 1, of a category one 1 among zeros; zeros where it is missing."""
        columns = covariates.float().split(1, dim=-1)
        return torch.cat([_features(row, column) for row, column in zip(self.rows, columns, strict=True)], dim=-1)


def with_known(logits: Tensor, part: CovariateLogits | None, covariates: Tensor | None) -> Tensor:
    """A head's outputs [B, K], and what is known of the patients [B, Q] added to those of the classes.

    Args:
        logits: of the images.
        part: None: the model takes no covariates.
        covariates: None or [B, 0]: nothing is known.
    """
    if part is None or covariates is None or not covariates.shape[-1]:
        return logits
    known: Tensor = part(covariates)
    return logits + nn.functional.pad(known, (0, logits.shape[-1] - known.shape[-1]))


def _features(row: Covariate, column: Tensor) -> Tensor:
    """One covariate, [B, 1] to [B, 2] or [B, values]."""
    if row.values:
        return (column == torch.arange(len(row.values), device=column.device)).float()
    known = ~column.isnan()
    value = ((column - row.centre) / row.scale).clamp(-LIMIT, LIMIT)
    return torch.cat([torch.where(known, value, torch.zeros_like(value)), known.float()], dim=-1)
