"""The recipes of the stages. Importing the package drops log lines of libraries that say nothing to a user."""

from gog import quiet

quiet.quiet()
