"""Files that run in CybORG's Python, with NumPy and the standard library alone.

`policy` and `submission.py` are copied as they are into an exported folder; `play.py` is run by `purecc4 transfer`.
"""
