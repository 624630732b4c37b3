"""Commands: each a thin file around what the library does.

`camri COMMAND ...`, or `python experiments/COMMAND.py ...`.
"""
