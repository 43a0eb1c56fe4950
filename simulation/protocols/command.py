"""`fedmri-sim protocols`: what frozen features are worth, by the protocols of the studies behind this project."""

import argparse
import json
from pathlib import Path

from common.cli import add_debug, output, settings_of
from common.errors import ConfigError
from simulation.shown import Shown


def add_protocols(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "protocols", help="kNN, linear probe and few-shot on frozen features", description=run_protocols_command.__doc__
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of site folders")
    parser.add_argument("--external", required=True, metavar="SITE", help="held-out site; several joined by +")
    parser.add_argument("--config", default="demo", metavar="NAME", help="a name under configs/, or a TOML file (default demo)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for protocols.md, protocols.json, answers.json")
    parser.add_argument("--cache", type=Path, default=None, metavar="DIR", help="where prepared slices are kept")
    parser.add_argument("--protocols", nargs="+", default=[], metavar="NAME", help="knn, probe, few-shot (default all)")
    parser.add_argument("--federated", action="store_true", help="also kNN and the probe by sums that leave the sites")
    parser.add_argument("--fusion", nargs="+", default=[], metavar="MODALITY", help="three as colours (default t1c t2 flair)")
    parser.add_argument("--k", type=int, default=5, help="neighbours (default 5)")
    parser.add_argument("--temperature", type=float, default=0.07, help="of the neighbours' votes (default 0.07)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="patients a class (default 1 2 4 8 16)")
    parser.add_argument("--draws", type=int, default=10, help="of few-shot patients (default 10)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(parser)
    parser.set_defaults(handler=run_protocols_command, unlabelled=False)


def run_protocols_command(arguments: argparse.Namespace) -> int:
    """Learn from the frozen features of every site under DIR but the external one, which answers once. Nothing of the backbone is
    trained.
    """
    from common.data.cache import default_cache
    from simulation.experiment import plan_experiment
    from simulation.protocols.registry import CENTRAL, FEDERATED, Settings
    from simulation.protocols.study import TABLE, run_study

    if not 1 <= arguments.draws <= 1000:
        raise ConfigError(f"--draws: expected 1 to 1000, got {arguments.draws}.")
    shots = tuple(dict.fromkeys(arguments.shots))
    asked = Settings(arguments.k, arguments.temperature, shots, arguments.draws)
    unknown = [name for name in arguments.protocols if name not in CENTRAL]
    if unknown:
        raise ConfigError(f"--protocols: expected some of {', '.join(CENTRAL)}; got {', '.join(unknown)}.")
    makes = [CENTRAL[name] for name in dict.fromkeys(arguments.protocols or CENTRAL)]
    makes += FEDERATED.values() if arguments.federated else ()
    protocols = [protocol for make in makes for protocol in make(asked)]
    cache = (arguments.cache or default_cache() / "slices").expanduser().resolve()
    given = (arguments.config, settings_of(arguments), arguments.data, arguments.external, arguments.out)
    plan = plan_experiment(*given, cache)
    with Shown() as shown:
        table = run_study(plan, protocols, arguments.fusion, shown.note, shown.progress)
    if arguments.json:
        print(json.dumps({**table, "out": str(arguments.out)}))
        return 0
    file = plan.out / TABLE
    output().print(file.read_text(encoding="utf-8"), soft_wrap=True, markup=False, highlight=False)
    output().print(f"Table: {arguments.out / TABLE}", soft_wrap=True, markup=False, highlight=False)
    return 0
