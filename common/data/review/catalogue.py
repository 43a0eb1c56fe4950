"""Every kind of finding that the data gate knows, and the table of them in docs/hospital.md."""

from common.data import cases, site_table
from common.data.gate import (
    folders,
    idle_patterns,
    mask_names,
    modality_files,
    participants,
    patient_files,
    rules,
    sessions,
    spaces,
)
from common.data.gate.finding import Kind
from common.data.review import review

SUBJECTS: dict[str, tuple[Kind, ...]] = {
    "files, places, values and masks": rules.KINDS,
    "names and tables": (
        *folders.KINDS,
        *idle_patterns.KINDS,
        *patient_files.KINDS,
        *modality_files.KINDS,
        *mask_names.KINDS,
        *sessions.KINDS,
        *spaces.KINDS,
        *participants.KINDS,
        *cases.KINDS,
        *site_table.KINDS,
    ),
    "people, likeness and mix-ups": review.KINDS,
}
ALL_KINDS: tuple[Kind, ...] = tuple(kind for kinds in SUBJECTS.values() for kind in kinds)


def table() -> str:
    """The table in Markdown; a level that depends on more is said in the text."""
    lines = ["| code | level | what it means |", "|---|---|---|"]
    for subject, kinds in SUBJECTS.items():
        lines.append(f"| **{subject}** | | |")
        lines += [f"| `{kind.code}` | {kind.level} | {kind.means.replace('|', '/')} |" for kind in kinds]
    return "\n".join(lines)
