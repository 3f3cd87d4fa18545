"""Simulation of an exported file in torch, quantized or not, so that its numbers can be learned."""
