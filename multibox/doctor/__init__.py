"""The data doctor: finds what is wrong with a data set, says what it means for a training, and writes a mended copy."""

from multibox.doctor.examine import examine
from multibox.doctor.kinds import KINDS, Kind
from multibox.doctor.report import Report
from multibox.doctor.survey import Finding

__all__ = ["KINDS", "Finding", "Kind", "Report", "examine"]
