"""piod: the daemon that runs one Pioreactor.

This module stays empty of imports: the guard process must stay small, and
``piod safe-outputs`` quick.
"""

__version__ = "0.1.0"
