"""A virtual reactor on the wire.

``plant`` is the truth: a vial and the parts in, under and around it (``vial``,
``culture``, ``heat``, ``optics``, ``pumps``, ``stirrer``), driven by the outputs
alone and ignorant of asyncio. ``board`` puts the ports of :mod:`piod.hw.ports` on
it: ``pwm``, ``gpio`` and ``i2c``, whose ``chips`` see it through ``surroundings``;
``faults`` makes them fail as hardware does. ``silicon`` shows in a file what the
outputs hold, ``plant_file`` keeps the plant, and ``run_on`` lets it run on for the
time during which no daemon looked after it.

``plant``, its parts and ``run_on`` import next to nothing: ``safe-outputs``
needs them and has a second for everything.
"""
