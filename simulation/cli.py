"""`fedmri-sim`: the researcher's command."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from common.cli import add_debug, add_unlabelled, config_path, run_command, settings_of
from common.config.run import RunConfig, load_config
from common.errors import ConfigError
from common.files import write_atomic
from simulation.cluster import Cluster
from simulation.engines import DEFAULT_ENGINE, ENGINES, RAY, WORDS
from simulation.marked_processes import terminable
from simulation.phantom.command import add_phantom
from simulation.protocols.command import add_protocols
from simulation.shown import Shown

if TYPE_CHECKING:
    from simulation.experiment_plan import Experiment


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="fedmri-sim", description="Federations on one machine: phantoms, real folders, baselines."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add_phantom(verbs)
    _add_run(verbs)
    _add_cross_site(verbs)
    _add_sweep(verbs)
    _add_pretrain(verbs)
    _add_public(verbs)
    _add_example(verbs)
    _add_survey(verbs)
    add_protocols(verbs)
    with terminable():  # a run that is told to end tidies up as one that is interrupted
        return run_command(parser, argv)


def _add_run(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("run", help="one federation from site folders, with its baselines", description=_run.__doc__)
    _add_common(parser, "demo")
    parser.add_argument("--resume", action="store_true", help="go on with the run that RUN holds, after its last finished round")
    parser.add_argument("--external", required=True, metavar="SITE", help="held-out site; several joined by +")
    parser.add_argument("--dry-run", action="store_true", help="say what it would take in time, memory and bytes, and do nothing")
    parser.set_defaults(handler=_run)


def _add_cross_site(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "cross-site", help="leave each hospital out in turn and pool the predictions", description=_cross_site.__doc__
    )
    _add_common(parser, "real")
    parser.add_argument(
        "--folds", nargs="+", default=[], metavar="SITE", help="sites joined by + are left out together; default: each"
    )
    parser.set_defaults(handler=_cross_site)


def _add_sweep(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "sweep", help="compare variants of a run, chosen by the training hospitals' own patients", description=_sweep.__doc__
    )
    parser.add_argument("grid", type=Path, metavar="GRID", help="TOML file: base, seeds, data, arms (simulation/sweep/grid.py)")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder for table.md, table.json and study.db")
    parser.add_argument("--cache", type=Path, default=None, metavar="DIR", help="where prepared slices are kept")
    parser.add_argument("--workers", type=int, help=f"runs side by side, one thread each (default {os.cpu_count() or 1})")
    _add_address(parser, "does the runs")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_debug(parser)
    parser.set_defaults(handler=_sweep)


def _add_common(parser: argparse.ArgumentParser, config: str) -> None:
    parser.add_argument(
        "--config", default=config, metavar="NAME", help=f"a name under configs/, or a TOML file (default {config})"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    add_unlabelled(parser)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of site folders")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder for the results; must not hold a run")
    parser.add_argument("--cache", type=Path, default=None, metavar="DIR", help="where prepared slices are kept")
    parser.add_argument(
        "--engine", choices=ENGINES, default=DEFAULT_ENGINE, help=f"what sites run in: {WORDS} (default {DEFAULT_ENGINE})"
    )
    _add_address(parser, f"does the work (with --engine {RAY})")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(parser)


def _add_address(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--address", metavar="HOST:PORT", help=f"of a Ray cluster that {what}; docs/cluster.md")


def _add_public(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("public", help="make public features for private runs", description=_public.__doc__)
    parser.add_argument("out", type=Path, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--config", default="private", metavar="NAME", help="of the runs that will use it (default private)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--patients", type=int, default=400, help="phantoms (default 400)")
    parser.add_argument("--seed", type=int, default=1010, help="of the phantoms; never one that is evaluated on (default 1010)")
    add_debug(parser)
    parser.set_defaults(handler=_public)


def _add_pretrain(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("pretrain", help="make the small backbone that is shipped", description=_pretrain.__doc__)
    parser.add_argument("out", type=Path, metavar="FILE", help="the safetensors file to write")
    parser.add_argument(
        "--on", choices=("images", "tissue"), default="images", help="what is learned: see above (default images)"
    )
    parser.add_argument("--config", metavar="NAME", help="default: pretrain, or pretrain-tissue")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--patients", type=int, help="of each of four phantom hospitals (default 50), or in all (default 1500)")
    parser.add_argument("--seed", type=int, help="of the phantoms; never one that is evaluated on (default 1007, or 1009)")
    add_debug(parser)
    parser.set_defaults(handler=_pretrain)


def _add_example(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "example", help="make what `flwr run .` uses when it is given no data", description=_example.__doc__
    )
    add_debug(parser)
    parser.set_defaults(handler=_example)


def _add_survey(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "survey", help="what the site folders hold: modalities, classes, ages, grids, findings", description=_survey.__doc__
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of site folders")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for survey.json and its page; default: no files")
    parser.add_argument("--config", default="demo", metavar="NAME", help="whose classes and modalities (default demo)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(parser)
    parser.set_defaults(handler=_survey)


def _run(arguments: argparse.Namespace) -> int:
    """Train on every site under DIR but the external one, evaluate there, and put the baselines beside it."""
    from common.data.cache import default_cache
    from simulation.experiment import plan_experiment, run_experiment

    cache = arguments.cache or default_cache() / "slices"
    plan = plan_experiment(
        arguments.config,
        settings_of(arguments),
        arguments.data,
        arguments.external,
        arguments.out,
        cache.expanduser().resolve(),
        resume=arguments.resume,
        engine=arguments.engine,
        address=arguments.address,
        fits=_plain if arguments.dry_run else None,
    )
    if arguments.dry_run:
        return _dry_run(plan, arguments)
    with Shown() as shown:
        try:
            report = run_experiment(plan, shown.note, shown.progress, shown.on_round)
        except (KeyboardInterrupt, SystemExit):  # by hand, or by SIGTERM
            shown.note(f"Finished rounds are kept in {plan.out}. To go on: the same command with --resume.")
            raise
        if untaught := report.get("provenance", {}).get("pooling"):
            shown.note(untaught)
    return _show(report, arguments)


def _plain(config: RunConfig) -> None:
    """Refuse what `--dry-run` cannot estimate."""
    from server.deployment.trial import require_plain

    require_plain(config)


def _dry_run(plan: "Experiment", arguments: argparse.Namespace) -> int:
    if plan.cluster:
        raise ConfigError("--dry-run estimates a run on this machine, and knows no cluster: leave --address out.")
    from simulation.estimate import estimate, told

    with Shown() as shown:
        found = estimate(plan, shown)
    print(json.dumps(found.as_json())) if arguments.json else Console().print(told(found), highlight=False, markup=False)
    return 0


def _cross_site(arguments: argparse.Namespace) -> int:
    """Run one federation for each hospital left out; a fold that is done already is kept, so an interrupted run goes on."""
    from common.data.cache import default_cache
    from simulation.cross_site import plan_folds, run_cross_site

    cache = (arguments.cache or default_cache() / "slices").expanduser().resolve()
    folds = plan_folds(arguments.data, arguments.folds)
    with Shown() as shown:
        report = run_cross_site(
            arguments.config,
            settings_of(arguments),
            arguments.data,
            folds,
            arguments.out,
            cache,
            shown.note,
            shown.progress,
            shown.on_round,
            arguments.engine,
            arguments.address,
        )
    return _show(report, arguments)


def _sweep(arguments: argparse.Namespace) -> int:
    """Run every arm of a declared grid with every seed, in this program; what is done is kept, so an interrupted sweep goes on.
    The arm is chosen by patients whom the training hospitals hold back; the external hospital's figures stand beside them.
    """
    from common.data.cache import default_cache
    from simulation.sweep.grid import read_grid
    from simulation.sweep.table import terminal

    try:
        from simulation.sweep.sweep import run_sweep
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError(
            f"fedmri-sim sweep needs Optuna ({error}). Run, in the checkout: python -m pip install -e '.[sweep]'"
        ) from error
    workers = _workers(arguments)
    cache = (arguments.cache or default_cache() / "slices").expanduser().resolve()
    with Shown() as shown:
        table = run_sweep(read_grid(arguments.grid), arguments.out, cache, workers, shown.note, shown.progress)
    if arguments.json:
        print(json.dumps({**table, "run": str(arguments.out)}))
    else:
        Console().print(terminal(table))
        Console().print(f"Table: {arguments.out / 'table.md'}", soft_wrap=True, markup=False, highlight=False)
    return 1 if any(arm["errors"] for arm in table["arms"]) else 0


def _workers(arguments: argparse.Namespace) -> int | Cluster:
    """What a sweep's runs are done by.

    Raises:
        ConfigError: --workers out of range, or beside --address.
    """
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers: expected 1 or more, got {arguments.workers}.")
    if arguments.address is None:
        return arguments.workers or os.cpu_count() or 1
    if arguments.workers is not None:
        raise ConfigError("--workers counts processes of this machine, and --address names a cluster: leave one of them out.")
    return Cluster(arguments.address)


def _public(arguments: argparse.Namespace) -> int:
    """Learn from phantoms what private runs need not pay for: how patches are pooled, the mean of features and their main
    directions (`model.public_features`). Their statistics are not those of brains."""
    from simulation.public import make_public

    config = load_config(config_path(arguments.config), tuple(arguments.set))
    with Shown() as shown:
        make_public(config, arguments.patients, arguments.seed, arguments.out, shown.progress)
    return 0


def _pretrain(arguments: argparse.Namespace) -> int:
    """Pre-train a small backbone on phantoms: on images alone, by this project's own objective, or on what they are made of."""
    from simulation.pretrain import pretrain
    from simulation.tissue import pretrain_on_tissue

    make, name, patients, seed = {
        "images": (pretrain, "pretrain", 50, 1007),
        "tissue": (pretrain_on_tissue, "pretrain-tissue", 1500, 1009),
    }[arguments.on]
    config = load_config(config_path(arguments.config or name), tuple(arguments.set))
    asked = (patients if arguments.patients is None else arguments.patients, seed if arguments.seed is None else arguments.seed)
    with Shown() as shown:
        make(config, *asked, arguments.out, shown.progress)
    return 0


