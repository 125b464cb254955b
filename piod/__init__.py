"""piod: the daemon that runs one Pioreactor.

This module stays empty of imports: the guard process is forked before anything
heavy is loaded, and ``piod safe-outputs`` must be quick.
"""

__version__ = "0.1.0"
