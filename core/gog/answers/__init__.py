"""Comparison of answers without a model: an answer is correct only where its equality with an accepted one is certain.

`match.decide` combines the comparisons, one file for each kind of answer. All functions are pure. Meaning beyond these
forms (paraphrases, translations, knowledge about the world) needs a judge model.
"""
