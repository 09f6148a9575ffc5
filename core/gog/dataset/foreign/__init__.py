"""What the readers of other projects' files have in common: tables, values, images and the rows made of them.

A format (`gog.dataset.formats`) says which fields it has; everything that goes wrong in such files whatever their format
is handled here, once: JSON inside strings, integers as answers, NaN, images as base64 or lists of integers, missing
files, pickles, encrypted text.
"""
