"""The report of a run: one HTML file without network, its figures as PNG and SVG, its tables as CSV.

``make_report(folder)`` makes all three from the run's store and manifest, at any state of the run. Of memory it takes
the maps of the baseline once (4 bytes a prompt and expert) and the rows of the table: 1.5 GB for 10,000 prompts of
58 x 256 experts with 45,000 answers.
"""

from __future__ import annotations

from mote.harness.report.build import make_report

__all__ = ["make_report"]
