"""How fast nodes with their vectors get into a file, durably."""


def bench_nodes(play, planned_load, contender):
    play(planned_load, contender)
