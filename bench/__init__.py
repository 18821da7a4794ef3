"""Measurements. Each figure is a ratio to something simpler, taken in alternating pairs in one run."""
