"""`python -m mpl`."""

from mpl.cli import main

raise SystemExit(main())
