"""``python -m piod``."""

import sys

from piod.cli import main

sys.exit(main())
