"""Looking at trajectories: a local page over a run's or a bucket's archives, and a queue to review them in.

`gog view` indexes the archives of all checkpoints into SQLite in the user's cache, so that a hundred thousand
trajectories are paged and filtered in milliseconds; each is read from its archive when it is opened, and so are its
images. The page is the viewer of the static report over another source: same scripts, same styles.

    places.py    what can be looked at: a run folder, a store, a single archive
    lines.py     lines and images of one archive, as a stream or one at a time
    schema.py    the index's tables and what a line becomes in them
    index.py     filling the index, resumable, beside its readers
    queries.py   filters, sorting, groups, comparisons
    reviews.py   decisions, appended to a file
    api.py       what the page asks for, as JSON
    server.py    HTTP on loopback, and nobody else's

It never writes to a run or a store. What it does not do: serve other machines, or edit trajectories.
"""
