"""Loss-curve laws: fit one to the curves of a few runs, predict other schedules, derive a better one.

>>> import numpy as np
>>> from mpl import Curve, FitResult, fit, optimize_schedule
"""

from mpl.curve import Curve as Curve
from mpl.errors import MplError as MplError
from mpl.fit import FitResult as FitResult
from mpl.fit import Prediction as Prediction
from mpl.fit import fit as fit
from mpl.fit import select as select
from mpl.metrics import Metrics as Metrics
from mpl.optimize import Optimised as Optimised
from mpl.optimize import optimize_schedule as optimize_schedule
