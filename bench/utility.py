"""What privacy costs in accuracy: the private recipe at several epsilons beside itself without privacy, on the same hospitals.

    python bench/utility.py OUT.json --config private --data DIR --folds external --epsilons 1 2 4 8 --seeds 0 1 2
    python bench/utility.py OUT.json --plot docs/privacy-utility.svg

Sites train in this program (`simulation.in_process`). What is done is kept in OUT.json: an interrupted run goes on.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from kept import identity, run_kept
from matplotlib import pyplot
from numpy.typing import NDArray
from torch.func import functional_call

from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.metrics.classification import evaluate
from common.models.arrays import Arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.privacy.accounting import epsilon_of, noise_for
from common.privacy.charge import Charge
from common.training.predict import predict
from common.training.private_probing import Features, embed_patients
from simulation.baselines import open_patients
from simulation.in_process import federate


@dataclass(frozen=True)
class Job:
    """One federation for each fold, in plain values that a new process can take."""

    epsilon: float | None  # of each patient over the whole run; None: without privacy
    config: str
    data: Path
    folds: tuple[str, ...]
    cache: Path

    @property
    def name(self) -> str:
        """Under which its result is kept."""
        return f"epsilon {self.epsilon or 'none'}, seed {config_from_json(self.config).seed}"


def private_at(config: RunConfig, epsilon: float) -> RunConfig:
    """The recipe with the noise that keeps every patient within epsilon."""
    plan = config.privacy
    noise = noise_for(epsilon, plan.delta, plan.sample_rate, plan.steps * config.federation.rounds)
    return replace(config, privacy=replace(plan, noise_multiplier=noise))


def without_noise(config: RunConfig, seed: int) -> RunConfig:
    """The private recipe, sampling and clipping included, but no noise."""
    return replace(config, seed=seed, privacy=replace(config.privacy, noise_multiplier=0.0))


def without_privacy(config: RunConfig, seed: int, patients: int) -> RunConfig:
    """The recipe in the clear: the same batches and steps in tuned rounds; head rounds fit the head on all labelled patients."""
    batch = max(1, round(config.privacy.sample_rate * patients))
    epochs = max(1, round(config.privacy.steps * config.privacy.sample_rate))
    training = replace(config.training, batch_size=batch, local_epochs=epochs)
    objective = config.objective.without("consistency")
    return replace(config, seed=seed, training=training, objective=objective, privacy=replace(config.privacy, enabled=False))


def run_job(job: Job) -> dict[str, Any]:
    """Train, predict each fold's external patients, and measure all of them together."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    names = sorted(folder.name for folder in find_sites(job.data))
    sites = {name: _open(job, config, name) for name in names}
    labels, answers = [], []
    for fold in job.folds:
        external = fold.split("+")
        model = build_model(config)
        trained = {name: split(sites[name], config.evaluation.holdout)[0] for name in names if name not in external}
        arrays = federate(model, trained, config)
        for name in external:
            labels.append(sites[name].labels)
            answers.append(answer(model, arrays, sites[name], config))
    generator = np.random.default_rng(config.seed)
    found = evaluate(
        np.concatenate(labels),
        np.concatenate(answers),
        config.task.classes,
        bootstrap=config.evaluation.bootstrap,
        generator=generator,
    )
    plan = config.privacy
    charge = Charge(plan.noise_multiplier, plan.sample_rate, plan.steps * config.federation.rounds)
    spent = epsilon_of([charge], plan.delta) if plan.enabled and plan.noise_multiplier else None
    return {
        "epsilon": job.epsilon,
        "spent": spent,
        "noise_multiplier": plan.noise_multiplier if plan.enabled else 0.0,
        "seed": config.seed,
        "n": found["n"],
        "mcc": found["mcc"],
        "auroc": found["auroc"]["macro"],
    }


def answer(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    embed: Callable[[TrainedModel, SiteData], Features] = embed_patients,
) -> NDArray[np.float64]:
    """Probabilities [N, C]; where the head alone was trained, from the features that are there already."""
    if config.training.head_rounds < config.federation.rounds:
        return predict(TrainedModel(model, arrays, config), patients)
    features = embed(TrainedModel(model, arrays, config), patients).embeddings[:, 0]
    head = {name.removeprefix("head."): torch.tensor(a) for name, a in arrays.items() if name.startswith("head.")}
    classes = len(config.task.classes)
    with torch.no_grad():
        logits = functional_call(model.head, head, (features, torch.from_numpy(patients.covariates)))[:, :classes]
    return np.asarray((logits.double() / config.objective.student_temperature).softmax(-1))


def _open(job: Job, config: RunConfig, name: str) -> SiteData:
    site = read_site(job.data / name, config, simulated=True)
    return open_patients(site, config, job.cache)


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet."""
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    cache = default_cache() / "slices"
    private = [(e, private_at(config, e)) for e in sorted(arguments.epsilons, reverse=True)]
    jobs = []
    for seed in arguments.seeds:
        jobs += [Job(e, replace(c, seed=seed).to_json(), arguments.data, tuple(arguments.folds), cache) for e, c in private]
        if arguments.noiseless:
            jobs.append(Job(None, without_noise(config, seed).to_json(), arguments.data, tuple(arguments.folds), cache))
            continue
        sizes = [len(read_site(f, config, simulated=True).cases) for f in find_sites(arguments.data)]
        plain = without_privacy(config, seed, round(float(np.median(sizes))))
        jobs.append(Job(None, plain.to_json(), arguments.data, tuple(arguments.folds), cache))
    reference = "no noise" if arguments.noiseless else "plain training"
    known = identity(config, data=arguments.data.name, folds=list(arguments.folds), reference=reference)
    by_name = {job.name: job for job in jobs}
    run_kept(arguments.out, known, run_job, by_name, arguments.workers, lambda run: f"MCC {run['mcc']['value']:.3f}")


def plot(results: dict[str, Any], out: Path) -> None:
    """External MCC over epsilon: every seed a dot, their mean a line."""
    pyplot.switch_backend("Agg")
    runs = list(results["runs"].values())
    epsilons = sorted({run["epsilon"] for run in runs if run["epsilon"]})
    places = {**{epsilon: i for i, epsilon in enumerate(epsilons)}, None: len(epsilons)}
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot([places[r["epsilon"]] for r in runs], [r["mcc"]["value"] for r in runs], "o", color="#8aa4b8", label="one seed")
    means = [(places[e], np.mean([r["mcc"]["value"] for r in runs if r["epsilon"] == e])) for e in places]
    axes.plot(*zip(*means, strict=True), "-D", color="#1d4e6f", label="mean")
    axes.axhline(0.8 * means[-1][1], linestyle=":", color="#a04a2f", label="80% of the mean without privacy")
    axes.set_xticks(list(places.values()), [*(f"{e:g}" for e in epsilons), "none"])
    axes.set(xlabel="epsilon of each patient", ylabel="external MCC", ylim=(min(0.0, axes.get_ylim()[0]), None))
    axes.legend(frameon=False)
    matplotlib.rcParams["svg.hashsalt"] = "fedmri"  # equal figures give equal bytes
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="private")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folds", nargs="+", default=["external"], help="external sites; joined by +, left out together")
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--noiseless", action="store_true", help="beside it, the private recipe without noise, not plain training"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="only draw what OUT holds")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(json.loads(arguments.out.read_text(encoding="utf-8")), arguments.plot)
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
