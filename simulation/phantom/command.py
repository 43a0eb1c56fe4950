"""`fedmri-sim phantom`: make phantom hospitals, and a figure of them."""

import argparse
from pathlib import Path

from rich.console import Console

from common.cli import add_debug
from common.terminal.progress import long_work
from simulation.phantom.findings import FINDINGS
from simulation.phantom.hospitals import LAYOUTS, ON_REQUEST, write_hospitals


def add_phantom(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "phantom",
        help="make phantom hospitals: simulated brain MRI with tumours, in BIDS folders",
        description="Simulate hospitals that differ in scanner, class mix, missing modalities and labels. "
        "The last training hospital has no labels. Same seed, same bytes. Phantoms verify software; they claim nothing clinical.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the hospitals; must be absent or empty")
    parser.add_argument("--sites", type=int, default=4, help="training hospitals, 2 or more (default 4)")
    parser.add_argument("--patients", type=int, default=24, help="patients in each of them (default 24)")
    parser.add_argument("--external", type=int, default=40, help="patients of the external hospital; 0: none (default 40)")
    parser.add_argument(
        "--broken", type=int, default=0, metavar="N", help="also N patients of each fault of broken physics, under OUT/broken"
    )
    parser.add_argument(
        "--also", nargs="+", default=[], choices=ON_REQUEST, metavar="MODALITY", help=f"write as well, of {', '.join(ON_REQUEST)}"
    )
    parser.add_argument("--grade", action="store_true", help="also write the WHO grade into participants.tsv")
    parser.add_argument("--findings", action="store_true", help=f"also write {', '.join(FINDINGS)} into participants.tsv")
    parser.add_argument(
        "--layout",
        default="bids",
        choices=LAYOUTS,
        help="bids: masks under derivatives/, as the BIDS validator wants them (default); flat: beside the images",
    )
    parser.add_argument("--seed", type=int, default=7, help="default 7")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw one patient of each subtype")
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    add_debug(parser)
    parser.set_defaults(handler=run_phantom)


def run_phantom(arguments: argparse.Namespace) -> int:
    """Do it, with a progress bar on standard error."""
    from simulation.phantom.figure import write_figure  # noqa: PLC0415  matplotlib is a second

    console = Console(stderr=True)
    with long_work("phantom patients") as report:
        write_hospitals(
            arguments.out,
            sites=arguments.sites,
            patients=arguments.patients,
            external=arguments.external,
            seed=arguments.seed,
            broken=arguments.broken,
            also=tuple(dict.fromkeys(arguments.also)),
            grade=arguments.grade,
            findings=arguments.findings,
            layout=arguments.layout,
            progress=report,
            force=arguments.force,
        )
    if arguments.figure:
        write_figure(arguments.figure, arguments.out)
    console.print(f"Phantom hospitals: {arguments.out}", soft_wrap=True, markup=False, highlight=False)
    return 0
