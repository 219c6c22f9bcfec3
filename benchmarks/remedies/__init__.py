"""Which remedy cures which cause: trainings broken on purpose, recovered in every way, and measured."""
