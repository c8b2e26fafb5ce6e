"""The straight line that fits some points best.

params: {"x": [1, 2, 3], "y": [2, 4, 6.5]}
result: {"slope": 2.25, "intercept": -0.33, "correlation": 0.997}
"""

import statistics

import taskmaster


def fit(params):
    x, y = params["x"], params["y"]
    if len(x) != len(y) or len(x) < 2:
        raise taskmaster.Permanent(f"params: x has {len(x)} numbers, y has {len(y)}; as many are wanted, 2 at least")
    line = statistics.linear_regression(x, y)
    taskmaster.progress(0.5, "fitted")
    return {"slope": line.slope, "intercept": line.intercept, "correlation": statistics.correlation(x, y)}


WitWorld = taskmaster.task(fit)
