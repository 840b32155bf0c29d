"""Results of evaluations, item by item, in a run's folder: what was asked of which checkpoint, and how it answered."""

from trainvitals.evals.files import Evals, Summary, read_evals, write_sheet, write_sheets
from trainvitals.evals.sheet import COLUMNS, Sheet, tidy

__all__ = ["COLUMNS", "Evals", "Sheet", "Summary", "read_evals", "tidy", "write_sheet", "write_sheets"]
