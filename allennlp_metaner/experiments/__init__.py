"""Grids of trainings and evaluations: what the tables of a paper need."""
