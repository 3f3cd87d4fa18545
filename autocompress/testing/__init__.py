"""What those who write a technique, a runtime, a device or a strategy outside test it with.

Each contract has a suite that every implementation inherits; fakes script sizes, times and answers.
"""
