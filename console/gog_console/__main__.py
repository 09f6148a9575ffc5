"""`python -m gog_console`, where the `gog` script is not on the path."""

import sys

from gog_console.cli import main

sys.exit(main())
