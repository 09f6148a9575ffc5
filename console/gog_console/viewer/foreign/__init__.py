"""What readers of other projects' trajectories share: chat templates, tags of actions, images, files as archives.

chat.py      a text or a list of messages -> who said what
acts.py      what a model wrote in one turn -> its reasoning and its action
episode.py   both, and scores -> a trajectory
pictures.py  images that rows name or embed
archive.py   a file of rows, indexed and read as an archive of gog is
"""
