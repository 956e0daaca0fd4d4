"""The table of `make bench`: a line a figure, with its target beside it; on the screen and as JSON."""

import json


class Table:
    def __init__(self):
        self.rows = []
        print(f"{'':80} {'measured':>12}  {'target':>12}", flush=True)

    def add(self, what, value, unit="", target=None, spread=None, at_least=False):
        """@target: the most, or the least, that @value may be. @spread: (low, high). A @value of None was not measured."""
        missed = target is not None and value is not None and (value < target if at_least else value > target)
        self.rows.append({"what": what, "value": value, "unit": unit, "target": target, "least": at_least,
                          "spread": spread, "missed": missed})
        shown = "not measured" if value is None else f"{value:.2f} {unit}".rstrip() if value < 1000 else f"{value:.0f} {unit}".rstrip()
        aim = "" if target is None else f"{'>=' if at_least else '<='} {target:g} {unit}".rstrip()
        around = f"  ({spread[0]:.2f} to {spread[1]:.2f})" if spread else ""
        print(f"{what:80} {shown:>12}  {aim:>12}{'  MISSED' if missed else ''}{around}", flush=True)

    def ratio(self, what, result, target=None, at_least=False):
        """A result of stopwatch."""
        self.add(what, result["ratio"], "", target, (result["low"], result["high"]), at_least)

    @property
    def missed(self):
        return any(row["missed"] for row in self.rows)

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.rows, file, indent=1)
            file.write("\n")
