"""The measuring program, started by its file path in a process of its own.

It imports only numpy and the runtime.
"""
