"""How fast edges get into a file that has their nodes, with foreign keys true at the end."""


def bench_edges(play, planned_load, contender):
    play(planned_load, contender)
