"""Test suites and fakes for implementations of the contracts, also for those outside this package.

Each contract has a suite that every implementation inherits; fakes script sizes, times and answers.
"""
