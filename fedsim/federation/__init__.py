"""The federation room: Flower's two apps, and the engines that carry messages between them.

In: a plan and a run folder. Out: the same folder, with every round trained, attacked, committed.
"""
