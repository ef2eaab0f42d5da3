"""Simulated expressions: action units as motion of the skin, faces to put it on, and how spotting is scored.

What is made here is simulated: nobody performed it. The benchmark, the training and the tests use it; the
live recogniser does not.
"""
