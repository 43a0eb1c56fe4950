"""`fedmri-sim protocols`: what a backbone is worth, frozen and trained, by the protocols of the studies behind this project."""

import argparse
import json
from pathlib import Path

from common.cli import add_debug, output, settings_of
from common.errors import ConfigError
from simulation.shown import Shown

# Each protocol has its own adapter, or none, and learns by labels alone: what a run would have must not refuse a backbone here.
UNUSED = ("model.adapter=head", "objective.terms.ibot.weight=0", "federation.unlabelled=true")  # a study asks for labels itself
# What each trained protocol sets for itself, whatever the configuration says.
OWN = ("adapter", "train_norms", "train_tokens", "learning_rate", "local_epochs", "ssl_rounds", "rounds")


def add_protocols(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "protocols", help="kNN, probe, few-shot, adapters, fine-tuning", description=run_protocols_command.__doc__
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of site folders")
    parser.add_argument("--external", required=True, metavar="SITE", help="held-out site; several joined by +")
    parser.add_argument("--config", default="demo", metavar="NAME", help="a name under configs/, or a TOML file (default demo)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for protocols.md, .svg, .json, answers.json")
    parser.add_argument("--cache", type=Path, default=None, metavar="DIR", help="where prepared slices are kept")
    parser.add_argument(
        "--protocols",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of knn, probe, few-shot, head, bitfit, lora, bottleneck, full (default all)",
    )
    parser.add_argument("--federated", action="store_true", help="kNN, probe and few-shot by sums that leave the sites, too")
    parser.add_argument("--fusion", nargs="+", default=[], metavar="MODALITY", help="three as colours (default t1c t2 flair)")
    parser.add_argument("--k", type=int, default=5, help="neighbours (default 5)")
    parser.add_argument("--temperature", type=float, default=0.07, help="of the neighbours' votes (default 0.07)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="patients a class (default 1 2 4 8 16)")
    parser.add_argument("--draws", type=int, default=10, help="of few-shot patients (default 10)")
    parser.add_argument("--epochs", type=int, default=5, help="of training, after the head rounds (default 5)")
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1e-4, 1e-3],
        help="learning rates, end to end a tenth of each (default 1e-4 1e-3)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(parser)
    parser.set_defaults(handler=run_protocols_command, unlabelled=False)


def run_protocols_command(arguments: argparse.Namespace) -> int:
    """Learn from every site under DIR but the external one, which answers once: on frozen features (knn, probe, few-shot), and by
    training a head, an adapter or the whole backbone (head, bitfit, lora, bottleneck, full). What is chosen is chosen by training
    patients.
    """
    from common.data.cache import default_cache
    from simulation.experiment import plan_experiment
    from simulation.protocols.registry import CENTRAL, FEDERATED, Settings
    from simulation.protocols.study import FIGURE, TABLE, require_fit, run_study
    from simulation.protocols.tuned import TUNED, Tuning

    if not 1 <= arguments.draws <= 1000:
        raise ConfigError(f"--draws: expected 1 to 1000, got {arguments.draws}.")
    shots = tuple(dict.fromkeys(arguments.shots))
    asked = Settings(arguments.k, arguments.temperature, shots, arguments.draws)
    for make in CENTRAL.values():
        make(asked)  # refuses settings by name, of protocols that are not asked for, too
    known = (*CENTRAL, *TUNED)
    unknown = [name for name in arguments.protocols if name not in known]
    if unknown:
        raise ConfigError(f"--protocols: expected some of {', '.join(known)}; got {', '.join(unknown)}.")
    names = tuple(dict.fromkeys(arguments.protocols or known))
    makes = [CENTRAL[name] for name in names if name in CENTRAL]
    makes += [FEDERATED[f"federated-{name}"] for name in names if name in CENTRAL] if arguments.federated else ()
    if arguments.federated and not makes:
        raise ConfigError(
            f"--federated: expected some of {', '.join(CENTRAL)} among --protocols. Adapters train federated by fedmri-sim run."
        )
    tuned, tuning = [name for name in names if name in TUNED], Tuning(arguments.epochs, tuple(dict.fromkeys(arguments.rates)))
    protocols = [protocol for make in makes for protocol in make(asked)]
    cache = (arguments.cache or default_cache() / "slices").expanduser().resolve()
    settings = (*settings_of(arguments), *UNUSED)
    given = (arguments.config, settings, arguments.data, arguments.external, arguments.out)
    plan = plan_experiment(*given, cache, fits=lambda config: require_fit(config, arguments.fusion))
    with Shown() as shown:
        if without := [setting for setting in arguments.set if _named(setting) in OWN]:
            own = "Each protocol has its own adapter and rates (--rates, --epochs)."
            shown.note(f"Without effect here: {', '.join(without)}. {own}")
        try:
            table = run_study(plan, protocols, arguments.fusion, shown.note, shown.progress, tuned, tuning)
        except (KeyboardInterrupt, SystemExit):  # by hand, or by SIGTERM
            shown.note(f"What was trained so far is kept in {plan.out}. To go on: the same command.")
            raise
    if arguments.json:
        print(json.dumps({**table, "out": str(arguments.out)}))
        return 0
    places = f"Table: {arguments.out / TABLE}; figure: {arguments.out / FIGURE}"
    for text in ((plan.out / TABLE).read_text(encoding="utf-8"), places):
        output().print(text, soft_wrap=True, markup=False, highlight=False)
    return 0


def _named(setting: str) -> str:
    """The last word of a setting's name: `adapter` of `model.adapter=lora` and of `adapter=lora`."""
    return setting.partition("=")[0].strip().rpartition(".")[2]
