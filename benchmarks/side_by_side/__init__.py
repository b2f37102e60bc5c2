"""Programs that do one and the same work, beside each other; `performance.py` runs them.

`work` is what they do, `programs` names them, `judge` looks at what they wrote, `runs` times and kills them, `books`
compares matching without a log, `page` turns the figures into docs/performance.md and its picture.
"""
