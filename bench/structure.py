"""The shape of the code: `python bench/structure.py [OUT.json] [--at FOLDER]` prints it, and writes it where OUT is named.

A package's boxes are what lies directly in it: its rooms (folders) and its own files. An arrow goes from one box to another that
it imports, however often. Upward are the fewest arrows without which the boxes can stand one above the other (a minimum feedback
arc set); floors are how many then do, on the longest way down. A circle is a set of files, in whatever room, that reach each
other by imports (a strongly connected component of more than one). All is read from the source, nothing is imported.
"""

import argparse
import ast
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

DRAWN = ("client", "server", "common")  # the packages whose boxes are counted
READ = (*DRAWN, "simulation")  # the packages whose code is measured
LONGEST_BODY, LONGEST_FILE = 45, 300  # lines
LARGEST_CIRCLE = 16  # boxes whose best order is found in a moment

Arrows = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Drawing:
    """Figures of one package's import graph."""

    boxes: int
    floors: int
    arrows: int
    upward: int
    circles: int


@dataclass(frozen=True)
class Code:
    """Figures of the source; a function's body is without its docstring, from the first line to the last."""

    files: int
    lines: int
    functions: int
    median_body: float
    longest_body: int
    long_bodies: tuple[str, ...]
    long_files: tuple[str, ...]
    type_ignores: int


def draw(package: Path) -> Drawing:
    """The import graph of a package's boxes."""
    boxes, files = read_boxes(package), read_files(package)
    arrows = frozenset((box_of(a), box_of(b)) for a, b in files if {box_of(a), box_of(b)} <= boxes and box_of(a) != box_of(b))
    tied = [frozenset((a, b) for a, b in arrows if {a, b} <= circle) for circle in circles_of(arrows)]
    upward = frozenset[tuple[str, str]]().union(*(fewest_upward(ours) for ours in tied))
    return Drawing(len(boxes), floors_of(boxes, arrows - upward), len(arrows), len(upward), len(circles_of(files)))


def read_boxes(package: Path) -> frozenset[str]:
    """Names of the rooms and files that lie directly in a package."""
    rooms = {folder.name for folder in package.iterdir() if any(folder.glob("**/*.py"))}
    return frozenset(rooms | {file.stem for file in package.glob("*.py") if file.stem != "__init__"})


def box_of(module: str) -> str:
    """The box that `package.box...` is in; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def read_files(package: Path) -> Arrows:
    """Which file imports which other, at its top, in a function or for type checking alone; by full names."""
    names = {file: ".".join(file.relative_to(package.parent).with_suffix("").parts) for file in package.rglob("*.py")}
    names = {file: name.removesuffix(".__init__") for file, name in names.items()}
    known, arrows = set(names.values()), set()
    for file, name in names.items():
        for source, imported in imports(ast.parse(file.read_text(encoding="utf-8"))):
            other = f"{source}.{imported}" if f"{source}.{imported}" in known else source
            if other in known and other != name:
                arrows.add((name, other))
    return frozenset(arrows)


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of all that a file imports; name is "" where the whole module is. Imports are absolute here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def circles_of(arrows: Arrows) -> tuple[frozenset[str], ...]:
    """The strongly connected components of more than one."""
    reach = {place: reached(place, arrows) for arrow in arrows for place in arrow}
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in reach}
    return tuple(circle for circle in found if len(circle) > 1)


def reached(place: str, arrows: Arrows) -> frozenset[str]:
    """All to which a way leads from here, itself included."""
    found, ahead = {place}, [place]
    while ahead:
        here = ahead.pop()
        new = {b for a, b in arrows if a == here} - found
        found |= new
        ahead += new
    return frozenset(found)


def floors_of(boxes: frozenset[str], arrows: Arrows) -> int:
    """How many boxes stand one above the other on the longest way down; `arrows` without circles."""

    @cache
    def height(box: str) -> int:
        return 1 + max((height(lower) for upper, lower in arrows if upper == box), default=0)

    return max(map(height, boxes), default=0)


def fewest_upward(arrows: Arrows) -> Arrows:
    """The fewest arrows that point upward in any order of the boxes (Held and Karp's way over subsets: exact)."""
    boxes = sorted({box for arrow in arrows for box in arrow})
    if len(boxes) > LARGEST_CIRCLE:
        raise SystemExit(f"A circle of {len(boxes)} boxes; the best order of more than {LARGEST_CIRCLE} takes too long to find.")

    @cache
    def best(on_top: frozenset[str]) -> Arrows:
        """Of these boxes, in their best order, with all others below them."""
        choices = []
        for last in sorted(on_top):
            choices.append(best(on_top - {last}) | {(a, b) for a, b in arrows if b == last and a not in on_top})
        return min(choices, key=len, default=frozenset())

    return best(frozenset(boxes))


def measure(root: Path) -> Code:
    """The figures of the source below a checkout."""
    files = {f.relative_to(root): f.read_text(encoding="utf-8") for name in READ for f in sorted((root / name).rglob("*.py"))}
    bodies = {f"{file}: {name}": lines for file, text in files.items() for name, lines in bodies_of(text)}
    counts = [lines for text in files.values() for _, lines in bodies_of(text)]
    lengths = {file: text.count("\n") for file, text in files.items()}
    return Code(
        files=len(files),
        lines=sum(lengths.values()),
        functions=len(counts),
        median_body=statistics.median(counts),
        longest_body=max(counts),
        long_bodies=tuple(f"{name}, {lines}" for name, lines in bodies.items() if lines > LONGEST_BODY),
        long_files=tuple(f"{file}, {lines}" for file, lines in lengths.items() if lines > LONGEST_FILE),
        type_ignores=sum(len(re.findall(r"#\s*type:\s*ignore", text)) for text in files.values()),
    )


def bodies_of(source: str) -> Iterator[tuple[str, int]]:
    """Every function's name and how many lines its body has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield node.name, (node.end_lineno or 0) - first[0].lineno + 1 if first else 0


def show(drawings: dict[str, Drawing], code: Code) -> None:
    """Print both tables."""
    print("| package | boxes | floors | arrows | upward | circles |\n|---|---|---|---|---|---|")
    for name, drawing in drawings.items():
        print(f"| {name} | " + " | ".join(str(figure) for figure in asdict(drawing).values()) + " |")
    print("\n| code | |\n|---|---|")
    for name, figure in asdict(code).items():
        shown = "; ".join(figure) or "none" if isinstance(figure, tuple) else f"{figure:g}" if name == "median_body" else figure
        print(f"| {name.replace('_', ' ')} | {shown} |")


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="JSON file to write")
    parser.add_argument("--at", type=Path, default=Path(__file__).resolve().parents[1], help="another checkout to measure")
    arguments = parser.parse_args()
    drawings, code = {name: draw(arguments.at / name) for name in DRAWN}, measure(arguments.at)
    show(drawings, code)
    if arguments.out:
        found = {"packages": {name: asdict(drawing) for name, drawing in drawings.items()}, "code": asdict(code)}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
