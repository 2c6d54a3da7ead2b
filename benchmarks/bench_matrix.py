"""How fast all vectors come out as one matrix, with the ids beside it."""


def bench_matrix(play, planned_load, contender):
    play(planned_load, contender)
