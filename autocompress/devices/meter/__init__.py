"""The measuring program: numpy and the runtime only, started by its file path, alone on the device."""
