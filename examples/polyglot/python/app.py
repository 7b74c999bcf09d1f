"""urn:cascade:activity:statistics_py: mean, median and deviation of a list of numbers.

An activity in Python: the WIT world is a class with the exported function. JSON text in, JSON text out.
"""

import json
import statistics

from componentize_py_types import Err
from wit_world import WitWorld as Base
from wit_world.imports import log
from wit_world.imports.types import ActivityError


class WitWorld(Base):
    def handle(self, context, input: str) -> str:
        numbers = json.loads(input)
        if not isinstance(numbers, list) or len(numbers) < 2:
            raise Err(ActivityError("InvalidInput", "input: expected a list of two numbers or more", False, None))
        log.write(log.Level.INFO, f"{len(numbers)} numbers")
        return json.dumps(
            {
                "mean": statistics.fmean(numbers),
                "median": statistics.median(numbers),
                "deviation": statistics.stdev(numbers),
            }
        )
