"""Compares the evaluations of several runs: seeds of one setting together, policies on the same questions.

answers   reads what each run's evaluations answered, question by question
pairs     groups seeds, and tests differences: intervals, corrected p-values, power; pure
text      what `gog compare` prints; pure
page      what it draws; pure
"""
