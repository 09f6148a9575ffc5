"""Trajectory viewer: a local page over the archives of a run or a bucket, with a review queue.

`gog view` indexes the archives of all checkpoints into SQLite in the user's cache, so that a hundred thousand
trajectories are paged and filtered in milliseconds. A trajectory and its images are read from the archive when it is
opened. The page uses the scripts and styles of the static report's viewer with another data source.

    dumps/       readers of other projects' trajectories, one file each
    foreign/     what these readers share
    sources.py   targets of the viewer: a run folder, a store, a single archive
    lines.py     lines and images of one archive, as a stream or one at a time
    schema.py    tables of the index, and the row of a line
    index.py     filling the index, resumable, concurrently with readers
    queries.py   filters, sorting, groups, comparisons
    reviews.py   review decisions, appended to a file
    api.py       requests of the page, answered as JSON
    server.py    HTTP on the loopback interface

It never writes to a run or a store. It does not serve other machines and does not edit trajectories.
"""
