"""``piod calibrate``: a calibration session in a terminal, over the unit's HTTP API.

- :mod:`~piod.terminal.command`: from the command line to a unit and a session
- :mod:`~piod.terminal.walk`: from page to page, until the session is over
- :mod:`~piod.terminal.asking`: what a person, or a script, answers
- :mod:`~piod.terminal.waiting`: what is shown while the hardware works
- :mod:`~piod.terminal.pages`: sessions as the API tells them
- :mod:`~piod.terminal.drawing`: pages, tables and charts as text
- :mod:`~piod.terminal.unit_client`: HTTP

It knows no protocol: whatever a page asks for is asked for here as in a browser.
"""
