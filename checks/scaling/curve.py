"""Loss curves and the schedules that runs are planned on: the door to the modules that read them.

read_curve("cosine.csv") gives a Curve of columns step, loss and, where known, lr and tokens;
read_schedule("cosine:total=72000,warmup=2160,peak=3e-4,final=3e-5", curve) the rates of the whole run.
"""

from checks.scaling._curve import Curve, with_schedule
from checks.scaling.curve_table import read_curve
from checks.scaling.schedule import rates_of, read_schedule

__all__ = ["Curve", "rates_of", "read_curve", "read_schedule", "with_schedule"]
