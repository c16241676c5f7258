"""Figures of runs, studies and libraries, with one theme."""
