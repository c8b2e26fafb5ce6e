#!/usr/bin/env python3
"""Sums a column of a CSV table that comes on stdin. Written for a terminal, long before anybody thought of tasks."""
import argparse
import csv
import sys
from collections import defaultdict


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("column")
    parser.add_argument("--by", default=None)
    options = parser.parse_args()
    sums = defaultdict(float)
    for row in csv.DictReader(sys.stdin):
        sums[row[options.by] if options.by else "all"] += float(row[options.column])
    for name in sorted(sums):
        print(f"{name:<10}{sums[name]:>10.2f}")
    print(len(sums), "lines", file=sys.stderr)


if __name__ == "__main__":
    main()
