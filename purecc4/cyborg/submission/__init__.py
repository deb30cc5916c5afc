"""Files that run in CybORG's Python with only NumPy and the standard library.

`policy` and `submission.py` are copied unchanged into an exported folder. `purecc4 transfer` runs `play.py`.
"""
