"""The result on the terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from server.report.page import findings, segmentation
from server.report.page.comparison import ALONE, comparison
from server.report.page.headline import headline
from server.report.page.values import measure_text, number
from server.report.report import Report


def result_table(report: Report) -> Table:
    """The federated model and its baselines on the external hospital, with 95% intervals.

    Args:
        report: the run's. Names are shown as they are, never read as markup.
    """
    table = Table(box=box.SIMPLE_HEAD, title=Text(headline(report), style="bold"), title_justify="left", pad_edge=False)
    table.caption = Text(
        "95% bootstrap intervals over patients. The external hospital had no part in training or model selection.", style="dim"
    )
    table.caption_justify = "left"
    table.add_column("Training", overflow="fold")
    if section := segmentation.read(report.segmentation):
        return _segmented(table, section)
    if told := findings.read(report.findings):
        return _findings(table, told)
    for name in ("MCC", "Balanced accuracy", "AUROC", "Brier"):
        table.add_column(name, justify="right")
    for row in comparison(report):
        alone = " alone" if row.note == ALONE else ""
        cells = [Text(row.name + alone), Text(measure_text(row.mcc))]
        cells += [Text(number(m.value)) for m in (row.balanced_accuracy, row.auroc, row.brier)]
        table.add_row(*cells, style="bold" if row.federated else "")
    return table


def _segmented(table: Table, section: segmentation.Section) -> Table:
    """The rows of a run that segments."""
    for name in ("Dice", "Jaccard", "95% Hausdorff, mm", "Patients"):
        table.add_column(name, justify="right")
    for row in section.rows:
        found = row.found
        cells = [
            row.name,
            measure_text(found.dice),
            measure_text(found.jaccard),
            number(found.hd95_mm.value, 1),
            str(found.n or 0),
        ]
        table.add_row(*map(Text, cells), style="bold" if row.federated else "")
    return table


def _findings(table: Table, section: findings.Section) -> Table:
    """The rows of a run of findings: models by their means, then each finding of the federated model."""
    for name in ("AUROC", "Balanced accuracy", "MCC", "Patients"):
        table.add_column(name, justify="right")
    for row in (*section.rows, *section.findings[:-1]):
        found = row.found
        cells = [measure_text(found.auroc), *(number(m.value) for m in (found.balanced_accuracy, found.mcc)), str(found.n or 0)]
        table.add_row(*map(Text, (row.name, *cells)), style="bold" if row.strong else "")
    return table
