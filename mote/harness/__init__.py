"""The study: recipes, engines, run store, activation maps and resonance, controls, transitions, report, command line."""
