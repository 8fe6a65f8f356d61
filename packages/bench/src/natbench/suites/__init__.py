"""The benchmarks, run by `natbench` through pytest."""
