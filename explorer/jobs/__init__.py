"""Background jobs started from the page: trainings and quick evaluations.

Each job runs in a worker process of its own. One job runs at a time for each `$SIEVE_HOME`; its
directory holds the request, the progress and the log, so that every server finds it again.
"""
