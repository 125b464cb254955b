"""The calculations of growth: :mod:`.normalisation` of OD readings, :mod:`.filter` for the rate.

Pure: no clock, no waiting.
"""
