"""Benchmarks: `python -m streamer.bench pipeline` and `python -m streamer.bench spotting`."""
