"""The report of a run: one HTML file without network, its figures as PNG and SVG, its tables as CSV.

``make_report(folder)`` makes all three from the run's store and manifest, at any state of the run.
"""

from __future__ import annotations

from mote.harness.report.build import make_report

__all__ = ["make_report"]
