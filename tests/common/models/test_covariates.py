"""What covariates add to the class logits: the closed form, nothing for what is missing, nothing at the start."""

import numpy as np
import pytest
import torch
from torch.func import functional_call, vmap

from common.config.run import RunConfig, config_from_table
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.covariates import GAIN, CovariateLogits

NAN = float("nan")


def config_of(*covariates: str) -> RunConfig:
    model = {"backbone": "fedmri_vit_mini", "weights": "random", "head_hidden": 0, "prototypes": 4}
    return config_from_table({"data": {"size": 32, "slices": 2, "covariates": list(covariates)}, "model": model})


def test_the_features() -> None:
    part = CovariateLogits(config_of("age", "sex").data.covariates, 3)
    found = part.features(torch.tensor([[65.0, 0.0], [35.0, 1.0], [NAN, 1.0], [80.0, NAN], [NAN, NAN], [1e9, 0.0]]))
    expected = [[1, 1, 1, 0], [-1, 1, 0, 1], [0, 0, 0, 1], [2, 1, 0, 0], [0, 0, 0, 0], [4, 1, 1, 0]]
    assert found.tolist() == expected


def test_logits_are_the_cosines_and_a_linear_map() -> None:
    model = build_model(config_of("age")).eval()
    weight = torch.tensor([[0.2, -0.1], [0.0, 0.3], [-0.4, 0.1]])
    z, covariates = torch.randn(3, 5 * model.width), torch.tensor([[65.0], [NAN], [20.0]])
    with torch.no_grad():
        alone = model.head(z)
        told = functional_call(model.head, {"covariates.weight": weight}, (z, covariates))
    for row, years in enumerate((65.0, None, 20.0)):
        for c in range(3):
            added = 0.0 if years is None else GAIN * float(weight[c] @ torch.tensor([(years - 50) / 15, 1.0]))
            assert float(told[row, c] - alone[row, c]) == pytest.approx(added, abs=1e-5)
    torch.testing.assert_close(told[:, 3:], alone[:, 3:], rtol=0, atol=0)  # prototypes that are no classes


def test_the_start_is_the_model_without_covariates_to_the_bit() -> None:
    with_age, without = build_model(config_of("age", "sex")), build_model(config_of())
    told, untold = get_arrays(with_age), get_arrays(without)
    assert set(told) - set(untold) == {"head.covariates.weight"}
    assert told["head.covariates.weight"].shape == (3, 4)
    assert not told["head.covariates.weight"].any()
    for name, array in untold.items():
        np.testing.assert_array_equal(array, told[name])
    x, present = torch.rand(2, 2, 4, 32, 32), torch.ones(2, 4, dtype=torch.bool)
    logits = [with_age.eval()(x, present, covariates=c).logits for c in (torch.tensor([[60.0, 1.0], [NAN, 0.0]]), None)]
    for found in logits:
        assert torch.equal(found, without.eval()(x, present).logits)


def test_one_patient_at_a_time_is_all_of_them() -> None:
    part = CovariateLogits(config_of("age", "sex").data.covariates, 3)
    torch.nn.init.normal_(part.weight)
    covariates = torch.tensor([[65.0, NAN], [NAN, 1.0], [30.0, 0.0]])
    torch.testing.assert_close(vmap(lambda row: part(row.unsqueeze(0))[0])(covariates), part(covariates))