def _example(arguments: argparse.Namespace) -> int:
    """Write small phantom hospitals and a copy of the shipped backbone into the user's cache, if they are not there."""
    from simulation.example import write_example

    del arguments
    with Shown() as shown:
        write_example(lambda done, total: shown.progress("example hospitals", done, total))
    return 0


def _survey(arguments: argparse.Namespace) -> int:
    """Count the patients of every folder under DIR by topic. A folder with a site.toml tells what its policy lets out, as a
    hospital would; another one belongs to the researcher, and tells all."""
    from server.report.survey import survey_table, write_survey_page
    from server.run.survey import NAME
    from simulation.survey import survey_folders

    config = load_config(config_path(arguments.config), tuple(arguments.set))
    with Shown() as shown:
        found = survey_folders(arguments.data, config, shown.progress)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_atomic(arguments.out / NAME, json.dumps(found, indent=1).encode())
        page = write_survey_page(arguments.out, found)
        shown.note(f"Page: {page}")
    if arguments.json:
        print(json.dumps(found))
    else:
        Console().print(survey_table(found))
        for name, why in found["failures"].items():
            Console().print(f"{name} told nothing: {why}", soft_wrap=True, markup=False, highlight=False)
    return 0 if found["sites"] else 1


def _show(report: dict[str, Any], arguments: argparse.Namespace) -> int:
    """The result: a table for people, JSON for programs; the report's place for both."""
    from server.report.privacy_audit import refutations
    from server.report.publish import HTML_NAME
    from server.report.report import decode
    from server.report.terminal import result_table

    if arguments.json:
        print(json.dumps({**report, "run": str(arguments.out)}))
        return 0
    console = Console()
    console.print(result_table(decode(report)))
    for sentence in refutations(report):
        console.print(sentence, style="red", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Report: {arguments.out / HTML_NAME}", soft_wrap=True, markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
