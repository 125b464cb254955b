"""The calculations of an OD reading: from timed voltages to an optical density.

:mod:`.sampling` says when to look, :mod:`.signal` makes one voltage of the samples,
:mod:`.dark` takes away what the photodiode sees without light, :mod:`.reference`
divides by the lamp's own brightness, :mod:`.light` chooses and guards the amount of
light. Pure: no clock, no hardware, no waiting.
"""
