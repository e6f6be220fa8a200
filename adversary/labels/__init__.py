"""The room that label attacks share: the head's gradient, moments, counts, posteriors.

In: a view and auxiliary data. Out: what counts of labels are computed from.
"""
