"""How fast this suite is, beside a plain loop, pair by pair, on the machine at hand: `python -m benchmarks`."""
