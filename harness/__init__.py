"""The study: recipes, engines, run store, resonance, controls, transitions, report, command line."""
