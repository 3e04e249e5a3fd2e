"""A small language-model training program: `python -m train --out DIR`, `python -m train.evaluate DIR`.

Importing the package loads neither torch nor numpy; `train.schedules` needs numpy alone.
"""
