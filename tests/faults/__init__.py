"""The fault rig and the checker that judges it.

`python -m tests.faults --minutes 5` runs publishers and subscribers against a real server, hurts
all of them by a seeded plan, and writes four logs. The checker reads the logs afterwards, knows
nothing of how they were made, and says which promise of `docs/delivery.rst` was broken. The
mutants are logs with one lie in them, to show that the checker would have said so.

logs · checker · mutants · sample       judge: pure, offline, no sockets
publisher · subscriber · clients · proxy       processes that make the logs
nodes · faults · redis_faults · rig · report       who starts them, hurts them, tells about it
"""
